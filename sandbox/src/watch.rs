//! Watches a started program to its end: clock, output, threads, temporary directory.

use crate::{Breach, Limits, Status, launch::Started, scratch::Scratch};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

/// Time between two looks at the watched limits. The end of a program and its output wake the
/// watcher at once.
const GLANCE: Duration = Duration::from_millis(5);
/// A look may take this share of the time at most: after a long one the next waits longer.
const SHARE: u32 = 4;

/// A started program, leader of its own group: killed and reaped when dropped, whatever happens.
#[derive(Debug)]
pub(crate) struct Group {
    pid: libc::pid_t,
    pidfd: Option<OwnedFd>,
    /// How many generations below the leader the program is: 0, or 2 behind bwrap.
    generations: usize,
    reaped: bool,
}

impl Group {
    pub(crate) fn new(started: Started, generations: usize) -> Self {
        Self {
            pid: started.pid,
            pidfd: started.pidfd,
            generations,
            reaped: false,
        }
    }

    pub(crate) fn pid(&self) -> libc::pid_t {
        self.pid
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

    /// The program's process, if it has been started already.
    fn program(&self) -> Option<libc::pid_t> {
        (0..self.generations).try_fold(self.pid, |pid, _| {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
            children.split(' ').next()?.parse().ok()
        })
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

/// How a program ended and what it wrote.
pub(crate) struct End {
    pub(crate) status: Status,
    pub(crate) breach: Option<Breach>,
    /// Processor time: what the started process and its children told when they were waited for, or what
    /// was last seen of the program, whichever is more (bwrap ends without waiting for its child).
    pub(crate) cpu: Duration,
    pub(crate) outputs: [Vec<u8>; 2],
}

/// Why the program was ended from here.
#[derive(Clone, Copy, PartialEq)]
enum StopReason {
    Wall,
    Output,
    Breach(Breach),
}

/// A started program that is being watched.
pub(crate) struct Watched<'a> {
    group: Group,
    outputs: [Capture; 2],
    scratch: &'a Scratch,
    limits: &'a Limits,
    started: Instant,
    next_look: Instant,
    seen: Duration,
    over: bool,
    stop: Option<StopReason>,
}

impl<'a> Watched<'a> {
    /// With the reading ends of its outputs; None where an output goes elsewhere.
    pub(crate) fn new(
        group: Group,
        pipes: [Option<OwnedFd>; 2],
        scratch: &'a Scratch,
        limits: &'a Limits,
        started: Instant,
    ) -> io::Result<Self> {
        let [out, err] = pipes;
        Ok(Self {
            group,
            outputs: [
                Capture::new(out, limits.output_bytes)?,
                Capture::new(err, limits.output_bytes)?,
            ],
            scratch,
            limits,
            started,
            next_look: started + GLANCE,
            seen: Duration::ZERO,
            over: false,
            stop: None,
        })
    }

    /// Reads what there is of both outputs, and looks at the limits. Whether the program is over: its leader has
    /// ended, or it has hit a limit and has been killed.
    fn look(&mut self) -> io::Result<bool> {
        if self.over {
            return Ok(true);
        }
        self.stop = self.reason()?;
        self.over = self.stop.is_some() || self.group.ended()?;
        if self.over {
            self.group.kill();
        }
        Ok(self.over)
    }

    /// The limit that is hit, if any.
    fn reason(&mut self) -> io::Result<Option<StopReason>> {
        for output in &mut self.outputs {
            output.drain()?;
        }
        if self.outputs.iter().any(|output| output.overflow) {
            return Ok(Some(StopReason::Output));
        }
        if self.group.ended()? {
            return Ok(None);
        }
        let now = Instant::now();
        if now >= self.next_look {
            if let Some(program) = self.group.program() {
                let used = Usage::of(program);
                self.seen = self.seen.max(used.cpu);
                if let Some(breach) = breach(&used, program, self.scratch, self.limits) {
                    return Ok(Some(StopReason::Breach(breach)));
                }
            }
            self.next_look = Instant::now() + GLANCE.max(now.elapsed() * SHARE);
        }
        Ok(self.left().is_zero().then_some(StopReason::Wall))
    }

    /// Time left on the clock.
    fn left(&self) -> Duration {
        self.limits.wall.saturating_sub(self.started.elapsed())
    }

    /// Takes what is still in the pipes, and reaps. Never waits for a pipe's end: a descendant may hold it (where
    /// the system-call filter is missing and there can be one).
    fn end(mut self) -> io::Result<End> {
        self.group.kill();
        if self.stop.is_none() {
            // What it left is judged whether or not a look came in time.
            self.stop = self
                .scratch
                .breach(self.group.pid(), self.limits)
                .map(StopReason::Breach);
        }
        let (raw, cpu) = self.group.reap()?;
        let cpu = cpu.max(self.seen);
        for output in &mut self.outputs {
            output.drain()?;
        }
        let overflow = self.outputs.iter().any(|output| output.overflow);
        let (status, breach) = match self.stop {
            Some(StopReason::Wall) => (Status::TimedOut, None),
            Some(StopReason::Breach(breach)) => (Status::Signal(libc::SIGKILL), Some(breach)),
            _ if overflow => (Status::OutputLimit, None),
            _ => (ended_with(raw, cpu, self.limits), None),
        };
        Ok(End {
            status,
            breach,
            cpu,
            outputs: self.outputs.map(|output| output.bytes),
        })
    }
}

/// Watches a program to its end or its first limit.
pub(crate) fn watch(mut program: Watched<'_>) -> io::Result<End> {
    while !program.look()? {
        wait(&[&program])?;
    }
    program.end()
}

/// Watches two programs until the second is over, and ends the first with it.
pub(crate) fn watch_pair(mut first: Watched<'_>, mut second: Watched<'_>) -> io::Result<[End; 2]> {
    loop {
        first.look()?;
        if second.look()? {
            break;
        }
        wait(&[&first, &second])?;
    }
    let second = second.end()?;
    Ok([first.end()?, second])
}

/// The status that a wait status tells, the program not having been ended from here.
fn ended_with(raw: libc::c_int, cpu: Duration, limits: &Limits) -> Status {
    if !libc::WIFSIGNALED(raw) {
        return Status::Exit(libc::WEXITSTATUS(raw));
    }
    match libc::WTERMSIG(raw) {
        libc::SIGXCPU => Status::TimedOut,
        libc::SIGKILL if cpu >= limits.cpu => Status::TimedOut,
        signal => Status::Signal(signal),
    }
}

/// The watched limit that is passed, if any.
fn breach(used: &Usage, program: libc::pid_t, scratch: &Scratch, limits: &Limits) -> Option<Breach> {
    if used.threads > limits.threads {
        return Some(Breach::Threads);
    }
    if locks(program) > limits.locks {
        return Some(Breach::Locks);
    }
    scratch.breach(program, limits)
}

/// Locks on files that a process holds or waits for; nothing where the system does not tell.
fn locks(pid: libc::pid_t) -> u64 {
    let all = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = pid.to_string();
    // `1: POSIX  ADVISORY  WRITE 1234 08:01:99 0 EOF`; `->` before the kind of one that waits
    let held = |line: &&str| line.split_whitespace().skip(4).take(2).any(|word| word == pid);
    all.lines().filter(held).count() as u64
}

/// What a living process uses; nothing where the system does not tell.
#[derive(Default)]
struct Usage {
    threads: u64,
    cpu: Duration,
}

impl Usage {
    fn of(pid: libc::pid_t) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in parentheses, which may hold anything, come state, ppid, ...
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        // SAFETY: no pointers; cannot fail for a name that every Linux knows.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let ticks = number(11) + number(12); // in user and in system mode
        Self {
            threads: number(17),
            cpu: Duration::from_secs_f64(ticks as f64 / per_second.max(1) as f64),
        }
    }
}

/// The reading end of one output, without blocking.
struct Capture {
    pipe: Option<File>,
    bytes: Vec<u8>,
    cap: usize,
    overflow: bool,
}

impl Capture {
    fn new(pipe: Option<OwnedFd>, cap: usize) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            // SAFETY: the descriptor is open as long as `pipe`; plain values otherwise. O_NONBLOCK
            // belongs to the reading end alone, the program's end stays an ordinary pipe.
            let done = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
            if done == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self {
            pipe: pipe.map(File::from),
            bytes: Vec::new(),
            cap,
            overflow: false,
        })
    }

    /// Reads the available bytes, up to the cap; one byte more sets `overflow` and ends the reading.
    fn drain(&mut self) -> io::Result<()> {
        let mut block = [0; 1 << 16];
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

/// Sleeps until an output of one of `programs` has bytes (or its end), one of them has ended, or one has to be
/// looked at. Without a descriptor for a program its end is noticed within 2 ms.
fn wait(programs: &[&Watched<'_>]) -> io::Result<()> {
    let mut timeout = Duration::MAX;
    let mut asked = Vec::with_capacity(3 * programs.len());
    for program in programs.iter().filter(|program| !program.over) {
        let glance = program.next_look.saturating_duration_since(Instant::now());
        timeout = timeout.min(program.left()).min(glance);
        if program.group.pidfd.is_none() {
            timeout = timeout.min(Duration::from_millis(2));
        }
        let [out, err] = &program.outputs;
        let end = program.group.pidfd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        asked.extend([out.descriptor(), err.descriptor(), end].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        }));
    }
    let millis = timeout.as_micros().div_ceil(1000) as libc::c_int;
    // SAFETY: the pointer and the length are those of a local vector.
    let answer = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, millis) };
    if answer == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}
