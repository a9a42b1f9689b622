//! The one directory that a program may write to, and its removal.
//!
//! The program fills this directory with what it likes: links to anywhere, names that change while
//! we look, directories without rights or nested without end. So everything here goes from an open
//! directory to a name in it and never follows a link: neither looking nor removing can be led out.
//! Where the host gives volumes, the directory holds nothing but the place of one.

use crate::{
    Breach, ExtraFile, Limits, SandboxError, io_error,
    volume::{Attach, Volume, Volumes},
};
use std::{
    ffi::{CStr, CString},
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// Directories nested deeper than this are a breach; a path name ends at 2048 of them anyway.
const DEPTH: usize = 64;
/// Names that removal takes at a time.
const BATCH: u64 = 100_000;
/// How often removal starts over when somebody keeps making files meanwhile.
const ROUNDS: usize = 100;

/// What the names of the directories begin with.
const PREFIX: &str = "wmtp-run-";
/// Age from which a directory that nobody holds is taken for one that a killed harness left: far
/// more than the moment between a directory's making and its locking.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Removes what harnesses that were killed have left in `temp`. A harness that lives holds a lock on
/// each of its directories.
pub(crate) fn sweep(temp: &Path) {
    let Ok(parent) = open_path(temp) else { return };
    for name in names(parent.as_fd(), BATCH).unwrap_or_default() {
        if !name.to_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(directory) = open_at(parent.as_fd(), &name).map(File::from) else {
            continue;
        };
        // SAFETY: no arguments, cannot fail.
        let user = unsafe { libc::geteuid() };
        let left = |meta: std::fs::Metadata| {
            let age = meta.modified().ok().and_then(|time| time.elapsed().ok());
            meta.uid() == user && age.is_some_and(|age| age > ABANDONED)
        };
        if directory.metadata().is_ok_and(left) && directory.try_lock().is_ok() {
            let removed = empty(directory.as_fd()).and_then(|()| unlink(parent.as_fd(), &name, libc::AT_REMOVEDIR));
            tracing::info!(
                ?name,
                ?removed,
                "swept a temporary directory that a killed process had left"
            );
        }
    }
}

/// The temporary directory of one program; removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    /// `path` as system calls take it.
    place: CString,
    directory: OwnedFd,
    /// The directory that holds it, for the last step of its removal.
    parent: OwnedFd,
    device: u64,
    /// What the program sees in the directory's place, and how many of its files are given.
    volume: Option<(Volume, u64)>,
}

impl Scratch {
    /// Makes it inside `temp`, with `main.py` and `files` in it; on a volume as large as `limits` where there are any.
    pub(crate) fn new(
        temp: &Path,
        source: &str,
        files: &[ExtraFile<'_>],
        volumes: Option<(&Volumes, &Limits)>,
    ) -> Result<Self, SandboxError> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(temp);
        let path = made.map_err(io_error("make a temporary directory"))?.keep();
        let open = || {
            Ok((
                open_path(&path)?,
                open_path(temp)?,
                std::fs::symlink_metadata(&path)?.dev(),
            ))
        };
        let (directory, parent, device) = open().map_err(|error| {
            let _ = std::fs::remove_dir(&path);
            io_error("open its temporary directory")(error)
        })?;
        let held = File::from(directory);
        let _ = held.try_lock(); // see `sweep`; not all file systems have locks
        let mut scratch = Self {
            place: CString::new(path.as_os_str().as_bytes()).unwrap_or_default(), // a path that was made has no zero
            path,
            directory: held.into(),
            parent,
            device,
            volume: None,
        };
        if let Some((volumes, limits)) = volumes {
            let given = 1 + files.len() as u64;
            let volume = volumes.volume(limits, given);
            scratch.volume = Some((volume.map_err(io_error("make a file system in memory"))?, given));
        }
        let program = ExtraFile {
            name: "main.py",
            bytes: source.as_bytes(),
        };
        for file in [&program].into_iter().chain(files) {
            scratch.write(file)?;
        }
        Ok(scratch)
    }

    fn write(&self, file: &ExtraFile<'_>) -> Result<(), SandboxError> {
        if file.name.is_empty() || file.name.contains(['/', '\0']) || [".", ".."].contains(&file.name) {
            let text = format!("`{}` is no plain file name for an extra file", file.name);
            return Err(SandboxError::Request(text));
        }
        let create = || {
            let name = CString::new(file.name).map_err(io::Error::other)?;
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            // SAFETY: an open descriptor and a name that ends with a zero; what is opened is ours alone.
            match unsafe { libc::openat(self.directory().as_raw_fd(), name.as_ptr(), flags, 0o600) } {
                -1 => Err(io::Error::last_os_error()),
                // SAFETY: as above.
                made => Ok(unsafe { File::from_raw_fd(made) }),
            }
        };
        create()
            .and_then(|mut made| made.write_all(file.bytes))
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => SandboxError::Request(format!("there are two files `{}`", file.name)),
                _ => io_error("write a program's file")(error),
            })
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        match &self.volume {
            Some((volume, _)) => volume.directory(),
            None => self.directory.as_fd(),
        }
    }

    /// What puts the volume, if any, in the directory's place.
    pub(crate) fn attach<'a>(&'a self, volumes: Option<&'a Volumes>) -> Option<Attach<'a>> {
        let (volume, _) = self.volume.as_ref()?;
        Some(volumes?.attach(volume, &self.place))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what is in the directory, and what the program still holds open of it without a
    /// name, is more than the limits allow. A directory that cannot be looked into is too much.
    pub(crate) fn breach(&self, pid: libc::pid_t, limits: &Limits) -> Option<Breach> {
        if let Some((volume, given)) = &self.volume {
            let (bytes, files) = volume.usage().ok()?;
            return match files > limits.files.saturating_add(*given) {
                true => Some(Breach::Files),
                false => (bytes > limits.disk_bytes).then_some(Breach::Disk),
            };
        }
        let mut usage = Usage::default();
        let looked = usage.add(self.directory.as_fd(), DEPTH, limits);
        if usage.files > limits.files || usage.deep || usage.closed {
            return Some(Breach::Files);
        }
        if looked.is_err() {
            return None; // names that change meanwhile; the next look is soon
        }
        let nameless: u64 = descriptors(pid)
            .into_iter()
            .filter_map(|entry| std::fs::metadata(entry.path()).ok())
            .filter(|file| file.is_file() && file.nlink() == 0 && file.dev() == self.device)
            .map(|file| file.blocks() * 512)
            .sum();
        (usage.bytes + nameless > limits.disk_bytes).then_some(Breach::Disk)
    }
}

/// The open files of a program. Its threads share one table, which is empty for those that have ended: the first too.
fn descriptors(pid: libc::pid_t) -> Vec<std::fs::DirEntry> {
    let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let threads = entries(format!("/proc/{pid}/task").into());
    threads
        .map(|thread| entries(thread.path().join("fd")).collect::<Vec<_>>())
        .find(|held| !held.is_empty())
        .unwrap_or_default()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let name = self
            .path
            .file_name()
            .and_then(|name| CString::new(name.as_bytes()).ok());
        let removed = empty(self.directory.as_fd()).and_then(|()| match name {
            Some(name) => unlink(self.parent.as_fd(), &name, libc::AT_REMOVEDIR),
            None => Err(io::ErrorKind::InvalidFilename.into()),
        });
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "a program's temporary directory is left behind");
        }
    }
}

/// What a directory takes up.
#[derive(Debug, Default)]
struct Usage {
    bytes: u64,
    files: u64,
    deep: bool,
    /// A directory in it cannot be read or searched.
    closed: bool,
}

impl Usage {
    /// Names in `directory`, giving ourselves the right first where it may be listed but not searched.
    fn names(&mut self, directory: BorrowedFd<'_>, most: u64) -> io::Result<Vec<CString>> {
        names(directory, most)
            .or_else(|error| match is_denied(&error) {
                true => {
                    // SAFETY: an open descriptor. Where this fails, so does what follows.
                    unsafe { libc::fchmod(directory.as_raw_fd(), 0o700) };
                    names(directory, most)
                }
                false => Err(error),
            })
            .inspect_err(|error| self.closed |= is_denied(error))
    }

    /// Adds what is beneath `directory`, until a limit is passed.
    fn add(&mut self, directory: BorrowedFd<'_>, depth: usize, limits: &Limits) -> io::Result<()> {
        let room = limits.files.saturating_sub(self.files) + 1;
        for name in self.names(directory, room)? {
            self.files += 1;
            if self.files > limits.files {
                return Ok(());
            }
            // SAFETY: `stat` is a plain C structure; the name ends with a zero.
            let stat = unsafe {
                let mut stat: libc::stat64 = std::mem::zeroed();
                let at = (directory.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW);
                if libc::fstatat64(at.0, at.1, &mut stat, at.2) == -1 {
                    self.closed |= is_denied(&io::Error::last_os_error());
                    continue; // or it is gone again
                }
                stat
            };
            self.bytes += stat.st_blocks as u64 * 512;
            if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                self.deep |= depth == 0;
                if self.deep {
                    return Ok(());
                }
                match open_directory(directory, &name) {
                    Ok(inner) => self.add(inner.as_fd(), depth - 1, limits)?,
                    Err(error) => self.closed |= is_denied(&error),
                }
            }
        }
        Ok(())
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Removes everything in `top`. Directories in it are emptied of their files, their directories
/// moved up into `top` under new names, and removed: so neither deep nesting nor long paths matter,
/// and two descriptors are enough.
fn empty(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut moved = 0u64;
    let mut last = Ok(());
    for _ in 0..ROUNDS {
        let mut left = names(top, BATCH)?;
        if left.is_empty() {
            return Ok(());
        }
        while let Some(name) = left.pop() {
            last = remove(top, &name, &mut moved, &mut left);
        }
    }
    last.and(Err(io::Error::other(
        "files are being made faster than they can be removed",
    )))
}

/// Removes `name` from `top`; directories found in it are moved to `top` and added to `left`.
fn remove(top: BorrowedFd<'_>, name: &CStr, moved: &mut u64, left: &mut Vec<CString>) -> io::Result<()> {
    match unlink(top, name, 0) {
        // Linux says EISDIR, others EPERM.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EISDIR | libc::EPERM | libc::EACCES)) => {}
        done => return done,
    }
    let inner = open_to_empty(top, name)?;
    for name in names(inner.as_fd(), BATCH)? {
        if unlink(inner.as_fd(), &name, 0).is_ok() {
            continue;
        }
        // Moving a directory changes its "..", for which one needs rights in it.
        open_to_empty(inner.as_fd(), &name)?;
        loop {
            *moved += 1;
            let new = CString::new(format!("wmtp-{moved}")).map_err(io::Error::other)?;
            // SAFETY: open descriptors and names that end with a zero. Never replaces anything.
            let done = unsafe {
                let (from, to) = (inner.as_raw_fd(), top.as_raw_fd());
                libc::syscall(
                    libc::SYS_renameat2,
                    from,
                    name.as_ptr(),
                    to,
                    new.as_ptr(),
                    libc::RENAME_NOREPLACE,
                )
            };
            if done == 0 {
                left.push(new);
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
        }
    }
    match unlink(top, name, libc::AT_REMOVEDIR) {
        // More than a batch, or somebody makes files: the next round continues.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => done,
    }
}

fn unlink(directory: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: an open descriptor and a name that ends with a zero.
    match unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens the directory `name` for listing, giving ourselves the right first where it is missing.
fn open_directory(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    match open_at(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            give_rights(directory, name)?;
            open_at(directory, name)
        }
        opened => opened,
    }
}

/// Opens the directory `name` for emptying: listing may be allowed where changing is not.
fn open_to_empty(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let opened = open_directory(directory, name)?;
    // SAFETY: an open descriptor. Where this fails, removing says why.
    unsafe { libc::fchmod(opened.as_raw_fd(), 0o700) };
    Ok(opened)
}

fn open_at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: an open descriptor and a name that ends with a zero; what is opened is ours alone.
    unsafe {
        match libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Mode 700 for the directory `name`, which must be one and no link: it is opened without rights
/// first, and what is open is changed, through its name in /proc.
fn give_rights(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: as in `open_at`.
    let held = unsafe {
        match libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) {
            -1 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC);
    options.open(path).map(File::into)
}

/// Names in a directory, without `.` and `..`, at most `most`: where files are made as fast as they
/// are listed, the list has no end.
fn names(directory: BorrowedFd<'_>, most: u64) -> io::Result<Vec<CString>> {
    let own = open_at(directory, c".")?; // with a reading position of its own
    let mut names = Vec::new();
    // SAFETY: `fdopendir` takes the descriptor over and `closedir` closes it. An entry is valid
    // until the next `readdir` on the same stream, which is ours alone; its name ends with a zero.
    unsafe {
        let stream = libc::fdopendir(own.as_raw_fd());
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        let _ = own.into_raw_fd();
        while let Some(entry) = libc::readdir64(stream).as_ref()
            && (names.len() as u64) < most
        {
            let name = CStr::from_ptr(entry.d_name.as_ptr());
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        libc::closedir(stream);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
    };

    fn scratch() -> (tempfile::TempDir, Scratch) {
        let temp = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(temp.path(), "print(1)", &[], None).unwrap();
        (temp, scratch)
    }

    fn left_in(temp: &tempfile::TempDir) -> usize {
        std::fs::read_dir(temp.path()).unwrap().count()
    }

    #[test]
    fn removal_follows_no_link_and_gives_itself_the_rights() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        std::fs::set_permissions(outside.path().join("kept"), PermissionsExt::from_mode(0o400)).unwrap();
        let (temp, scratch) = scratch();
        symlink(outside.path(), scratch.path().join("directory")).unwrap();
        symlink(outside.path().join("kept"), scratch.path().join("file")).unwrap();
        let locked = scratch.path().join("a/b/c");
        std::fs::create_dir_all(&locked).unwrap();
        std::fs::write(locked.join("file"), "x").unwrap();
        symlink(outside.path(), locked.join("link")).unwrap();
        for (name, mode) in [("a/b/c", 0o000), ("a/b", 0o500), ("a", 0o300)] {
            std::fs::set_permissions(scratch.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        drop(scratch);
        assert_eq!(left_in(&temp), 0);
        let kept = std::fs::metadata(outside.path().join("kept")).unwrap();
        assert_eq!(kept.permissions().mode() & 0o777, 0o400);
    }

    #[test]
    fn removal_knows_no_depth() {
        let (temp, scratch) = scratch();
        // Deeper than a path name or the number of open files allows.
        let mut at = scratch.directory().try_clone_to_owned().unwrap();
        for _ in 0..5000 {
            // SAFETY: an open descriptor and a name that ends with a zero.
            assert_eq!(unsafe { libc::mkdirat(at.as_raw_fd(), c"d".as_ptr(), 0o700) }, 0);
            at = open_at(at.as_fd(), c"d").unwrap();
        }
        assert_eq!(
            scratch.breach(std::process::id() as i32, &Limits::default()),
            Some(Breach::Files)
        );
        drop((at, scratch));
        assert_eq!(left_in(&temp), 0);
    }

    /// However the two threads are scheduled: removal either wins or gives up, and what it gave up on is gone once
    /// nobody makes files any more.
    #[test]
    fn removal_ends_though_files_are_being_made() {
        let (temp, scratch) = scratch();
        let path = scratch.path().to_owned();
        let parent = temp.path().to_owned();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (asked, made) = (stop.clone(), count.clone());
        let maker = std::thread::spawn(move || {
            for i in (0..7).cycle() {
                if asked.load(Ordering::Relaxed) {
                    break;
                }
                let inner = path.join(format!("d{i}"));
                let _ = std::fs::create_dir(&inner);
                if std::fs::write(inner.join("f"), "x").is_ok() || std::fs::write(path.join("f"), "x").is_ok() {
                    made.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        while count.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(scratch);
            let _ = done.send(());
        });
        let in_time = ended.recv_timeout(Duration::from_secs(120));
        stop.store(true, Ordering::Relaxed);
        maker.join().unwrap();
        in_time.expect("removal ends while files are still being made");
        let parent = open_path(&parent).unwrap();
        empty(parent.as_fd()).unwrap();
        assert_eq!(left_in(&temp), 0);
    }

    #[test]
    fn only_old_directories_that_nobody_holds_are_swept() {
        let (temp, scratch) = scratch();
        let old = std::time::SystemTime::now() - ABANDONED * 2;
        let make = |name: &str, time| {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.join("inner")).unwrap();
            File::open(&path).unwrap().set_modified(time).unwrap();
        };
        make("wmtp-run-old", old);
        make("wmtp-run-new", std::time::SystemTime::now());
        make("other", old);
        File::open(scratch.path()).unwrap().set_modified(old).unwrap();
        symlink(temp.path().join("other"), temp.path().join("wmtp-run-link")).unwrap();
        sweep(temp.path());
        assert!(scratch.path().exists(), "held by this process");
        let exists = |name| std::fs::symlink_metadata(temp.path().join(name)).is_ok();
        assert!(!exists("wmtp-run-old"));
        assert!(exists("wmtp-run-new") && exists("other/inner") && exists("wmtp-run-link"));
    }

    #[test]
    fn bytes_and_files_are_counted_with_those_that_have_no_name() {
        let (_temp, scratch) = scratch();
        let pid = std::process::id() as i32;
        let limits = Limits {
            disk_bytes: 1 << 20,
            files: 10,
            ..Limits::default()
        };
        assert_eq!(scratch.breach(pid, &limits), None);
        let file = scratch.path().join("file");
        let mut held = File::create(&file).unwrap();
        held.write_all(&vec![1; 2 << 20]).unwrap();
        held.sync_all().unwrap();
        assert_eq!(scratch.breach(pid, &limits), Some(Breach::Disk));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(scratch.breach(pid, &limits), Some(Breach::Disk), "still open");
        drop(held);
        assert_eq!(scratch.breach(pid, &limits), None);
        for i in 0..10 {
            std::fs::write(scratch.path().join(i.to_string()), "").unwrap();
        }
        assert_eq!(scratch.breach(pid, &limits), Some(Breach::Files));
    }

    #[test]
    fn extra_files_have_plain_names_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        let with = |name| Scratch::new(temp.path(), "", &[ExtraFile { name, bytes: b"x" }], None);
        assert_eq!(
            std::fs::read(with("data.txt").unwrap().path().join("data.txt")).unwrap(),
            b"x"
        );
        for name in ["", "..", "a/b", "/etc/x", "main.py"] {
            assert!(matches!(with(name), Err(SandboxError::Request(_))), "{name}");
        }
        assert_eq!(left_in(&temp), 0);
    }
}
