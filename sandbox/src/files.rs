//! The Landlock layer: which files a program may open, and for what.

use crate::{SandboxError, interpreter::Interpreter, io_error};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Devices that give nothing away and keep nothing. Opening is all that they are good for: `ioctl`
/// on them is denied where Landlock knows of it, and filtered anyway.
const DEVICES: [(&str, bool); 4] = [
    ("/dev/null", true),
    ("/dev/zero", true),
    ("/dev/random", false),
    ("/dev/urandom", false),
];

/// The rules that are the same for every program, their paths already open.
#[derive(Debug)]
pub(crate) struct FileRules {
    abi: ABI,
    paths: Vec<(PathFd, BitFlags<AccessFs>)>,
}

/// The kernel's version of Landlock, or why there is none.
pub(crate) fn landlock_version() -> io::Result<i32> {
    const VERSION: u32 = 1; // LANDLOCK_CREATE_RULESET_VERSION
    // SAFETY: a null pointer of size 0 with this flag asks for the version; nothing is read.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION,
        )
    };
    if version < 1 {
        return Err(io::Error::last_os_error());
    }
    Ok(version as i32)
}

impl FileRules {
    /// Opens everything that `python` needs, and `more`.
    pub(crate) fn new(version: i32, python: &Interpreter, more: &[std::path::PathBuf]) -> Result<Self, SandboxError> {
        let read_file: BitFlags<AccessFs> = AccessFs::ReadFile.into();
        let mut paths = Vec::new();
        let mut add = |path: &Path, access: BitFlags<AccessFs>| -> Result<(), SandboxError> {
            let fd = PathFd::new(path)
                .map_err(|error| io_error("open a path that programs may use")(io::Error::other(error)))?;
            paths.push((fd, access));
            Ok(())
        };
        for path in &python.executed {
            add(path, read_file | AccessFs::Execute)?;
        }
        for path in python.readable.iter().chain(more) {
            let list = if path.is_dir() {
                AccessFs::ReadDir.into()
            } else {
                BitFlags::EMPTY
            };
            add(path, read_file | list)?;
        }
        for (path, writable) in DEVICES {
            if Path::new(path).exists() {
                let write = if writable {
                    AccessFs::WriteFile.into()
                } else {
                    BitFlags::EMPTY
                };
                add(Path::new(path), read_file | write)?;
            }
        }
        Ok(Self {
            abi: ABI::from(version),
            paths,
        })
    }

    /// A rule set, ready to be put on the child: the common rules, and the right to make, change
    /// and remove files, directories and symbolic links beneath `directory`. No devices, sockets or
    /// named pipes anywhere, nothing executable, no TCP, and no abstract socket or process outside.
    pub(crate) fn with_directory(&self, directory: impl AsFd) -> io::Result<OwnedFd> {
        let own = AccessFs::from_all(self.abi)
            & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock)
            & !(AccessFs::MakeFifo | AccessFs::IoctlDev);
        let build = || -> Result<Option<OwnedFd>, landlock::RulesetError> {
            let mut ruleset = Ruleset::default()
                .set_compatibility(CompatLevel::BestEffort)
                .handle_access(AccessFs::from_all(self.abi))?;
            if self.abi >= ABI::V4 {
                ruleset = ruleset.handle_access(AccessNet::from_all(self.abi))?;
            }
            if self.abi >= ABI::V6 {
                ruleset = ruleset.scope(Scope::from_all(self.abi))?;
            }
            let mut created = ruleset.create()?;
            for (fd, access) in &self.paths {
                created = created.add_rule(PathBeneath::new(fd, *access))?;
            }
            Ok(created.add_rule(PathBeneath::new(directory, own))?.into())
        };
        build()
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("the kernel took no Landlock rules"))
    }
}
