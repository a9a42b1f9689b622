//! The other way to keep a program from the file system: `bwrap`, with namespaces of its own for
//! mounts, processes, network, IPC and users. Dearer than Landlock, and for kernels without it.
//!
//! Three things that are easily got wrong. bwrap's own environment can be read from inside, through
//! its process 1, `--clearenv` or not; so bwrap itself is started with the program's environment.
//! A program that is process 1 of its namespace ignores the signal of its own `abort()`; bwrap's
//! ordinary way, in which it is process 2, avoids that. And bwrap tells a death by signal as exit
//! code 128 + signal, like a shell; [`Bubblewrap::status`] turns the usual ones back.

use crate::{
    SandboxError, Status,
    bpf::Filter,
    interpreter::Interpreter,
    launch::{Arguments, Fault, LaunchPlan, ResourceLimit, Started, Step, start},
    runner::{layer, sealed_file},
    scratch::Scratch,
    starts::{ENVIRONMENT, Start, filter},
    syscalls::ExecPointers,
    volume::Attach,
};
use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Process id of the program in its namespace; bwrap's own is 1.
const PID: u32 = 2;
const NAMESPACES: [&str; 5] = ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--hostname"];

/// A found `bwrap` with the arguments that are the same for every program.
#[derive(Debug)]
pub(crate) struct Bubblewrap {
    arguments: Vec<Vec<u8>>,
    python: PathBuf,
}

impl Bubblewrap {
    pub(crate) fn find(python: &Interpreter, more: &[PathBuf]) -> Result<Self, SandboxError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|dir| dir.join("bwrap"))
            .find(|file| file.is_file());
        let bwrap = found.ok_or_else(|| layer("bubblewrap", &io::Error::other("there is no bwrap on the PATH")))?;
        let mut arguments = vec![bwrap.as_os_str().as_bytes().to_vec()];
        let mut add = |parts: &[&[u8]]| arguments.extend(parts.iter().map(|part| part.to_vec()));
        NAMESPACES.iter().for_each(|part| add(&[part.as_bytes()]));
        add(&[b"sandbox"]);
        // The system's directories that are links, such as /lib to usr/lib.
        for link in ["/lib", "/lib64", "/bin"] {
            if let Ok(target) = std::fs::read_link(link) {
                add(&[b"--symlink", target.as_os_str().as_bytes(), link.as_bytes()]);
            }
        }
        let mut bind =
            |from: &Path, to: &Path| add(&[b"--ro-bind", from.as_os_str().as_bytes(), to.as_os_str().as_bytes()]);
        for path in python.readable.iter().chain(more) {
            bind(path, path);
        }
        // The interpreter by the name that it is started with, and the loader by the name that
        // executables carry: both are often links into what is bound above.
        let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].map(PathBuf::from);
        for name in [&python.executable].into_iter().chain(&loaders) {
            let Ok(target) = name.canonicalize() else { continue };
            let Some(place) = name.parent().and_then(|dir| dir.canonicalize().ok()) else {
                continue;
            };
            if let Some(file) = name.file_name().filter(|file| target != place.join(file)) {
                let inside = python
                    .readable
                    .iter()
                    .any(|path| path.is_dir() && place.starts_with(path));
                if !inside {
                    bind(&target, &place.join(file));
                }
            }
        }
        for device in ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"] {
            add(&[b"--dev-bind", device.as_bytes(), device.as_bytes()]);
        }
        Ok(Self {
            arguments,
            python: python.executable.clone(),
        })
    }

    /// The filter for programs behind bwrap. `execve` has to be open, because bwrap makes it from
    /// an address of its own; the interpreter is the only executable.
    pub(crate) fn filter(&self) -> Result<Filter, SandboxError> {
        let mut filter = filter(ExecPointers::ANY, true)?;
        for at in &filter.pid_at {
            if let Some(instruction) = filter.code.get_mut(*at) {
                instruction.k = PID;
            }
        }
        Ok(filter)
    }

    pub(crate) fn start(
        &self,
        way: Start,
        (scratch, volume): (&Scratch, Option<Attach<'_>>),
        streams: [BorrowedFd<'_>; 3],
        limits: &[ResourceLimit],
        filter: &[libc::sock_filter],
    ) -> Result<Started, Fault> {
        let fault = |error| Fault {
            step: Step::Process,
            error,
        };
        let filter = sealed_file(&bytes(filter)).map_err(fault)?;
        let number = filter.as_raw_fd().to_string();
        let place = scratch.path().as_os_str().as_bytes();
        let (bind, seccomp): ([&[u8]; 5], [&[u8]; 3]) = (
            [b"--bind", place, place, b"--chdir", place],
            [b"--seccomp", number.as_bytes(), b"--"],
        );
        // What bwrap made to mount on is a file system in memory, without a limit.
        let read_only: [&[u8]; 2] = [b"--remount-ro", b"/"];
        let python = [self.python.as_os_str().as_bytes()];
        let arguments: Vec<&[u8]> = self
            .arguments
            .iter()
            .map(Vec::as_slice)
            .chain(bind)
            .chain(read_only)
            .chain(seccomp)
            .chain(python)
            .chain(way.flags().iter().copied())
            .collect();
        let arguments = Arguments::new(&arguments, &[ENVIRONMENT]).map_err(fault)?;
        start(&mut LaunchPlan {
            arguments: &arguments,
            streams,
            directory: scratch.directory(),
            volume,
            limits,
            ruleset: None,
            filter: None,
            // Root's user namespace cannot be made without; bwrap drops them for the program.
            without_capabilities: false,
            kept: &[filter.as_raw_fd()],
        })
    }

    /// The program's own status from that of bwrap, which used its processor time up or not.
    pub(crate) fn status(status: Status, used_up: bool) -> Status {
        const TOLD: [i32; 10] = [
            libc::SIGABRT,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGKILL,
            libc::SIGTERM,
            libc::SIGXFSZ,
            libc::SIGSYS,
            libc::SIGTRAP,
        ];
        match status {
            Status::Exit(code) if code == 128 + libc::SIGXCPU => Status::TimedOut,
            Status::Exit(code) if code == 128 + libc::SIGKILL && used_up => Status::TimedOut,
            Status::Exit(code) if TOLD.contains(&(code - 128)) => Status::Signal(code - 128),
            other => other,
        }
    }
}

/// The filter as bwrap reads it: the kernel's structures one after the other.
fn bytes(filter: &[libc::sock_filter]) -> Vec<u8> {
    filter
        .iter()
        .flat_map(|i| {
            let [c0, c1] = i.code.to_ne_bytes();
            let [k0, k1, k2, k3] = i.k.to_ne_bytes();
            [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_by_signal_are_told_from_exit_codes() {
        for (told, meant) in [
            (Status::Exit(3), Status::Exit(3)),
            (Status::Exit(134), Status::Signal(6)),
            (Status::Exit(128 + 24), Status::TimedOut),
            (Status::Exit(200), Status::Exit(200)),
            (Status::TimedOut, Status::TimedOut),
        ] {
            assert_eq!(Bubblewrap::status(told, false), meant);
        }
        // Deaf to the first signal at the limit of processor time, killed by the second.
        assert_eq!(Bubblewrap::status(Status::Exit(137), true), Status::TimedOut);
        assert_eq!(Bubblewrap::status(Status::Exit(137), false), Status::Signal(9));
    }
}
