//! Which system calls a program may make.
//!
//! The table is a list of what is allowed: what CPython, its standard library, the usual extension
//! modules and libc need, threads included. Everything else fails, in one of three ways:
//!
//! - **EPERM** for calls that exist and are denied by decision. Python turns it into
//!   `PermissionError`, so a program that merely tries a socket can continue and a verdict says what
//!   happened. To be refused costs an attacker as much as to be killed: the call is not made.
//! - **ENOSYS** for `clone3`, for `openat2` and for all numbers that are not in the table. Libraries
//!   try new calls first and fall back to older ones on that answer; with EPERM they would give up.
//! - **Kill** for 32-bit and x32 calls only, whose numbers mean something else: no honest program
//!   makes one by accident (see [`crate::bpf`]).
//!
//! What Landlock cannot see is denied here for every path, the temporary directory included: modes,
//! owners, times and extended attributes of files. A program that owns the interpreter's files (run
//! by the same user) could otherwise make them unreadable for everybody.

use crate::bpf::{Rule, Test};
use libc::{EOPNOTSUPP, EPERM, c_long};

/// The pointers with which `execve` may be called: those of the one start of the interpreter.
/// Afterwards they point into the caller's memory, which is gone for the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExecPointers(pub(crate) [u64; 3]);

impl ExecPointers {
    /// Any start: for bwrap, which makes it from addresses of its own.
    pub(crate) const ANY: Self = Self([0; 3]);
}

/// The table. `truncation` says that Landlock restricts truncation (version 3); without it,
/// truncating without a descriptor open for writing is denied here.
pub(crate) fn rules(exec: ExecPointers, truncation: bool) -> Vec<(c_long, Rule)> {
    let mut rules = guarded(exec, truncation);
    let named: Vec<c_long> = rules.iter().map(|(number, _)| *number).collect();
    let mut add = |numbers: &[c_long], rule: Rule| {
        let new = numbers.iter().filter(|number| !named.contains(number));
        rules.extend(new.map(|number| (*number, rule.clone())));
    };
    add(ALLOWED, Rule::Allow);
    add(OLD_ALLOWED, Rule::Allow);
    add(DENIED, Rule::Refuse(EPERM));
    add(OLD_DENIED, Rule::Refuse(EPERM));
    add(ATTRIBUTES, Rule::Refuse(EOPNOTSUPP));
    rules
}

fn low(arg: u32, value: u32) -> Test {
    Test::Low { arg, mask: !0, value }
}

fn any_of(arg: u32, values: &[u32], otherwise: i32) -> Rule {
    Rule::When(values.iter().map(|value| vec![low(arg, *value)]).collect(), otherwise)
}

/// Calls whose arguments decide.
fn guarded(exec: ExecPointers, truncation: bool) -> Vec<(c_long, Rule)> {
    let [path, argv, envp] = exec.0;
    let whole = |arg, value| Test::Whole { arg, value };
    let own = |arg| Rule::When(vec![vec![Test::OwnPid { arg }]], EPERM);
    let mut rules = vec![
        // A second start of the interpreter would be as confined as the first; denied all the same.
        (
            libc::SYS_execve,
            match exec.0 {
                [0, 0, 0] => Rule::Allow,
                _ => Rule::When(vec![vec![whole(0, path), whole(1, argv), whole(2, envp)]], EPERM),
            },
        ),
        (libc::SYS_clone, Rule::When(vec![vec![thread_flags()]], EPERM)),
        // Its flags lie behind a pointer, which no filter can follow.
        (libc::SYS_clone3, Rule::Refuse(libc::ENOSYS)),
        (libc::SYS_kill, own(0)),
        (libc::SYS_tgkill, own(0)),
        (libc::SYS_tkill, own(0)),
        (libc::SYS_rt_sigqueueinfo, own(0)),
        (libc::SYS_rt_tgsigqueueinfo, own(0)),
        // Own limits may be read and lowered; hard limits cannot be raised without a capability.
        (
            libc::SYS_prlimit64,
            Rule::When(vec![vec![low(0, 0)], vec![Test::OwnPid { arg: 0 }]], EPERM),
        ),
        (libc::SYS_fcntl, any_of(1, FCNTL, EPERM)),
        (libc::SYS_ioctl, any_of(1, IOCTL, libc::ENOTTY)),
        (libc::SYS_prctl, any_of(0, PRCTL, EPERM)),
        // With CLOSE_RANGE_UNSHARE a thread would get a table of descriptors that nobody looks at.
        (libc::SYS_close_range, any_of(2, &[0, libc::CLOSE_RANGE_CLOEXEC], EPERM)),
        // With FALLOC_FL_KEEP_SIZE the limit on a file's size would not hold.
        (libc::SYS_fallocate, any_of(1, &[0], EPERM)),
    ];
    if !truncation {
        let truncates = libc::O_TRUNC as u32;
        let mode = |arg, value: i32| Test::Low {
            arg,
            mask: libc::O_ACCMODE as u32,
            value: value as u32,
        };
        let open = |arg| {
            let harmless = vec![Test::Low {
                arg,
                mask: truncates,
                value: 0,
            }];
            Rule::When(
                vec![harmless, vec![mode(arg, libc::O_WRONLY)], vec![mode(arg, libc::O_RDWR)]],
                EPERM,
            )
        };
        rules.extend([(libc::SYS_openat, open(2)), (libc::SYS_truncate, Rule::Refuse(EPERM))]);
        #[cfg(target_arch = "x86_64")]
        rules.push((libc::SYS_open, open(1)));
    }
    rules
}

/// `clone` makes a thread: shares memory, files, directory and signal handlers, and nothing else.
fn thread_flags() -> Test {
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let others = libc::CLONE_PIDFD | libc::CLONE_PTRACE | libc::CLONE_VFORK | libc::CLONE_PARENT | libc::CLONE_UNTRACED;
    Test::Low {
        arg: 0,
        mask: (thread | namespaces | others | libc::CLONE_IO) as u32,
        value: thread as u32,
    }
}

/// Not here: leases and directory notifications, which hold up other openers of the file; owners of
/// descriptors (`F_SETOWN`), through which the kernel sends signals; pipe sizes; seals.
const FCNTL: &[u32] = &[
    libc::F_GETFD as u32,
    libc::F_SETFD as u32,
    libc::F_GETFL as u32,
    libc::F_SETFL as u32,
    libc::F_DUPFD as u32,
    libc::F_DUPFD_CLOEXEC as u32,
    libc::F_GETLK as u32,
    libc::F_SETLK as u32,
    libc::F_SETLKW as u32,
    libc::F_OFD_GETLK as u32,
    libc::F_OFD_SETLK as u32,
    libc::F_OFD_SETLKW as u32,
    libc::F_GETPIPE_SZ as u32,
];

/// "Is this a terminal", its size, bytes to read, and the flags of descriptors. `TIOCSTI`, which
/// types into a terminal, is not here; 0x802c542a is TCGETS2, the newer question about terminals.
const IOCTL: &[u32] = &[
    libc::TCGETS as u32,
    0x802c_542a,
    libc::TIOCGWINSZ as u32,
    libc::FIONREAD as u32,
    libc::FIOCLEX as u32,
    libc::FIONCLEX as u32,
    libc::FIONBIO as u32,
];

/// Names of threads, and 0x53564d41 (`PR_SET_VMA`), with which malloc names its memory. The death
/// signal (`PR_SET_PDEATHSIG`) stays as it is.
const PRCTL: &[u32] = &[libc::PR_SET_NAME as u32, libc::PR_GET_NAME as u32, 0x5356_4d41];

/// Extended attributes: "this file system has none", which `shutil` takes as an answer.
const ATTRIBUTES: &[c_long] = &[
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // memory
    libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect, libc::SYS_madvise, libc::SYS_brk,
    libc::SYS_msync, libc::SYS_mincore,
    // open files; Landlock decides which
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_lseek, libc::SYS_close,
    libc::SYS_dup, libc::SYS_dup3, libc::SYS_openat, libc::SYS_ftruncate, libc::SYS_truncate,
    libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_flock, libc::SYS_sendfile,
    libc::SYS_copy_file_range, libc::SYS_splice, libc::SYS_tee, libc::SYS_pipe2,
    // names and what is known about files
    libc::SYS_newfstatat, libc::SYS_fstat, libc::SYS_statx, libc::SYS_faccessat, libc::SYS_faccessat2,
    libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_getcwd,
    libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat2, libc::SYS_linkat,
    libc::SYS_symlinkat, libc::SYS_umask,
    // waiting
    libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait,
    libc::SYS_eventfd2, libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    libc::SYS_signalfd4, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_nanosleep, libc::SYS_clock_nanosleep,
    // own signals and timers
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigsuspend, libc::SYS_sigaltstack, libc::SYS_restart_syscall,
    libc::SYS_getitimer, libc::SYS_setitimer, libc::SYS_timer_create, libc::SYS_timer_settime,
    libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    // threads and the end
    libc::SYS_futex, 449 /* futex_waitv */, libc::SYS_set_robust_list, libc::SYS_set_tid_address, libc::SYS_rseq,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_getcpu, libc::SYS_exit,
    libc::SYS_exit_group,
    // time, limits, names of things
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday, libc::SYS_times, libc::SYS_getrusage,
    libc::SYS_getrandom, libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid,
    libc::SYS_getpgid, libc::SYS_getsid, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid,
    libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_getpriority,
];

/// Calls that only older processor families have.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD_ALLOWED: &[c_long] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink,
    libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_renameat, libc::SYS_link,
    libc::SYS_symlink, libc::SYS_getdents, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_poll, libc::SYS_select,
    libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_signalfd, libc::SYS_alarm,
    libc::SYS_pause, libc::SYS_time, libc::SYS_getrlimit, libc::SYS_setrlimit, libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_ALLOWED: &[c_long] = &[];

#[rustfmt::skip]
const DENIED: &[c_long] = &[
    // network, local sockets: none of any family
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_bind, libc::SYS_connect, libc::SYS_listen, libc::SYS_accept,
    libc::SYS_accept4, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg,
    libc::SYS_sendmmsg, libc::SYS_recvmmsg, libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_getsockopt,
    libc::SYS_setsockopt, libc::SYS_shutdown,
    // other processes
    libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kcmp,
    libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_pidfd_getfd, libc::SYS_process_madvise,
    448 /* process_mrelease */, libc::SYS_get_robust_list, libc::SYS_setsid, libc::SYS_setpgid, libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // the scheduler: others can be named, and whole users
    libc::SYS_setpriority, libc::SYS_sched_setaffinity, libc::SYS_sched_setscheduler, libc::SYS_sched_setparam,
    libc::SYS_sched_setattr, libc::SYS_ioprio_set,
    // namespaces and mounts
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount,
    libc::SYS_fspick, libc::SYS_mount_setattr, 467 /* open_tree_attr */,
    // modes, owners and times of files, which Landlock does not see
    libc::SYS_fchmod, libc::SYS_fchmodat, 452 /* fchmodat2 */, libc::SYS_fchown, libc::SYS_fchownat,
    libc::SYS_utimensat, libc::SYS_mknodat, 469 /* file_setattr */,
    // who one is
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_setgroups, libc::SYS_capset,
    libc::SYS_personality,
    // what stays when the program is gone: shared memory, queues, semaphores, keys, memory files
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_semget, libc::SYS_semop, libc::SYS_semctl,
    libc::SYS_semtimedop, libc::SYS_msgget, libc::SYS_msgsnd, libc::SYS_msgrcv, libc::SYS_msgctl, libc::SYS_mq_open,
    libc::SYS_mq_unlink, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    // files without names, watching files
    libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at, libc::SYS_inotify_init1, libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // parts of the kernel where flaws were found often
    libc::SYS_bpf, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_io_setup, libc::SYS_vmsplice,
    // the machine
    libc::SYS_kexec_load, libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_reboot,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_syslog, libc::SYS_quotactl, 443 /* quotactl_fd */, libc::SYS_acct,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_settimeofday, libc::SYS_clock_settime,
    libc::SYS_clock_adjtime, libc::SYS_adjtimex, libc::SYS_vhangup, libc::SYS_sync, libc::SYS_syncfs,
    libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_mlockall,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD_DENIED: &[c_long] = &[
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime,
    libc::SYS_utimes, libc::SYS_futimesat, libc::SYS_mknod, libc::SYS_inotify_init, libc::SYS_kexec_file_load,
    libc::SYS_modify_ldt, libc::SYS_iopl, libc::SYS_ioperm,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_DENIED: &[c_long] = &[libc::SYS_kexec_file_load];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_call_is_named_twice_and_the_filter_fits() {
        for truncation in [true, false] {
            let rules = rules(ExecPointers([1, 2, 3]), truncation);
            let numbers: HashSet<_> = rules.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers.len(), rules.len());
            assert!(crate::bpf::Filter::new(&rules).is_some());
        }
    }
}
