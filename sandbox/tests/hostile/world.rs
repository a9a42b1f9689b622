//! What hostile programs aim at, and whether it is as it was.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

/// Files outside, a sibling process, and a picture of everything that could change.
pub struct World {
    outside: tempfile::TempDir,
    temp: tempfile::TempDir,
    sibling: Child,
    library: PathBuf,
    before: BTreeMap<String, String>,
}

impl World {
    pub fn new() -> Self {
        let outside = tempfile::Builder::new().prefix("wmtp-outside-").tempdir().unwrap();
        fs::write(outside.path().join("secret"), "the secret").unwrap();
        fs::create_dir(outside.path().join("directory")).unwrap();
        fs::write(outside.path().join("directory/file"), "x").unwrap();
        symlink("secret", outside.path().join("link")).unwrap();
        // SAFETY: plain values. Orphans come to this process, where they can be seen.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        let ask = Command::new(crate::common::python())
            .args(["-I", "-c", "import os; print(os.__file__)"])
            .output();
        let library = PathBuf::from(String::from_utf8(ask.unwrap().stdout).unwrap().trim_end());
        let mut world = Self {
            outside,
            temp: tempfile::tempdir().unwrap(),
            sibling: Command::new("sleep").arg("600").spawn().unwrap(),
            library,
            before: BTreeMap::new(),
        };
        world.before = world.picture();
        world
    }

    /// Where programs get their temporary directories.
    pub fn temp(&self) -> &Path {
        self.temp.path()
    }

    /// The source with the names of this world's things.
    pub fn fill(&self, source: &str) -> String {
        source
            .replace("@OUTSIDE@", self.outside.path().to_str().unwrap())
            .replace("@SIBLING@", &self.sibling.id().to_string())
            .replace("@HARNESS@", &std::process::id().to_string())
            .replace("@LIBRARY@", self.library.to_str().unwrap())
    }

    /// Everything that is different, and processes that should not be there.
    pub fn changes(&self) -> Vec<String> {
        let now = self.picture();
        let names = self.before.keys().chain(now.keys());
        let mut changes: Vec<String> = names
            .filter(|name| self.before.get(*name) != now.get(*name))
            .map(|name| format!("{name}: {:?} became {:?}", self.before.get(name), now.get(name)))
            .collect();
        changes.dedup();
        // What was killed with its group may take a moment to go.
        let mut left = Vec::new();
        for _ in 0..100 {
            left = self.survivors();
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        changes.extend(left.into_iter().map(|process| format!("left running: {process}")));
        changes
    }

    fn picture(&self) -> BTreeMap<String, String> {
        let mut picture = BTreeMap::new();
        let mut keep = |name: String, value: String| picture.insert(name, value);
        for path in tree(self.outside.path()).into_iter().chain([self.library.clone()]) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = fs::read(&path).unwrap_or_default();
            let times = (meta.mtime(), meta.mtime_nsec());
            let all = (
                meta.mode(),
                meta.uid(),
                meta.nlink(),
                times,
                content.len(),
                content.first().copied(),
            );
            keep(path.display().to_string(), format!("{all:?}"));
        }
        for dir in [
            "/tmp",
            "/var/tmp",
            "/dev/shm",
            "/dev/mqueue",
            self.library.parent().unwrap().to_str().unwrap(),
        ] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                // Programs call what they leave `hostile`; others may use these places meanwhile.
                if name.contains("hostile") || name.starts_with("core") {
                    keep(format!("{dir}/{name}"), String::new());
                }
            }
        }
        for entry in fs::read_dir(self.temp()).unwrap().flatten() {
            keep(entry.path().display().to_string(), String::new());
        }
        for kind in ["shm", "sem", "msg"] {
            let table = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
            keep(format!("System V {kind}"), table.lines().count().to_string());
        }
        for (who, pid) in [("sibling", self.sibling.id()), ("harness", std::process::id())] {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let processors = status
                .lines()
                .find(|line| line.starts_with("Cpus_allowed:"))
                .unwrap_or_default();
            let stopped = matches!(fields[0], "Z" | "T" | "t" | "X");
            keep(
                who.to_owned(),
                format!("stopped {stopped}, priority {:?}, {processors}", &fields[15..17]),
            );
            let files = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            keep(format!("limits of {who}"), files);
        }
        picture
    }

    /// Children of this process, adopted ones included, and processes that sit in the temporary
    /// directory; but for the sibling and zombies of other threads' making.
    fn survivors(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            let (state, parent) = (fields.next(), fields.next().and_then(|ppid| ppid.parse::<u32>().ok()));
            let ours = parent == Some(std::process::id()) && state != Some("Z") && !self.known(pid);
            let inside = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.temp()));
            if ours || inside {
                found.push(stat);
            }
        }
        found
    }

    /// The sibling, and what the other tests of this program have running.
    fn known(&self, pid: u32) -> bool {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let elsewhere = cwd.to_string_lossy().contains("wmtp-run-") && !cwd.starts_with(self.temp());
        pid == self.sibling.id() || command.contains("--skip again_") || elsewhere || command.is_empty()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.sibling.kill();
        let _ = self.sibling.wait();
    }
}

fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut paths = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => paths.extend(tree(&entry.path())),
            false => paths.push(entry.path()),
        }
    }
    paths
}
