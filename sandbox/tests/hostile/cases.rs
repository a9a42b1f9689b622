//! The hostile programs. Each prints a line `NAME refused` for every attempt that was refused,
//! `DONE` for one that went through and `ODD` for one that failed for a reason of its own.

use std::time::Duration;
use wmtp_sandbox::{Breach, Limits, Status};

/// One hostile program.
pub struct Case {
    pub name: &'static str,
    pub source: &'static str,
    pub ends: Ends,
    pub limits: fn(Limits) -> Limits,
    /// It is harmless enough to be run without the sandbox, and then does what it tries.
    pub works_outside: bool,
    /// It means nothing behind bubblewrap, or ends there in another way.
    pub only_landlock: bool,
    /// It fills its directory: run again where that is watched.
    pub fills: bool,
}

/// How a case has to end.
#[derive(Clone, Copy)]
pub enum Ends {
    /// With exit code 0 after so many refusals.
    Refused(usize),
    /// Killed for a watched limit.
    Breach(Breach),
    /// In this way.
    With(Status),
    /// In this way where its directory is mounted, whose size does not matter then; killed where it is watched.
    Bounded(Status, Breach),
}

const fn case(name: &'static str, ends: Ends, source: &'static str) -> Case {
    Case {
        name,
        source,
        ends,
        limits: |limits| limits,
        works_outside: false,
        only_landlock: false,
        fills: matches!(ends, Ends::Breach(Breach::Disk | Breach::Files) | Ends::Bounded(..)),
    }
}

const fn refused(name: &'static str, times: usize, source: &'static str) -> Case {
    case(name, Ends::Refused(times), source)
}

impl Case {
    const fn works_outside(mut self) -> Self {
        self.works_outside = true;
        self
    }

    const fn only_landlock(mut self) -> Self {
        self.only_landlock = true;
        self
    }

    /// Some file systems make a thousand files in a second, and not more.
    const fn with_few_files(mut self) -> Self {
        self.limits = |limits| Limits { files: 500, ..limits };
        self
    }

    const fn for_a_second(mut self) -> Self {
        self.limits = |limits| Limits {
            wall: Duration::from_secs(1),
            ..limits
        };
        self
    }
}

/// In front of every case. `call` makes a system call by its name's numbers on x86-64 and arm64.
pub const PRELUDE: &str = r#"
import ctypes, errno, os, sys, threading, time
OUTSIDE, SIBLING, HARNESS, LIBRARY = "@OUTSIDE@", int("@SIBLING@"), int("@HARNESS@"), "@LIBRARY@"
POLICY = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTTY, errno.EROFS, errno.ENOENT, errno.EFBIG, errno.EXDEV}
def attempt(name, action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        print(name, "refused" if error.errno in POLICY else f"ODD {error}", flush=True)
    else:
        print(name, "DONE", flush=True)
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
ARM = os.uname().machine == "aarch64"
def call(numbers, *arguments):
    number = numbers if isinstance(numbers, int) else numbers[ARM]
    return checked(libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
"#;

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    // Processes
    refused("fork", 3, r#"
def child(make):
    if make() in (0, (0, -1)): os._exit(0)
attempt("fork", child, os.fork)
attempt("forkpty", child, lambda: os.forkpty()[0])
if not ARM: attempt("vfork", lambda: call(57))
else: attempt("vfork", child, os.fork)
"#).works_outside(),
    refused("subprocess and its kin", 3, r#"
import subprocess
attempt("subprocess", subprocess.run, ["/bin/true"])
attempt("posix_spawn", os.posix_spawn, "/bin/true", ["true"], {})
attempt("popen", lambda: os.popen("true").read())
"#).works_outside(),
    refused("fork bomb", 2000, r#"
for _ in range(2000): attempt("bomb", os.fork)
"#),
    refused("clone and clone3 of processes", 5, r#"
flags = {"plain": 17, "memory": 0x100 | 17, "vfork": 0x4100 | 17, "files": 0x400 | 17}
for name, f in flags.items(): attempt(name, call, (56, 220), f, 0, 0, 0, 0)
args = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)
attempt("clone3", call, 435, args, ctypes.sizeof(args))
"#),
    case("thread bomb", Ends::Breach(Breach::Threads), r#"
threading.stack_size(32768)
while True:
    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except Exception: time.sleep(0.001)
"#),
    refused("daemon that holds the pipe", 2, r#"
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(60)
        os._exit(0)
attempt("double fork", daemon)
attempt("setsid", os.setsid)
"#),
    refused("zombie swarm", 500, r#"
def zombie():
    if os.fork() == 0: os._exit(0)
for _ in range(500): attempt("zombie", zombie)
"#),
    refused("other programs by exec", 7, r#"
attempt("sh", os.execv, "/bin/sh", ["sh", "-c", "echo DONE"])
attempt("python", os.execv, sys.executable, [sys.executable, "-c", "print('DONE')"])
attempt("own file", lambda: (open("x", "w").write('#!/bin/sh\necho DONE'), os.execv("./x", ["x"])))
attempt("ld.so", os.execv, "/lib64/ld-linux-x86-64.so.2", ["ld.so", "/bin/true"])
attempt("fexecve", lambda: os.execve(os.open("main.py", os.O_RDONLY), ["x"], {}))
attempt("memory file", os.memfd_create, "x")
path, argv, envp = b"main.py\0", (ctypes.c_char_p * 2)(b"x", None), (ctypes.c_char_p * 1)(None)
attempt("execveat", call, (322, 281), -100, path, argv, envp, 0)
"#).only_landlock(),
    refused("other programs by exec, behind any isolation", 2, r#"
attempt("sh", os.execv, "/bin/sh", ["sh", "-c", "echo DONE"])
attempt("true", os.execv, "/usr/bin/true", ["true"])
"#),
    // Memory
    refused("memory by one allocation", 1, r#"
try: bytearray(10 << 30)
except MemoryError: print("memory refused")
else: print("DONE")
"#).works_outside(),
    refused("memory by many threads", 1, r#"
import mmap
total = [0]
def take():
    keep = []
    try:
        while True:
            keep.append(mmap.mmap(-1, 8 << 20)); total[0] += 8
            if total[0] > 4096: break
    except (OSError, MemoryError): pass
    time.sleep(0.3)
threads = [threading.Thread(target=take) for _ in range(4)]
started = []
for t in threads:
    try: t.start(); started.append(t)
    except RuntimeError: pass
for t in started: t.join()
print("DONE" if total[0] > 1024 else "memory refused")
"#).works_outside(),
    // Disk
    refused("one big file", 1, r#"
def fill():
    with open("hostile", "wb", buffering=0) as f:
        for _ in range(200): f.write(b"x" * (1 << 20))
attempt("big", fill)
"#),
    case("many big files", Ends::Breach(Breach::Disk), r#"
block = b"x" * (1 << 20)
for i in range(10000):
    with open(f"hostile{i}", "wb", buffering=0) as f:
        for _ in range(15): f.write(block)
"#),
    case("many small files", Ends::Breach(Breach::Files), r#"
for i in range(10**7): open(f"hostile{i}", "w").close()
"#).with_few_files(),
    case("files without names", Ends::Breach(Breach::Disk), r#"
held, block = [], b"x" * (1 << 20)
try:
    for i in range(50):
        f = open("hostile", "wb", buffering=0); os.unlink("hostile"); held.append(f)
        for _ in range(15): f.write(block)
except OSError: pass
time.sleep(60)
"#),
    refused("a table of descriptors of its own", 1, r#"
attempt("close_range", call, 436, 3, 3, 2)
"#),
    case("files without names after the first thread's end", Ends::Breach(Breach::Disk), r#"
def hide():
    time.sleep(0.2)
    held, block = [], b"x" * (1 << 20)
    try:
        for i in range(50):
            f = open(f"hostile{i}", "wb", buffering=0); os.unlink(f"hostile{i}"); held.append(f)
            for _ in range(15): f.write(block)
    except OSError: pass
    time.sleep(60)
threading.Thread(target=hide).start()
ctypes.CDLL(None).syscall(ctypes.c_long(60 if os.uname().machine == "x86_64" else 93), ctypes.c_long(0))
"#),
    case("big files beside a directory that can be listed only", Ends::Breach(Breach::Disk), r#"
os.mkdir("a", 0o400)
block = b"x" * (1 << 20)
for i in range(10000):
    with open(f"hostile{i}", "wb", buffering=0) as f:
        for _ in range(15): f.write(block)
"#),
    case("locks without end", Ends::Breach(Breach::Locks), r#"
import fcntl
with open("hostile", "w") as f:
    for i in range(0, 10**7, 2): fcntl.lockf(f, fcntl.LOCK_EX, 1, i)
"#),
    refused("blocks beyond a file's size", 1, r#"
with open("hostile", "wb") as f:
    attempt("fallocate", call, (285, 47), f.fileno(), 1, 0, 1 << 30)
"#),
    refused("huge sparse files", 3, r#"
with open("hostile", "wb") as f:
    attempt("ftruncate", os.ftruncate, f.fileno(), 1 << 40)
    attempt("fallocate", os.posix_fallocate, f.fileno(), 0, 1 << 33)
    attempt("pwrite", os.pwrite, f.fileno(), b"x", 1 << 40)
"#),
    case("a tree without end", Ends::Bounded(Status::Exit(0), Breach::Files), r#"
for _ in range(3000): os.mkdir("hostile"); os.chdir("hostile")
time.sleep(3)
"#),
    case("more directories than files are allowed", Ends::Breach(Breach::Files), r#"
for _ in range(5000): os.mkdir("hostile"); os.chdir("hostile")
"#),
    case("directories without rights", Ends::With(Status::Exit(0)), r#"
os.mkdir("a"); os.mkdir("a/b"); open("a/b/file", "w").write("x"); os.mkdir("a/locked", 0); os.mkdir("c", 0o300)
os.mkdir("c/d", 0o100)
"#),
    // Output
    case("endless output", Ends::With(Status::OutputLimit), "while True: sys.stdout.write('x' * 10000)"),
    case("endless errors", Ends::With(Status::OutputLimit), "while True: sys.stderr.write('x' * 10000)"),
    case("endless output on both", Ends::With(Status::OutputLimit), r#"
def spill(number):
    while True: os.write(number, b"x" * 10000)
threading.Thread(target=spill, args=(2,), daemon=True).start()
spill(1)
"#),
    // Time
    case("asleep", Ends::With(Status::TimedOut), "time.sleep(60)").for_a_second(),
    case("stopped by itself", Ends::With(Status::TimedOut), "import signal; os.kill(os.getpid(), signal.SIGSTOP)").for_a_second(),
    case("deaf to all signals", Ends::With(Status::TimedOut), r#"
import signal
for s in signal.valid_signals():
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
"#),
    // Network
    refused("sockets of every family", 14, r#"
import socket
for family in (1, 2, 10, 16, 17, 29, 31, 38, 40, 44): attempt(f"family {family}", socket.socket, family, socket.SOCK_DGRAM)
attempt("stream", socket.socket)
attempt("raw", socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
attempt("pair", socket.socketpair)
attempt("connect", socket.create_connection, ("127.0.0.1", 9))
"#).works_outside(),
    refused("unix sockets, by path and abstract", 3, r#"
import socket
def listen(name):
    s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen()
attempt("path", listen, "hostile")
attempt("abstract", listen, "\0hostile")
attempt("device", os.mknod, "node", 0o140600)
"#).works_outside(),
    // Reading
    refused("reading the system's files", 13, r#"
for path in ("/etc/passwd", "/etc/hostname", "/etc/os-release", "/proc/cpuinfo", "/proc/mounts", "/proc/net/tcp", "/sys/kernel/notes", "/bin/ls"):
    attempt(path, lambda: open(path, "rb").read(10))
for path in ("/", "/tmp", "/proc", "/etc", "/root" if os.getuid() == 0 else "/home"): attempt(path, os.listdir, path)
"#).works_outside().only_landlock(),
    refused("reading what the user owns", 5, r#"
attempt("file", open, OUTSIDE + "/secret")
attempt("directory", os.listdir, OUTSIDE)
attempt("by a link", lambda: (os.symlink(OUTSIDE + "/secret", "link"), open("link")))
attempt("by a hard link", lambda: (os.link(OUTSIDE + "/secret", "hard"), open("hard")))
attempt("by dots", open, os.path.relpath(OUTSIDE + "/secret"))
"#).works_outside(),
    refused("reading through /proc", 15, r#"
for pid in ("self", "1", str(os.getppid()), str(HARNESS), str(SIBLING)):
    for name in ("environ", "cmdline", "maps"):
        attempt(f"{pid}/{name}", open, f"/proc/{pid}/{name}", "rb")
"#).works_outside(),
    refused("the harness's files through /proc", 4, r#"
for pid in (os.getppid(), HARNESS): attempt("root", open, f"/proc/{pid}/root/etc/passwd")
attempt("memory", open, "/proc/self/mem", "r+b")
attempt("thread", open, "/proc/thread-self/environ")
"#),
    refused("the environment", 1, r#"
known = {"PYTHONHASHSEED": "0", "LC_CTYPE": "C.UTF-8", "PWD": os.getcwd()}
libc.environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
entries, i = [], 0
while libc.environ[i]: entries.append(libc.environ[i].decode()); i += 1
extra = [e for e in entries if e not in {f"{k}={v}" for k, v in known.items()}]
print("environment refused" if not extra and all(known.get(k) == v for k, v in os.environ.items()) else f"DONE {extra}")
"#).works_outside(),
    refused("inherited descriptors", 1, r#"
found = []
for number in range(3, 4096):
    try: os.fstat(number); found.append(number)
    except OSError: pass
print("descriptors refused" if not found else f"DONE {found}")
"#),
    refused("devices", 8, r#"
for path in ("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/fuse", "/dev/tty", "/dev/ptmx"):
    attempt(path, open, path, "rb")
"#),
    // Writing
    refused("writing files everywhere", 8, r#"
places = ["/tmp", "/var/tmp", "/dev/shm", "/", "/etc", os.path.dirname(os.getcwd()), os.path.dirname(LIBRARY), OUTSIDE]
for place in places: attempt(place, open, place + "/hostile", "w")
"#),
    refused("changing what the user owns", 12, r#"
secret = OUTSIDE + "/secret"
attempt("append", open, secret, "a")
attempt("truncating open", os.open, secret, os.O_RDONLY | os.O_TRUNC)
attempt("truncate", os.truncate, secret, 0)
attempt("unlink", os.unlink, secret)
attempt("rename", os.rename, secret, "mine")
attempt("replace", os.replace, "main.py", secret)
attempt("mkdir", os.mkdir, OUTSIDE + "/hostile")
attempt("rmdir", os.rmdir, OUTSIDE + "/directory")
attempt("symlink", os.symlink, "/", OUTSIDE + "/hostile")
attempt("chmod", os.chmod, secret, 0)
attempt("chown", os.chown, secret, 0, 0)
attempt("times", os.utime, secret, (0, 0))
"#),
    refused("attributes of the user's files", 4, r#"
def unsupported(action, *arguments):
    try: action(*arguments)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP: raise
        raise PermissionError(errno.EPERM, "none")
attempt("set", unsupported, os.setxattr, OUTSIDE + "/secret", "user.hostile", b"x")
attempt("list", unsupported, os.listxattr, OUTSIDE + "/secret")
attempt("fchmodat2", call, 452, -100, (OUTSIDE + "/secret\0").encode(), 0, 0)
attempt("mode of a directory", os.chmod, OUTSIDE, 0)
"#),
    refused("the interpreter's installation", 7, r#"
import fcntl
attempt("append", open, LIBRARY, "a")
attempt("neighbour", open, os.path.dirname(LIBRARY) + "/hostile.py", "w")
attempt("unlink", os.unlink, LIBRARY)
attempt("chmod", os.chmod, LIBRARY, 0)
held = os.open(LIBRARY, os.O_RDONLY)
attempt("fchmod", os.fchmod, held, 0)
attempt("times", os.utime, held)
attempt("lease", fcntl.fcntl, held, fcntl.F_SETLEASE, fcntl.F_RDLCK)
"#),
    case("races with links in the temporary directory", Ends::With(Status::TimedOut), r#"
def swap(name):
    while True:
        for make in (lambda: os.symlink(OUTSIDE, name), lambda: os.unlink(name), lambda: os.mkdir(name),
                     lambda: open(name + "/file", "w").close(), lambda: os.unlink(name + "/file"), lambda: os.rmdir(name),
                     lambda: os.symlink(OUTSIDE + "/secret", name), lambda: os.rename(name, name + "x"), lambda: os.unlink(name + "x")):
            try: make()
            except OSError: pass
for i in range(4): threading.Thread(target=swap, args=(f"n{i}",), daemon=True).start()
time.sleep(60)
"#).for_a_second(),
    case("links left to everything", Ends::With(Status::Exit(0)), r#"
for i, target in enumerate((OUTSIDE, OUTSIDE + "/secret", "/", "/etc/passwd", "..", ".", "self")): os.symlink(target, f"l{i}")
os.mkdir("d"); os.symlink(OUTSIDE + "/directory", "d/inner"); os.symlink("../..", "d/up")
"#),
    refused("writing to its own standard input", 3, r#"
import mmap
attempt("write", os.write, 0, b"x")
attempt("truncate", os.ftruncate, 0, 0)
attempt("map", mmap.mmap, 0, 6, mmap.MAP_SHARED, mmap.PROT_WRITE)
"#),
    // Others
    refused("signals to others", 11, r#"
import signal
for name, pid in (("parent", os.getppid() or HARNESS), ("harness", HARNESS), ("sibling", SIBLING), ("init", 1), ("group", 0), ("everybody", -1)):
    attempt(name, os.kill, pid, 0 if pid in (0, -1) else signal.SIGTERM)
attempt("own group", os.killpg, os.getpgid(0) or 1, 0)
attempt("tgkill", call, (234, 131), SIBLING, SIBLING, 15)
attempt("queue", call, (129, 138), SIBLING, 15, bytes(128))
attempt("pidfd", os.pidfd_open, SIBLING)
attempt("tkill", call, (200, 130), SIBLING, 15)
"#),
    refused("signals by way of a file's owner", 3, r#"
import fcntl
r, w = os.pipe()
attempt("owner", fcntl.fcntl, r, fcntl.F_SETOWN, SIBLING)
attempt("signal", fcntl.fcntl, r, fcntl.F_SETSIG, 9)
attempt("ioctl", fcntl.ioctl, r, 0x8901, SIBLING.to_bytes(4, "little"))
"#).works_outside(),
    refused("ptrace and its kin", 7, r#"
attempt("traceme", call, (101, 117), 0, 0, 0, 0)
attempt("attach", call, (101, 117), 16, SIBLING, 0, 0)
attempt("seize", call, (101, 117), 0x4206, HARNESS, 0, 0)
attempt("read", call, (310, 270), SIBLING, 0, 0, 0, 0, 0)
attempt("write", call, (311, 271), SIBLING, 0, 0, 0, 0, 0)
attempt("kcmp", call, (312, 272), SIBLING, HARNESS, 0, 0, 0)
attempt("robust list", call, (274, 100), SIBLING, ctypes.byref(ctypes.c_long()), ctypes.byref(ctypes.c_long()))
"#),
    refused("priorities and processors", 9, r#"
attempt("nice", os.nice, 5)
attempt("sibling's nice", os.setpriority, os.PRIO_PROCESS, SIBLING, 10)
attempt("user's nice", os.setpriority, os.PRIO_USER, os.getuid(), 10)
attempt("affinity", os.sched_setaffinity, 0, {0})
attempt("sibling's affinity", os.sched_setaffinity, SIBLING, {0})
attempt("scheduler", os.sched_setscheduler, SIBLING, os.SCHED_IDLE, os.sched_param(0))
attempt("deadline", call, (314, 274), 0, bytes(48), 0)
attempt("ionice", call, (251, 30), 1, SIBLING, 3 << 13)
attempt("harness's io", call, (251, 30), 1, HARNESS, 3 << 13)
"#),
    refused("limits of itself and others", 5, r#"
import resource
def higher(kind):
    soft, hard = resource.getrlimit(kind)
    try: resource.setrlimit(kind, (hard + 1, hard + 1))
    except ValueError: raise PermissionError(errno.EPERM, "hard limit")
for name in ("AS", "NOFILE", "FSIZE"): attempt(name, higher, getattr(resource, "RLIMIT_" + name))
attempt("sibling's", resource.prlimit, SIBLING, resource.RLIMIT_NOFILE, (5, 5))
attempt("harness's", resource.prlimit, HARNESS, resource.RLIMIT_NOFILE)
"#),
    refused("namespaces and mounts", 18, r#"
for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("pid", 0x20000000), ("net", 0x40000000), ("ipc", 0x8000000), ("uts", 0x4000000)):
    attempt("unshare " + name, call, (272, 97), flag)
    attempt("clone " + name, call, (56, 220), flag | 17, 0, 0, 0, 0)
attempt("clone thread", call, (56, 220), 0x10000000 | 0x10f00, 0, 0, 0, 0)
attempt("setns", call, (308, 268), 0, 0)
attempt("mount", call, (165, 40), b"none\0", b"/tmp\0", b"tmpfs\0", 0, 0)
attempt("fsopen", call, 430, b"tmpfs\0", 0)
attempt("open_tree", call, 428, -100, b"/\0", 1)
attempt("chroot", os.chroot, ".")
"#),
    refused("becoming somebody else", 9, r#"
attempt("setuid", os.setuid, 0)
attempt("setgid", os.setgid, 0)
attempt("setresuid", os.setresuid, 0, 0, 0)
attempt("setgroups", os.setgroups, [])
attempt("setreuid", os.setreuid, 1, 1)
attempt("capset", call, (126, 91), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*([0xffffffff] * 6)))
attempt("chmod +s", os.chmod, "main.py", 0o4755)
attempt("device", os.mknod, "null", 0o20666, os.makedev(1, 3))
attempt("personality", call, (135, 92), 0x40000)
"#),
    refused("dangerous corners of the kernel", 15, r#"
for name, numbers, arguments in (
    ("io_uring", 425, (8, bytes(120))), ("bpf", (321, 280), (0, bytes(64), 64)), ("userfaultfd", (323, 282), (1,)),
    ("perf", (298, 241), (bytes(128), 0, -1, -1, 0)), ("add_key", (248, 217), (b"user\0", b"hostile\0", b"x", 1, -3)),
    ("keyctl", (250, 219), (0, -3, 1)), ("name_to_handle", (303, 264), (-100, b"/\0", bytes(136), bytes(8), 0)),
    ("open_by_handle", (304, 265), (-100, bytes(136), 0)), ("inotify", (294, 26), (0,)), ("fanotify", (300, 262), (0, 0)),
    ("init_module", (175, 105), (b"x", 1, b"\0")), ("kexec", (246, 104), (0, 0, 0, 0)), ("syslog", (103, 116), (10, 0, 0)),
    ("reboot", (169, 142), (0, 0, 0, 0)), ("memfd_secret", 447, (0,)),
): attempt(name, call, numbers, *arguments)
"#),
    refused("the machine's state", 7, r#"
attempt("hostname", lambda: checked(libc.sethostname(b"hostile", 7)))
attempt("clock", lambda: time.clock_settime(time.CLOCK_REALTIME, 0))
attempt("accounting", call, (163, 89), 0)
attempt("swap", call, (167, 224), b"x\0", 0)
attempt("quota", call, (179, 60), 0, 0, 0, 0)
attempt("syncfs", call, (306, 267), 1)
attempt("lock memory", call, (151, 230), 3)
"#),
    refused("memory, queues and semaphores that stay", 8, r#"
attempt("shmget", call, (29, 194), 0x7777, 4096, 0o1666)
attempt("semget", call, (64, 190), 0x7777, 1, 0o1666)
attempt("msgget", call, (68, 186), 0x7777, 0o1666)
attempt("mq_open", call, (240, 180), b"hostile\0", 0o102, 0o666, 0)
attempt("memfd", call, (319, 279), b"hostile\0", 0)
attempt("shm_open", os.open, "/dev/shm/hostile", os.O_CREAT | os.O_RDWR)
from _multiprocessing import SemLock
attempt("semaphore", SemLock, 0, 1, 1, "/hostile", False)
import _posixshmem
attempt("shared memory", _posixshmem.shm_open, "/hostile", os.O_CREAT | os.O_RDWR)
"#),
    refused("terminals", 4, r#"
import fcntl, termios
for number in range(3): attempt(f"type into {number}", fcntl.ioctl, number, termios.TIOCSTI, b"x")
attempt("take", fcntl.ioctl, 0, termios.TIOCSCTTY, 0)
"#),
    refused("undoing its bonds", 5, r#"
def prctl(option, *arguments): checked(libc.prctl(option, *arguments))
attempt("death signal", prctl, 1, 0)
attempt("undumpable", prctl, 4, 0)
attempt("subreaper", prctl, 36, 1)
attempt("tracer", prctl, 0x59616d61, SIBLING)
attempt("group", os.setpgid, 0, 0)
"#),
    #[cfg(target_arch = "x86_64")]
    case("32-bit system calls", Ends::With(Status::Signal(31)), r#"
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\xb8\x02\x00\x00\x00\xcd\x80\xc3") # mov eax, 2 (fork); int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print("DONE")
"#),
    #[cfg(target_arch = "x86_64")]
    case("x32 system calls", Ends::With(Status::Signal(31)), "call(0x40000000 | 57); print('DONE')"),
    // Crashes
    case("abort", Ends::With(Status::Signal(6)), "os.abort()"),
    case("a wild pointer", Ends::With(Status::Signal(11)), "ctypes.string_at(8)"),
    case("a death signal of its own", Ends::With(Status::Signal(15)), "import signal; os.kill(os.getpid(), signal.SIGTERM)").only_landlock(),
    refused("all descriptors", 1, r#"
held = []
try:
    while len(held) < 5000: held.extend(os.pipe())
except OSError as error: print("pipes refused" if error.errno == errno.EMFILE else f"ODD {error}")
"#),
];
