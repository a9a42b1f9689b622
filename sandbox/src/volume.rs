//! A file system in memory with a size, for the one directory that a program may write to.
//!
//! The kernel holds its bytes and its files exactly, however they are written, and it goes away as a whole with its
//! last user: nothing has to be looked for, and removal takes no time whatever is in it. It is made without a place
//! (`fsopen`, `fsmount`), so that no other process ever sees it; a program gets it on its directory in mounts of its
//! own ([`Volumes::attach`]), and the caller keeps a descriptor.
//!
//! Mounting takes CAP_SYS_ADMIN: root has it, an ordinary user has it in a user namespace of his own, where those are
//! allowed. One such namespace is made with the sandbox and entered by every start. A host that has neither, such as
//! most containers, gives no volumes; the program's directory is then watched ([`crate::scratch`]).

use crate::{Limits, launch::borrowing};
use std::{
    ffi::{CStr, CString, c_int, c_void},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

const FSCONFIG_SET_STRING: c_int = 1;
const FSCONFIG_CMD_CREATE: c_int = 6;
const CLOSE_ON_EXEC: c_int = 1; // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
/// What a limit of `u64::MAX` becomes: more than any memory, and less than the kernel's own bound.
const MOST: u64 = 1 << 50;
/// Bytes of a page: what is one more than allowed can be seen, because the volume has room for it.
const PAGE: u64 = 4096;

/// How volumes are made on this host.
#[derive(Debug)]
pub(crate) struct Volumes {
    /// An ordinary user's namespace, in which he may mount.
    namespace: Option<OwnedFd>,
}

/// One program's file system.
#[derive(Debug)]
pub(crate) struct Volume {
    mount: OwnedFd,
    directory: OwnedFd,
}

impl Volumes {
    /// The way that works here.
    ///
    /// # Errors
    /// The system's, where neither way does.
    pub(crate) fn find() -> io::Result<Self> {
        let limits = Limits::default();
        let as_root = Self { namespace: None };
        if as_root.volume(&limits, 0).is_ok() {
            return Ok(as_root);
        }
        let in_namespace = Self {
            namespace: Some(user_namespace()?),
        };
        in_namespace.volume(&limits, 0)?;
        Ok(in_namespace)
    }

    /// A new volume for a program with `files` given ones.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn volume(&self, limits: &Limits, files: u64) -> io::Result<Volume> {
        let size = limits.disk_bytes.min(MOST).div_ceil(PAGE) * PAGE + PAGE;
        // The root directory, the program's own files and those of the caller, and one more than allowed.
        let nodes = limits.files.min(MOST) + files + 2;
        let text = |value: u64| CString::new(value.to_string()).map_err(io::Error::other);
        let options = [
            (c"size", text(size)?),
            (c"nr_inodes", text(nodes)?),
            (c"mode", c"0700".into()),
        ];
        let mut making = Making {
            namespace: self.namespace.as_ref().map(AsRawFd::as_raw_fd),
            options: &options,
            mount: Err(0),
        };
        match self.namespace {
            None => making.make(),
            Some(_) => borrowing(making_child, (&raw mut making).cast(), libc::CLONE_FILES)?,
        }
        let mount = making.mount.map_err(io::Error::from_raw_os_error)?;
        // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
        let mount = unsafe { OwnedFd::from_raw_fd(mount) };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: an open descriptor and a name that ends with a zero; what is opened is ours alone.
        let directory = unsafe {
            match libc::openat(mount.as_raw_fd(), c".".as_ptr(), flags) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        Ok(Volume { mount, directory })
    }

    /// What a start needs to put `volume` on the directory `place`.
    pub(crate) fn attach<'a>(&'a self, volume: &'a Volume, place: &'a CStr) -> Attach<'a> {
        Attach {
            namespace: self.namespace.as_ref().map(AsFd::as_fd),
            mount: volume.mount.as_fd(),
            place,
        }
    }
}

impl Volume {
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Bytes and files (directories and links among them, its own root not) that are in use, those
    /// without a name included.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn usage(&self) -> io::Result<(u64, u64)> {
        // SAFETY: a plain C structure that the call fills, and an open descriptor.
        let told = unsafe {
            let mut told: libc::statfs64 = std::mem::zeroed();
            if libc::fstatfs64(self.directory.as_raw_fd(), &mut told) == -1 {
                return Err(io::Error::last_os_error());
            }
            told
        };
        let bytes = told.f_blocks.saturating_sub(told.f_bfree) * told.f_bsize as u64;
        Ok((bytes, told.f_files.saturating_sub(told.f_ffree).saturating_sub(1)))
    }
}

/// A volume and the place that a program sees it at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attach<'a> {
    namespace: Option<BorrowedFd<'a>>,
    mount: BorrowedFd<'a>,
    place: &'a CStr,
}

impl Attach<'_> {
    /// Gives the calling process mounts of its own, with the volume on its place. On failure the reason is in
    /// `errno`.
    ///
    /// # Safety
    /// To be called in a child only, whose namespaces are its own and which has one thread.
    pub(crate) unsafe fn attach(&self) -> bool {
        // SAFETY: plain values, open descriptors, and names that end with a zero.
        unsafe {
            if !own_mounts(self.namespace.map(|namespace| namespace.as_raw_fd())) {
                return false;
            }
            let done = libc::syscall(
                libc::SYS_move_mount,
                self.mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                self.place.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            );
            done == 0
        }
    }
}

/// Enters the user namespace, if any, and gives the process mounts of its own that tell the others nothing.
///
/// # Safety
/// To be called in a child only, whose namespaces are its own and which has one thread.
unsafe fn own_mounts(namespace: Option<RawFd>) -> bool {
    // SAFETY: plain values, and a name that ends with a zero.
    unsafe {
        if let Some(namespace) = namespace
            && libc::setns(namespace, libc::CLONE_NEWUSER) == -1
        {
            return false;
        }
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_SLAVE, // what the host unmounts goes from here, too
                std::ptr::null(),
            ) == 0
    }
}

/// A volume on its way: shared with the child that makes it, where it takes one.
struct Making<'a> {
    namespace: Option<RawFd>,
    options: &'a [(&'static CStr, CString)],
    /// The new mount's descriptor, or the error's number.
    mount: Result<RawFd, c_int>,
}

impl Making<'_> {
    fn make(&mut self) {
        // SAFETY: names and values end with a zero; the descriptors are opened here and nobody else's.
        unsafe {
            let system = libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOSE_ON_EXEC) as c_int;
            if system == -1 {
                self.mount = Err(*libc::__errno_location());
                return;
            }
            let set = self.options.iter().all(|(name, value)| {
                let value = value.as_ptr();
                libc::syscall(libc::SYS_fsconfig, system, FSCONFIG_SET_STRING, name.as_ptr(), value, 0) == 0
            });
            let none = std::ptr::null::<c_void>();
            let made = set && libc::syscall(libc::SYS_fsconfig, system, FSCONFIG_CMD_CREATE, none, none, 0) == 0;
            let kinds = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
            let mount = match made {
                true => libc::syscall(libc::SYS_fsmount, system, CLOSE_ON_EXEC, kinds as c_int) as c_int,
                false => -1,
            };
            self.mount = match mount {
                -1 => Err(*libc::__errno_location()),
                mount => Ok(mount),
            };
            libc::close(system);
        }
    }
}

/// Makes a volume in the user's namespace.
extern "C" fn making_child(making: *mut c_void) -> c_int {
    // SAFETY: `borrowing` passes the pointer that `volume` gave, to an object that nobody else touches meanwhile;
    // the child has one thread and namespaces of its own.
    unsafe {
        let making = &mut *making.cast::<Making<'_>>();
        if own_mounts(making.namespace) {
            making.make();
        } else {
            making.mount = Err(*libc::__errno_location());
        }
        libc::_exit(0)
    }
}

/// A user namespace on its way.
struct Namespace {
    /// What maps the caller's user and group to themselves.
    maps: [(&'static CStr, CString); 3],
    namespace: Result<RawFd, c_int>,
}

/// A user namespace in which the caller is who he is, and may mount.
fn user_namespace() -> io::Result<OwnedFd> {
    // SAFETY: no arguments, cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let text = |text: String| CString::new(text).map_err(io::Error::other);
    let mut namespace = Namespace {
        maps: [
            (c"/proc/self/setgroups", c"deny".into()),
            (c"/proc/self/uid_map", text(format!("{user} {user} 1"))?),
            (c"/proc/self/gid_map", text(format!("{group} {group} 1"))?),
        ],
        namespace: Err(0),
    };
    let flags = libc::CLONE_FILES | libc::CLONE_NEWUSER;
    borrowing(namespace_child, (&raw mut namespace).cast(), flags)?;
    let namespace = namespace.namespace.map_err(io::Error::from_raw_os_error)?;
    // SAFETY: opened for us by the child, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// Fills the maps of the namespace that it is in, and opens it.
extern "C" fn namespace_child(namespace: *mut c_void) -> c_int {
    // SAFETY: as in `making_child`.
    unsafe {
        let namespace = &mut *namespace.cast::<Namespace>();
        let written = namespace.maps.iter().all(|(path, text)| {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            let length = text.as_bytes().len();
            let written = file != -1 && libc::write(file, text.as_ptr().cast(), length) == length as isize;
            let error = *libc::__errno_location();
            if file != -1 {
                libc::close(file);
            }
            *libc::__errno_location() = error;
            written
        });
        let opened = match written {
            true => libc::open(c"/proc/self/ns/user".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC),
            false => -1,
        };
        namespace.namespace = match opened {
            -1 => Err(*libc::__errno_location()),
            opened => Ok(opened),
        };
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Read, Write},
    };

    fn create(volume: &Volume, name: &CStr) -> io::Result<File> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        // SAFETY: an open descriptor and a name that ends with a zero; what is opened is ours alone.
        match unsafe { libc::openat(volume.directory.as_raw_fd(), name.as_ptr(), flags, 0o600) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: as above.
            fd => Ok(unsafe { File::from_raw_fd(fd) }),
        }
    }

    /// Hosts without volumes have nothing to test here; the sandbox's other tests cover the watching.
    fn volumes() -> Option<Volumes> {
        Volumes::find()
            .inspect_err(|error| eprintln!("NOT RUN: this host gives no volumes: {error}"))
            .ok()
    }

    #[test]
    fn bytes_and_files_end_where_the_limits_say() {
        let Some(volumes) = volumes() else { return };
        let limits = Limits {
            disk_bytes: 1 << 20,
            files: 10,
            ..Limits::default()
        };
        let volume = volumes.volume(&limits, 1).unwrap();
        assert_eq!(volume.usage().unwrap(), (0, 0));
        let mut file = create(&volume, c"file").unwrap();
        let mut written = 0;
        let full = loop {
            match file.write(&[1; 1000]) {
                Ok(bytes) => written += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(written, (1 << 20) + 4096);
        assert_eq!(volume.usage().unwrap(), ((1 << 20) + 4096, 1));
        // SAFETY: an open descriptor and a name that ends with a zero.
        unsafe { libc::unlinkat(volume.directory.as_raw_fd(), c"file".as_ptr(), 0) };
        assert_eq!(volume.usage().unwrap().0, (1 << 20) + 4096, "held without a name");
        drop(file);
        assert_eq!(volume.usage().unwrap(), (0, 0));
        let made = (0..100)
            .take_while(|i| create(&volume, &CString::new(format!("{i}")).unwrap()).is_ok())
            .count();
        assert_eq!(made, 12, "ten, the given one, and one more");
    }

    /// Neither this process nor its other children see what is in it.
    #[test]
    fn only_the_one_who_attaches_it_sees_it() {
        let Some(volumes) = volumes() else { return };
        let volume = volumes.volume(&Limits::default(), 0).unwrap();
        create(&volume, c"file").unwrap().write_all(b"x").unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = CString::new(place.path().as_os_str().as_encoded_bytes()).unwrap();
        let inside = CString::new(format!("{}/file", place.path().display())).unwrap();
        struct Look<'a>(Attach<'a>, &'a CStr, c_int);
        extern "C" fn look(look: *mut c_void) -> c_int {
            // SAFETY: the pointer that is given below; a child of its own.
            unsafe {
                let look = &mut *look.cast::<Look<'_>>();
                look.2 = match look.0.attach() {
                    true => libc::access(look.1.as_ptr(), libc::F_OK),
                    false => *libc::__errno_location(),
                };
                libc::_exit(0)
            }
        }
        let mut seen = Look(volumes.attach(&volume, &path), &inside, -1);
        borrowing(look, (&raw mut seen).cast(), 0).unwrap();
        assert_eq!(seen.2, 0);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        let mut mounts = String::new();
        File::open("/proc/self/mounts")
            .unwrap()
            .read_to_string(&mut mounts)
            .unwrap();
        assert!(!mounts.contains(&*place.path().to_string_lossy()));
        std::fs::remove_dir(place.path()).unwrap();
    }
}
