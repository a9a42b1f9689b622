//! Starts a program: from `clone` to `execve`.
//!
//! The caller may be a large process with many threads (a model in memory), and `fork` would copy
//! its page tables. So the child borrows the caller's memory until it starts the interpreter:
//! `clone(CLONE_VM | CLONE_VFORK)`, the same way that `posix_spawn` goes. Why that is sound here:
//!
//! - The calling thread is suspended until the child has started another program or ended, so the
//!   child has the thread's stack objects and thread-local storage (`errno`) for itself. It runs on
//!   a stack of its own all the same.
//! - Everything that the child needs is made beforehand ([`LaunchPlan`]): it makes system calls through
//!   libc's thin wrappers, takes no lock, allocates nothing and does not unwind. Other threads of
//!   the caller may hold any lock meanwhile.
//! - All signals are blocked around `clone`, and the child gives every signal its default action
//!   before it lets them through, so no handler of the caller ever runs in it. Handlers, descriptors,
//!   directory and credentials are the child's own: neither CLONE_SIGHAND nor CLONE_FS is given, and CLONE_FILES
//!   only to a child that opens something for the caller and starts nothing. Nothing it does changes the shared memory's attributes: it drops capabilities but
//!   never changes its user, which would make the caller undumpable.
//! - It reports failure by writing to its [`LaunchPlan`], which the caller reads after `clone` returns.

use crate::volume::Attach;
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// Arguments and environment in the form that `execve` takes. The pointers stay where they are for
/// as long as this lives: the filter lets only these through.
#[derive(Debug)]
pub(crate) struct Arguments {
    strings: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

// SAFETY: the pointers point into `strings`, which is never changed after `new`.
unsafe impl Send for Arguments {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for Arguments {}

impl Arguments {
    /// The first of `arguments` is the executable's path.
    pub(crate) fn new(arguments: &[&[u8]], environment: &[&[u8]]) -> io::Result<Self> {
        let strings: Vec<CString> = arguments
            .iter()
            .chain(environment)
            .map(|bytes| CString::new(*bytes).map_err(io::Error::other))
            .collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = strings.iter().map(|string| string.as_ptr()).collect();
        let (argv, envp) = pointers.split_at(arguments.len());
        let ended = |list: &[*const c_char]| list.iter().copied().chain([std::ptr::null()]).collect();
        let (argv, envp) = (ended(argv), ended(envp));
        Ok(Self { strings, argv, envp })
    }

    fn path(&self) -> &CStr {
        self.strings.first().map_or(c"", CString::as_c_str)
    }

    /// What `execve` is called with.
    pub(crate) fn pointers(&self) -> [u64; 3] {
        [
            self.path().as_ptr() as u64,
            self.argv.as_ptr() as u64,
            self.envp.as_ptr() as u64,
        ]
    }
}

/// A resource limit: which, soft, hard. Never raised above the hard limit that is already there.
pub(crate) type ResourceLimit = (u32, u64, u64);

/// The system-call filter of one start; the child writes its process id into it.
#[derive(Debug)]
pub(crate) struct OwnFilter<'a> {
    pub(crate) code: Vec<libc::sock_filter>,
    pub(crate) pid_at: &'a [usize],
}

/// All that a start needs.
#[derive(Debug)]
pub(crate) struct LaunchPlan<'a> {
    pub(crate) arguments: &'a Arguments,
    /// Standard input, output and error.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// Working directory.
    pub(crate) directory: BorrowedFd<'a>,
    /// The volume that the working directory is the root of, and where the program sees it.
    pub(crate) volume: Option<Attach<'a>>,
    pub(crate) limits: &'a [ResourceLimit],
    pub(crate) ruleset: Option<BorrowedFd<'a>>,
    pub(crate) filter: Option<OwnFilter<'a>>,
    /// Whether the child gives up its capabilities.
    pub(crate) without_capabilities: bool,
    /// Descriptors that stay open for the program that is started, at their numbers.
    pub(crate) kept: &'a [RawFd],
}

/// Where a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Process,
    Volume,
    Limits,
    Privileges,
    Landlock,
    Seccomp,
    Exec,
}

/// A failed start.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

/// A started program: its process id, and a descriptor that becomes readable when it ends (kernels
/// before 5.2 give none).
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: Option<OwnedFd>,
}

/// What parent and child share.
struct Shared<'p, 'a> {
    plan: &'p mut LaunchPlan<'a>,
    parent: libc::pid_t,
    fault: Option<(Step, c_int)>,
}

/// The child's stack. The deepest call is a libc wrapper; debug builds use more.
const STACK: usize = 128 << 10;

/// Starts the program of `plan`.
///
/// # Errors
/// The step that failed, with the system's error.
pub(crate) fn start(plan: &mut LaunchPlan<'_>) -> Result<Started, Fault> {
    let numbers = plan.streams.iter().chain([&plan.directory]).chain(&plan.ruleset);
    if numbers.map(AsRawFd::as_raw_fd).any(|number| number < 3) {
        return Err(Fault {
            step: Step::Process,
            error: io::Error::other("the caller has closed its standard input, output or error"),
        });
    }
    let mut shared = Shared {
        plan,
        // SAFETY: no arguments, cannot fail.
        parent: unsafe { libc::getpid() },
        fault: None,
    };
    let (pid, pidfd) = clone(child, (&raw mut shared).cast(), libc::CLONE_PIDFD).map_err(|error| Fault {
        step: Step::Process,
        error,
    })?;
    // SAFETY: the child wrote through a pointer that the compiler could not see; the volatile read
    // uses the one that exists now.
    let fault = unsafe { std::ptr::read_volatile(&raw const shared.fault) };
    if let Some((step, code)) = fault {
        // SAFETY: waits for the child, which has ended; no status is asked for.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        return Err(Fault {
            step,
            error: io::Error::from_raw_os_error(code),
        });
    }
    Ok(Started { pid, pidfd })
}

/// Runs `function` in a child that borrows this memory, and returns with the child or once the child has started
/// another program. With CLONE_PIDFD among `flags` a descriptor of the child.
fn clone(
    function: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
    flags: c_int,
) -> io::Result<(libc::pid_t, Option<OwnedFd>)> {
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    // SAFETY: the pointer is one past the end of the allocation: the stack grows down into it. It
    // is aligned to 16 bytes, as its elements are.
    let top = unsafe { stack.as_mut_ptr().add(stack.capacity()) };
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | flags;
    // SAFETY: both signal sets are plain structures filled by the calls themselves. `clone` is
    // sound as the page's first paragraphs say: what `argument` points to and `stack` outlive the child's use of
    // them, because the call returns only when the child has left this memory.
    let pid = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let pid = libc::clone(function, top.cast(), flags, argument, &raw mut pidfd);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        if pid == -1 {
            return Err(error);
        }
        pid
    };
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok((pid, pidfd))
}

/// Runs `function`, which must leave by `_exit` and do nothing but system calls (the page's first paragraphs say
/// why), in a child with `flags` that borrows this memory, and waits for its end.
///
/// # Errors
/// The system's, when there can be no child. What `function` did is in what `argument` points to.
pub(crate) fn borrowing(
    function: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
    flags: c_int,
) -> io::Result<()> {
    let (pid, _) = clone(function, argument, flags)?;
    // SAFETY: waits for the child; no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    Ok(())
}

/// The child's first function, on its own stack.
extern "C" fn child(shared: *mut c_void) -> c_int {
    // SAFETY: `start` passes a valid pointer to its `Shared` and does not touch it meanwhile.
    let shared = unsafe { &mut *shared.cast::<Shared<'_, '_>>() };
    let step = confine_and_execute(shared);
    // SAFETY: reads this thread's errno, set by the call that failed; then ends the child without
    // running anything of the caller's.
    unsafe {
        shared.fault = Some((step, *libc::__errno_location()));
        libc::_exit(127)
    }
}

/// Does not return if all goes well. Otherwise the step that failed, its reason in `errno`.
fn confine_and_execute(shared: &mut Shared<'_, '_>) -> Step {
    let parent = shared.parent;
    let plan = &mut *shared.plan;
    // SAFETY: system calls with plain values, and with pointers to objects that live in `plan` or
    // here; see the page's first paragraphs for why they may be made in this child.
    unsafe {
        if libc::setsid() == -1 {
            return Step::Process;
        }
        let default: libc::sigaction = std::mem::zeroed(); // SIG_DFL is 0
        for signal in 1..=64 {
            libc::sigaction(signal, &default, std::ptr::null_mut()); // fails for the few that cannot be set
        }
        for (stream, number) in plan.streams.iter().zip(0..) {
            if libc::dup2(stream.as_raw_fd(), number) == -1 {
                return Step::Process;
            }
        }
        if let Some(volume) = &plan.volume
            && !volume.attach()
        {
            return Step::Volume;
        }
        if libc::fchdir(plan.directory.as_raw_fd()) == -1 {
            return Step::Process;
        }
        close_on_exec_from(3);
        for kept in plan.kept {
            libc::fcntl(*kept, libc::F_SETFD, 0);
        }
        libc::umask(0o077);
        for &(resource, soft, hard) in plan.limits {
            if !limit(resource, soft, hard) {
                return Step::Limits;
            }
        }
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 {
            return Step::Privileges;
        }
        if plan.without_capabilities && !drop_capabilities() {
            return Step::Privileges;
        }
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
            return Step::Process;
        }
        if libc::getppid() != parent {
            libc::_exit(127); // the caller died before the death signal was set
        }
        if let Some(ruleset) = &plan.ruleset
            && libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) == -1
        {
            return Step::Landlock;
        }
        if let Some(filter) = &mut plan.filter
            && !install(filter)
        {
            return Step::Seccomp;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        let arguments = plan.arguments;
        libc::execve(
            arguments.path().as_ptr(),
            arguments.argv.as_ptr(),
            arguments.envp.as_ptr(),
        );
    }
    Step::Exec
}

/// Marks all descriptors from `first` on to be closed when the program starts.
///
/// # Safety
/// To be called in the child only, whose descriptors are its own.
unsafe fn close_on_exec_from(first: c_int) {
    // SAFETY: plain values. Kernels before 5.11 do not know the call; there the numbers that are
    // in use in practice are marked one by one.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 {
            return;
        }
        for number in first..65536 {
            libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// # Safety
/// To be called in the child only, whose limits are its own.
unsafe fn limit(resource: u32, soft: u64, hard: u64) -> bool {
    // SAFETY: pointers to locals.
    unsafe {
        let mut now: libc::rlimit64 = std::mem::zeroed();
        if libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            &mut now,
        ) == -1
        {
            return false;
        }
        let hard = hard.min(now.rlim_max);
        let new = libc::rlimit64 {
            rlim_cur: soft.min(hard),
            rlim_max: hard,
        };
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &new,
            std::ptr::null_mut::<libc::rlimit64>(),
        ) == 0
    }
}

/// Gives up all capabilities. With no-new-privileges set, starting a program as root does not give
/// them back. It is no change of user, so the memory shared with the caller keeps its attributes.
///
/// # Safety
/// To be called in the child only, whose credentials are its own.
unsafe fn drop_capabilities() -> bool {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    let mut header = Header {
        version: 0x2008_0522, // _LINUX_CAPABILITY_VERSION_3, which has two words of each set
        pid: 0,
    };
    let none = [[0u32; 3]; 2];
    // SAFETY: pointers to locals of the sizes that this version of the call reads.
    unsafe { libc::syscall(libc::SYS_capset, &mut header, none.as_ptr()) == 0 }
}

/// Writes the process id into the filter and puts it on.
///
/// # Safety
/// To be called in the child only; the filter binds the calling process and cannot be removed.
unsafe fn install(filter: &mut OwnFilter<'_>) -> bool {
    // SAFETY: no arguments, cannot fail.
    let pid = unsafe { libc::getpid() } as u32;
    for &at in filter.pid_at {
        if let Some(instruction) = filter.code.get_mut(at) {
            instruction.k = pid;
        }
    }
    let program = libc::sock_fprog {
        len: filter.code.len() as u16, // at most BPF_MAXINSNS, 4096
        filter: filter.code.as_mut_ptr(),
    };
    // SAFETY: a pointer to a local that describes a vector of that length; the kernel copies it.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program, 0, 0) == 0 }
}
