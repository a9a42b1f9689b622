//! The "process" level: what plain Unix gives, and no more. See the folder's first page for what
//! that leaves open.

use super::{Limits, Outcome, Program, Runner, SandboxError, Status};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsRawFd, RawFd},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Open files a program may have, standard streams included.
const OPEN_FILES: u64 = 64;
/// How long the reader sleeps at most before it looks whether the program has ended. Only programs
/// that close their output, or leave it open to a descendant, are ever noticed this late.
const GLANCE: Duration = Duration::from_millis(10);

/// Runs each program in a process of its own; unix only.
///
/// The interpreter is looked up once. It starts without user site directory and byte-code files
/// and with an environment of a single entry, `PYTHONHASHSEED=0`: set order is part of what a
/// program prints, and a verdict has to repeat. (`-I` would ignore that variable; the environment
/// being ours, and the only directory on its path the program's own, it would add nothing else.)
#[derive(Clone, Debug)]
pub struct ProcessRunner {
    python: PathBuf,
    version: String,
}

impl ProcessRunner {
    /// Finds `python3` on the PATH.
    ///
    /// # Errors
    /// [`SandboxError::NoPython`].
    pub fn new() -> Result<Self, SandboxError> {
        Self::with_python(Path::new("python3"))
    }

    /// Uses this interpreter. What is started later is the executable that it names itself, so
    /// that a wrapper script (pyenv's, say) is asked once and not again without its environment.
    ///
    /// # Errors
    /// [`SandboxError::NoPython`] if it does not run or is not Python 3.
    pub fn with_python(command: &Path) -> Result<Self, SandboxError> {
        let fail = |reason: String| SandboxError::NoPython {
            command: command.display().to_string(),
            reason,
        };
        let ask = "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3])";
        let answer = Command::new(command)
            .args(["-I", "-c", ask])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| fail(error.to_string()))?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let mut lines = text.lines();
        match (lines.next(), lines.next()) {
            (Some(path), Some(version)) if answer.status.success() && !path.is_empty() && version.starts_with("3.") => {
                Ok(Self {
                    python: PathBuf::from(path),
                    version: version.to_owned(),
                })
            }
            _ => Err(fail(format!(
                "it is no Python 3 that knows its own path ({})",
                answer.status
            ))),
        }
    }
}

impl Runner for ProcessRunner {
    fn run(&self, program: &Program<'_>, limits: &Limits) -> Result<Outcome, SandboxError> {
        let scratch = Scratch::new()?;
        std::fs::write(scratch.path().join("main.py"), program.source).map_err(io_error("write the program"))?;
        let stdin = match program.stdin {
            [] => Stdio::null(),
            bytes => nameless_file(scratch.path(), bytes)
                .map_err(io_error("write standard input"))?
                .into(),
        };
        let started = Instant::now();
        let mut command = Command::new(&self.python);
        command
            .args(["-s", "-B", "-X", "utf8", "main.py"])
            .env_clear()
            .env("PYTHONHASHSEED", "0")
            .current_dir(scratch.path())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        confine(&mut command, limits);
        let child = command.spawn().map_err(io_error("start the interpreter"))?;
        let mut group = Group::new(child);
        let (status, stdout, stderr) = watch(&mut group, limits, started).map_err(io_error("watch the program"))?;
        Ok(Outcome {
            status,
            stdout,
            stderr,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn level(&self) -> &str {
        "process"
    }

    fn python(&self) -> &str {
        &self.version
    }
}

fn io_error(action: &'static str) -> impl Fn(io::Error) -> SandboxError {
    move |source| SandboxError::Io { action, source }
}

/// A file with `bytes`, at its start and already without a name.
fn nameless_file(dir: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// The temporary working directory. A program may leave directories in it that even their owner
/// cannot enter; removal gives the rights back first.
struct Scratch(Option<TempDir>);

impl Scratch {
    fn new() -> Result<Self, SandboxError> {
        let dir = tempfile::Builder::new().prefix("wmtp-run-").tempdir();
        dir.map(|dir| Self(Some(dir)))
            .map_err(io_error("make a temporary directory"))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new("."), TempDir::path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else { return };
        let path = dir.keep();
        if std::fs::remove_dir_all(&path).is_ok() {
            return;
        }
        give_back_rights(&path);
        if let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "a program's temporary directory is left behind");
        }
    }
}

/// Makes every directory under `dir` ours to list and to empty again; links are not followed.
fn give_back_rights(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).is_err() {
        return;
    }
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            give_back_rights(&entry.path());
        }
    }
}

/// Sets what the child does to itself between fork and exec: a session and group of its own, the
/// resource limits, no new privileges, death with its parent, no inherited files.
fn confine(command: &mut Command, limits: &Limits) {
    let cpu = limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0);
    let rules = [
        // At the soft limit comes SIGXCPU, which can be caught; a second later SIGKILL.
        (libc::RLIMIT_CPU, cpu, cpu + 1),
        (libc::RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (libc::RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (libc::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        (libc::RLIMIT_NPROC, limits.processes, limits.processes),
        (libc::RLIMIT_CORE, 0, 0),
    ];
    #[cfg(target_os = "linux")]
    let parent = std::process::id();
    let in_child = move || {
        // SAFETY: setsid and setrlimit are async-signal-safe and get plain values and a valid
        // pointer to a local; no memory is allocated and no lock is taken.
        unsafe {
            if libc::setsid() == -1 {
                return Err(io::Error::last_os_error());
            }
            for (resource, soft, hard) in rules {
                let limit = libc::rlimit {
                    rlim_cur: soft as libc::rlim_t,
                    rlim_max: hard as libc::rlim_t,
                };
                if libc::setrlimit(resource, &limit) == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        #[cfg(target_os = "linux")]
        // SAFETY: system calls with plain values only. close_range marks files close-on-exec and
        // closes nothing yet, so that the standard library can still report a failing exec; kernels
        // without it leave what others opened without that mark.
        unsafe {
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1
            {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                libc::_exit(127); // the parent died before the death signal was set
            }
            libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        }
        Ok(())
    };
    // SAFETY: the closure calls only async-signal-safe functions, as said above.
    unsafe {
        command.pre_exec(in_child);
    }
}

/// A started program, leader of its own group: killed and reaped when dropped, whatever happens.
struct Group {
    child: Child,
    pid: libc::pid_t,
    reaped: bool,
}

impl Group {
    fn new(child: Child) -> Self {
        let pid = child.id() as libc::pid_t;
        Self {
            child,
            pid,
            reaped: false,
        }
    }

    /// Whether the leader has ended. It stays a zombie, so that its group's number is not reused
    /// before [`Group::kill`].
    fn ended(&self) -> io::Result<bool> {
        // SAFETY: `info` is a plain C structure for which all zeros is a value, and the pointer to
        // it is valid; with WNOHANG and nothing to report the kernel leaves si_pid at 0.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            if libc::waitid(libc::P_PID, self.pid as libc::id_t, &mut info, flags) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(info.si_pid() != 0)
        }
    }

    /// Kills everything in the group.
    fn kill(&self) {
        if !self.reaped {
            // SAFETY: plain values; the group's number is ours until the leader is reaped.
            unsafe { libc::kill(-self.pid, libc::SIGKILL) };
        }
    }

    /// Waits for the leader: its wait status and the processor time that it and its reaped
    /// children used.
    fn reap(&mut self) -> io::Result<(libc::c_int, Duration)> {
        let mut status = 0;
        // SAFETY: as in `ended`; both pointers are to locals.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            while libc::wait4(self.pid, &mut status, 0, &mut usage) == -1 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            usage
        };
        self.reaped = true;
        let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
        Ok((status, time(usage.ru_utime) + time(usage.ru_stime)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.reap();
        }
    }
}

/// Why the program was ended from here.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Wall,
    Output,
}

/// Reads both outputs until the leader has ended or a limit is hit, then kills the group, takes
/// what is still in the pipes, and reaps. Never waits for a pipe's end: a descendant may hold it.
fn watch(group: &mut Group, limits: &Limits, started: Instant) -> io::Result<(Status, Vec<u8>, Vec<u8>)> {
    let mut outputs = [
        Capture::new(group.child.stdout.take(), limits.output_bytes)?,
        Capture::new(group.child.stderr.take(), limits.output_bytes)?,
    ];
    let stop = loop {
        for output in &mut outputs {
            output.drain()?;
        }
        if outputs.iter().any(|output| output.overflow) {
            break Some(Stop::Output);
        }
        if group.ended()? {
            break None;
        }
        let left = limits.wall.saturating_sub(started.elapsed());
        if left.is_zero() {
            break Some(Stop::Wall);
        }
        wait_readable(&outputs, left.min(GLANCE))?;
    };
    group.kill();
    let (raw, cpu) = group.reap()?;
    for output in &mut outputs {
        output.drain()?;
    }
    let overflow = outputs.iter().any(|output| output.overflow);
    let status = match stop {
        Some(Stop::Wall) => Status::TimedOut,
        _ if overflow => Status::OutputLimit,
        _ if libc::WIFSIGNALED(raw) => match libc::WTERMSIG(raw) {
            libc::SIGXCPU => Status::TimedOut,
            libc::SIGKILL if cpu >= limits.cpu => Status::TimedOut,
            signal => Status::Signal(signal),
        },
        _ => Status::Exit(libc::WEXITSTATUS(raw)),
    };
    let [stdout, stderr] = outputs.map(|output| output.bytes);
    Ok((status, stdout, stderr))
}

/// The reading end of one output, without blocking.
struct Capture {
    pipe: Option<File>,
    bytes: Vec<u8>,
    cap: usize,
    overflow: bool,
}

impl Capture {
    fn new(pipe: Option<impl Into<std::os::fd::OwnedFd>>, cap: usize) -> io::Result<Self> {
        let pipe = pipe.map(|pipe| File::from(pipe.into()));
        if let Some(pipe) = &pipe {
            // SAFETY: the descriptor is open as long as `pipe`; plain values otherwise. O_NONBLOCK
            // belongs to the reading end alone, the program's end stays an ordinary pipe.
            let done = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
            if done == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self {
            pipe,
            bytes: Vec::new(),
            cap,
            overflow: false,
        })
    }

    /// Takes what is there, up to the cap; one byte more sets `overflow` and ends the reading.
    fn drain(&mut self) -> io::Result<()> {
        let mut block = [0; 1 << 14];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut block) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    let room = self.cap - self.bytes.len();
                    self.bytes.extend(block.iter().take(n.min(room)));
                    if n > room {
                        self.overflow = true;
                        self.pipe = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn descriptor(&self) -> RawFd {
        self.pipe.as_ref().map_or(-1, AsRawFd::as_raw_fd) // poll skips negative ones
    }
}

/// Sleeps until an output has bytes (or its end) or `timeout` is over.
fn wait_readable(outputs: &[Capture; 2], timeout: Duration) -> io::Result<()> {
    let [out, err] = outputs;
    let ask = |capture: &Capture| libc::pollfd {
        fd: capture.descriptor(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut asked = [ask(out), ask(err)];
    let millis = timeout.as_millis().max(1) as libc::c_int;
    // SAFETY: the pointer and the length are those of a local array.
    let answer = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, millis) };
    if answer == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}
