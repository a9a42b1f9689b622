//! The interpreter: where it is, which version, and which files it needs, all asked of itself.

use crate::SandboxError;
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Prints `key=value` records. Directories of the library come from `sysconfig` and from `sys.path`
/// where it lies under one of the installation's own roots: a path that an editable install adds,
/// somebody's project, does not belong to the interpreter. Shared libraries come from the list of
/// mapped files after the extension modules with foreign libraries have been loaded.
const ASK: &str = r#"
import os, sys, sysconfig
records = []
def put(key, *values):
    records.extend(key + "=" + value for value in values if value)
put("exe", sys.executable)
put("version", "%d.%d.%d" % sys.version_info[:3])
paths = sysconfig.get_paths()
put("dir", *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")))
put("dir", sysconfig.get_config_var("DESTSHARED"))
roots = {p for q in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix) for p in (q, os.path.realpath(q))}
put("dir", *(p for p in sys.path if any(os.path.realpath(p).startswith(r.rstrip("/") + "/") for r in roots)))
put("file", os.path.join(sys.prefix, "pyvenv.cfg"))
put("exec", os.path.realpath(sys.executable))
for name in ("hashlib", "ssl", "ctypes", "sqlite3", "lzma", "bz2", "zlib", "decimal", "uuid", "readline"):
    try:
        __import__(name)
    except ImportError:
        pass
try:
    with open("/proc/self/maps") as maps:
        mapped = {line.split(None, 5)[5].rstrip("\n") for line in maps if line.count("/")}
except OSError:
    mapped = set()
put("mapped", *(m for m in sorted(mapped) if m.startswith("/") and os.path.isfile(m)))
sys.stdout.buffer.write(b"\0".join(os.fsencode(r) for r in records))
"#;

/// Public data of the system that the standard library or libc reads, where it exists: the list of
/// libraries, locales, time zones. The local time zone is not among them: programs see UTC.
const SYSTEM_DATA: [&str; 3] = ["/etc/ld.so.cache", "/usr/lib/locale", "/usr/share/zoneinfo"];

/// What was found out about an interpreter.
#[derive(Clone, Debug)]
pub(crate) struct Interpreter {
    pub(crate) executable: PathBuf,
    pub(crate) version: String,
    /// Files and directories that it reads, existing, without repetitions.
    pub(crate) readable: Vec<PathBuf>,
    /// Files that the kernel executes at its start: itself and the dynamic loader.
    pub(crate) executed: Vec<PathBuf>,
}

impl Interpreter {
    /// Asks `command`.
    pub(crate) fn find(command: &Path) -> Result<Self, SandboxError> {
        let fail = |reason: String| SandboxError::NoPython {
            command: command.display().to_string(),
            reason,
        };
        let answer = Command::new(command)
            .args(["-I", "-c", ASK])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| fail(error.to_string()))?;
        let records: Vec<(&[u8], PathBuf)> = answer
            .stdout
            .split(|byte| *byte == 0)
            .filter_map(|record| {
                let at = record.iter().position(|byte| *byte == b'=')?;
                let (key, value) = record.split_at(at);
                Some((key, PathBuf::from(OsStr::from_bytes(value.get(1..)?))))
            })
            .collect();
        let all = |wanted: &'static str| {
            let chosen = records.iter().filter(move |(key, _)| *key == wanted.as_bytes());
            chosen.map(|(_, value)| value.clone())
        };
        let version = all("version").next().map(|v| v.display().to_string());
        let (Some(executable), Some(version)) = (all("exe").next(), version) else {
            return Err(fail(format!(
                "it is no Python 3 that knows its own path ({})",
                answer.status
            )));
        };
        if !answer.status.success() || !version.starts_with("3.") {
            return Err(fail(format!("it is Python {version} and ended with {}", answer.status)));
        }
        let mut readable: Vec<PathBuf> = all("dir").filter(|dir| !is_broad(dir)).chain(all("file")).collect();
        let mut executed: Vec<PathBuf> = all("exec").collect();
        for mapped in all("mapped") {
            if is_loader(&mapped) {
                executed.push(mapped.clone());
            }
            match mapped.parent() {
                Some(dir) if is_library(&mapped) && !is_broad(dir) => readable.push(dir.to_owned()),
                _ => readable.push(mapped),
            }
        }
        readable.extend(executed.iter().cloned());
        readable.extend(SYSTEM_DATA.iter().map(PathBuf::from));
        Ok(Self {
            executable,
            version,
            readable: outermost(readable),
            executed: outermost(executed),
        })
    }
}

/// `ld-linux-x86-64.so.2` and its kin, or musl's `ld-musl-x86_64.so.1`.
fn is_loader(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    (name.starts_with("ld-") || name.starts_with("ld.so")) && name.contains(".so")
}

fn is_library(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().contains(".so"))
}

/// Whether a directory is too much to give away as a whole: the root, the system's trees, HOME, the
/// temporary and the working directory, and whatever holds one of these.
fn is_broad(dir: &Path) -> bool {
    let Ok(dir) = dir.canonicalize() else { return true };
    let system = [
        "/",
        "/usr",
        "/usr/local",
        "/etc",
        "/var",
        "/home",
        "/root",
        "/tmp",
        "/opt",
    ];
    let homes = [
        std::env::var_os("HOME").map(PathBuf::from),
        std::env::current_dir().ok(),
    ];
    let places = system.iter().map(PathBuf::from).chain(homes.into_iter().flatten());
    places
        .chain([std::env::temp_dir()])
        .filter_map(|place| place.canonicalize().ok())
        .any(|place| place.starts_with(&dir))
}

/// Existing paths, resolved, without those that lie in another of them.
fn outermost(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
    paths.sort();
    paths.dedup();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.iter().any(|outer| path.starts_with(outer)) {
            kept.push(path);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outermost_paths_stay_and_broad_directories_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        std::fs::create_dir_all(at("ab")).unwrap();
        let kept = outermost(vec![at("a/b/c"), at("ab"), at("a/b"), at("none"), at("a/b")]);
        assert_eq!(kept, [at("a/b"), at("ab")]);
        assert!(is_broad(Path::new("/")) && is_broad(Path::new("/usr")) && is_broad(&std::env::temp_dir()));
        assert!(is_broad(&std::env::current_dir().unwrap()) && !is_broad(&at("a")));
        assert!(
            is_loader(Path::new("/lib64/ld-linux-x86-64.so.2")) && is_loader(Path::new("/lib/ld-musl-x86_64.so.1"))
        );
        assert!(!is_loader(Path::new("/lib/libc.so.6")));
    }

    #[test]
    fn an_interpreter_names_files_that_exist_and_nothing_broad() {
        let python = Interpreter::find(Path::new("python3")).expect("this test needs python3");
        assert!(python.version.starts_with("3."));
        assert!(!python.executed.is_empty());
        for path in &python.readable {
            assert!(
                path.exists() && (path.is_file() || !is_broad(path)),
                "{}",
                path.display()
            );
        }
    }
}
