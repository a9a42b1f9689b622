//! What the kernel is asked for: signals, limits, mounts of one's own, a clock of one's own.

use std::{
    ffi::CString,
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::Command,
    ptr,
};

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn c_string(text: &[u8]) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory. The process is a child that was not waited for, so
    // that its number belongs to no other.
    checked(unsafe { libc::kill(pid as libc::pid_t, signal) })
}

/// What a process may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Open files.
    Files,
    /// Bytes of address space.
    Memory,
    /// Bytes of a file.
    FileSize,
}

impl Limit {
    fn set(self, pid: libc::pid_t, most: u64) -> io::Result<()> {
        let resource = match self {
            Self::Files => libc::RLIMIT_NOFILE,
            Self::Memory => libc::RLIMIT_AS,
            Self::FileSize => libc::RLIMIT_FSIZE,
        };
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: both pointers are to live values of the type that prlimit reads and writes.
        checked(unsafe { libc::prlimit(pid, resource, ptr::null(), &raw mut before) })?;
        let limit = libc::rlimit {
            rlim_cur: most.min(before.rlim_max),
            rlim_max: before.rlim_max,
        };
        // SAFETY: as above; the former limit is not asked for.
        checked(unsafe { libc::prlimit(pid, resource, &raw const limit, ptr::null_mut()) })
    }

    /// Lowers the limit of a running process.
    pub fn on(self, pid: u32, most: u64) -> io::Result<()> {
        self.set(pid as libc::pid_t, most)
    }

    /// Starts a command with the limit.
    pub fn before(self, command: &mut Command, most: u64) {
        // SAFETY: between fork and exec the closure makes system calls alone.
        unsafe {
            command.pre_exec(move || {
                if self == Self::FileSize {
                    // A write beyond the limit then fails with EFBIG instead of ending the process.
                    libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                }
                self.set(0, most)
            });
        }
    }
}

/// A child that ends with the thread that started it, and leaves no core file.
pub fn tie(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes system calls alone; the pointer is to a live value.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
        });
    }
}

/// A child without its standard streams.
pub fn close_streams(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes system calls alone, on descriptors that are the child's.
    unsafe {
        command.pre_exec(|| {
            for stream in 0..3 {
                libc::close(stream);
            }
            Ok(())
        });
    }
}

/// Starts a command in a time namespace whose monotonic and boot clocks are shifted by `seconds`.
///
/// # Errors
/// A shift that is no line of text.
pub fn shift_clocks(command: &mut Command, seconds: i64) -> io::Result<()> {
    let path = c_string(b"/proc/self/timens_offsets")?;
    let text = format!("monotonic {seconds} 0\nboottime {seconds} 0\n");
    // SAFETY: between fork and exec the closure makes system calls alone, on text that it owns.
    unsafe {
        command.pre_exec(move || {
            checked(libc::unshare(libc::CLONE_NEWTIME))?;
            let file = libc::open(path.as_ptr(), libc::O_WRONLY);
            if file < 0 {
                return Err(io::Error::last_os_error());
            }
            let written = libc::write(file, text.as_ptr().cast(), text.len());
            libc::close(file);
            if written < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(())
}

/// Gives the calling thread, and the children that it starts, mounts of their own: nobody else sees what is
/// mounted from now on, and it ends with them.
///
/// # Errors
/// The system does not allow it; root may.
pub fn private_mounts() -> io::Result<()> {
    // SAFETY: unshare takes an integer.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(None, Path::new("/"), libc::MS_REC | libc::MS_PRIVATE, None)
}

fn mount(from: Option<&Path>, at: &Path, flags: libc::c_ulong, options: Option<&str>) -> io::Result<()> {
    let at = c_string(at.as_os_str().as_bytes())?;
    let kind = c_string(b"tmpfs")?;
    let from = c_string(from.map_or(b"tmpfs".as_slice(), |from| from.as_os_str().as_bytes()))?;
    let options = options.map(|text| c_string(text.as_bytes())).transpose()?;
    let data = options.as_ref().map_or(ptr::null(), |text| text.as_ptr().cast());
    // SAFETY: every pointer is to a text that ends with 0 and lives until the call returns, or null.
    checked(unsafe { libc::mount(from.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, data) })
}

/// A file system in memory on a directory, of this size in bytes; `files` bounds the number of files (0: does not).
pub fn mount_memory(at: &Path, size: u64, files: u64) -> io::Result<()> {
    mount(None, at, 0, Some(&format!("size={size},nr_inodes={files}")))
}

/// Gives such a file system another size.
pub fn resize_memory(at: &Path, size: u64) -> io::Result<()> {
    mount(None, at, libc::MS_REMOUNT, Some(&format!("size={size},nr_inodes=0")))
}

/// Makes a file or a directory read-only, with all below it, until [`unmount`].
pub fn read_only(at: &Path) -> io::Result<()> {
    mount(Some(at), at, libc::MS_BIND, None)?;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    mount(Some(at), at, flags, None).inspect_err(|_| _ = unmount(at))
}

/// Takes away what is mounted there.
pub fn unmount(at: &Path) -> io::Result<()> {
    let at = c_string(at.as_os_str().as_bytes())?;
    // SAFETY: the pointer is to a text that ends with 0.
    checked(unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn limits_and_signals_reach_a_child() {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n; ulimit -c"]);
        Limit::Files.before(&mut command, 17);
        tie(&mut command);
        let output = command.output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "17\n0\n");
        let mut child = Command::new("sleep").arg("60").spawn().expect("a child");
        signal(child.id(), libc::SIGTERM).expect("a signal");
        let status = child.wait().expect("an end");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn a_child_without_streams_has_none() {
        let mut command = Command::new("sh");
        command.args(["-c", "test -e /proc/self/fd/1 && exit 3; exit 4"]);
        command.stdout(Stdio::null());
        close_streams(&mut command);
        assert_eq!(command.status().expect("a shell").code(), Some(4));
    }

    #[test]
    fn mounts_are_private_small_and_read_only_on_request() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().to_owned();
        let thread = std::thread::spawn(move || {
            if let Err(error) = private_mounts() {
                return Some(error.to_string());
            }
            mount_memory(&at, 64 << 10, 0).expect("a file system");
            let full = std::fs::write(at.join("a"), vec![0; 100 << 10]).expect_err("it is full");
            assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
            resize_memory(&at, 1 << 20).expect("a larger one");
            std::fs::write(at.join("a"), vec![0; 100 << 10]).expect("there is space");
            read_only(&at).expect("read-only");
            let error = std::fs::write(at.join("b"), "b").expect_err("it is read-only");
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            unmount(&at).expect("as before");
            std::fs::write(at.join("b"), "b").expect("it can be written");
            None
        });
        if let Some(error) = thread.join().expect("the thread") {
            assert!(error.contains("not permitted"), "{error}");
        }
        // Nobody else sees the files.
        assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 0);
    }
}
