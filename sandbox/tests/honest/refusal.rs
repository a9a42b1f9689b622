//! Hosts that lack a layer. They are made here: this test program runs one of its tests again in a
//! child behind a filter that answers the layer's system calls as such a host does.

use super::common;
use std::{os::unix::process::CommandExt, process::Command};
use wmtp_sandbox::{Isolation, Limits, Options, Policy, Program, Runner, Sandbox, SandboxError, Status};

const LACKING: &str = "WMTP_TEST_LACKING";

/// Answers one system call with an error, in this process and all that it starts.
fn deny(number: libc::c_long, first_argument: Option<u32>, error: i32) -> std::io::Result<()> {
    let code = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let (load, equal, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ,
        libc::BPF_RET,
    );
    let refuse = libc::SECCOMP_RET_ERRNO | error as u32;
    let mut filter = vec![
        code(load, 0, 0, 0),
        code(equal, 0, 3, number as u32),
        code(load, 0, 0, 16),
    ];
    filter.push(match first_argument {
        Some(value) => code(equal, 0, 1, value),
        None => code(equal, 0, 0, 0),
    });
    filter.extend([code(answer, 0, 0, refuse), code(answer, 0, 0, libc::SECCOMP_RET_ALLOW)]);
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: plain values and a pointer to a local that describes a vector of that length.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program, 0, 0) == -1
        {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Runs the test `name` on a host that lacks `what`.
fn on_a_host_without(what: &str, name: &str) {
    let (number, first, error) = match what {
        "landlock" => (libc::SYS_landlock_create_ruleset, None, libc::ENOSYS),
        "landlock at boot" => (libc::SYS_landlock_create_ruleset, None, libc::EOPNOTSUPP),
        "landlock for programs" => (libc::SYS_landlock_restrict_self, None, libc::EPERM),
        "seccomp" => (libc::SYS_prctl, Some(libc::PR_SET_SECCOMP as u32), libc::EINVAL),
        other => panic!("{other}"),
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("refusal::{name}")])
        .env(LACKING, what);
    // SAFETY: the filter is small and made after fork in a child of one thread; this is a test.
    unsafe { command.pre_exec(move || deny(number, first, error)) };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{what}: {text}");
}

fn with(policy: Policy, isolation: Isolation) -> Result<Sandbox, SandboxError> {
    Sandbox::with(&Options {
        policy,
        isolation,
        ..common::options()
    })
}

fn works(sandbox: &Sandbox) {
    let program = Program {
        source: "print(input())",
        stdin: b"hello\n",
    };
    let outcome = sandbox.run(&program, &Limits::default()).unwrap();
    assert_eq!(
        (outcome.status, outcome.stdout.as_slice()),
        (Status::Exit(0), &b"hello\n"[..])
    );
}

#[test]
fn a_missing_layer_is_named_with_what_can_be_done() {
    let Ok(lacking) = std::env::var(LACKING) else {
        for what in ["landlock", "landlock at boot", "landlock for programs", "seccomp"] {
            on_a_host_without(what, "a_missing_layer_is_named_with_what_can_be_done");
        }
        return;
    };
    let error = with(Policy::Refuse, Isolation::Landlock).unwrap_err();
    let SandboxError::Layer { layer, .. } = error else {
        panic!("{error}")
    };
    assert!(lacking.starts_with(layer), "{lacking}: {error}");
    let said = error.to_string();
    assert!(
        said.contains(&format!("`{layer}`"))
            && said.contains("is unavailable on this host")
            && said.contains("use Linux"),
        "{said}"
    );
}

#[test]
fn unsafe_execution_runs_with_what_there_is_and_says_so() {
    let Ok(lacking) = std::env::var(LACKING) else {
        for what in ["landlock", "landlock for programs", "seccomp"] {
            on_a_host_without(what, "unsafe_execution_runs_with_what_there_is_and_says_so");
        }
        let whole = with(Policy::UnsafeExec, Isolation::Landlock).unwrap();
        assert!(
            !whole.level().contains("unsafe"),
            "nothing is missing: {}",
            whole.level()
        );
        return;
    };
    let sandbox = with(Policy::UnsafeExec, Isolation::Landlock).unwrap();
    works(&sandbox);
    let level = sandbox.level();
    assert!(level.starts_with("unsafe: "), "{level}");
    match lacking.as_str() {
        "seccomp" => {
            assert!(
                level.contains("landlock-") && level.ends_with("+rlimits, without seccomp"),
                "{level}"
            );
            assert_eq!(sandbox.layers().len(), 2);
        }
        _ => {
            assert_eq!(level, "unsafe: seccomp+rlimits, without landlock");
            assert_eq!(sandbox.layers(), ["seccomp", "rlimits"]);
        }
    }
}

#[test]
fn bubblewrap_takes_over_where_landlock_is_missing() {
    if std::env::var(LACKING).is_err() {
        if common::without_bubblewrap().is_none() {
            on_a_host_without("landlock", "bubblewrap_takes_over_where_landlock_is_missing");
        }
        return;
    }
    let sandbox = with(Policy::Refuse, Isolation::Auto).unwrap();
    assert!(
        sandbox.level().starts_with("bubblewrap+seccomp+rlimits"),
        "{}",
        sandbox.level()
    );
    works(&sandbox);
}

#[test]
fn a_missing_interpreter_is_one_clear_sentence() {
    for command in ["/nonexistent/python3", "/bin/true"] {
        let options = Options {
            python: command.into(),
            ..common::options()
        };
        let error = Sandbox::with(&options).unwrap_err();
        assert!(matches!(error, SandboxError::NoPython { .. }));
        let text = error.to_string();
        assert!(text.contains(command) && text.contains("install Python 3"), "{text}");
    }
}
