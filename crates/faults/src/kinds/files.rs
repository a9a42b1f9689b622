//! Files of the run's directory that are damaged, cut or removed while no process works on it.

use crate::{
    compare::Scar,
    problem::{Outcome, Problem},
    schedule::Schedule,
    world,
};
use rand::RngExt;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What may be said of a run whose checkpoints or settings are gone.
const GONE: [&str; 2] = ["there is no run", "no complete checkpoint"];

/// One bit of any file is flipped.
pub fn damaged(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    schedule.interrupt()?;
    let Some(file) = any_file(schedule, |path| fs::metadata(path).is_ok_and(|m| m.len() > 0)) else {
        return schedule.finish();
    };
    let path = schedule.run().join(&file);
    let mut bytes = fs::read(&path).map_err(Problem::io("reading", &path))?;
    let at = schedule.random.random_range(0..bytes.len());
    bytes[at] ^= 1 << schedule.random.random_range(0..8_u32);
    let mut causes = names(&file);
    causes.extend(words(&bytes, at));
    let mut scars = scarred(schedule, &path);
    scars.push(Scar::Flipped(file.clone()));
    // In place: hard links of the file have the damage, too.
    fs::write(&path, &bytes).map_err(Problem::io("writing", &path))?;
    resume(schedule, &file, &causes, &scars)
}

/// Any file is cut, emptied or removed, or a directory of the run is.
pub fn cut(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    schedule.interrupt()?;
    let Some(file) = any_file(schedule, |_| true) else {
        return schedule.finish();
    };
    let path = schedule.run().join(&file);
    let length = fs::metadata(&path).map_err(Problem::io("reading", &path))?.len();
    let mut scars = scarred(schedule, &path);
    scars.push(Scar::Cut(file.clone()));
    let (what, done) = match schedule.random.random_range(0..4) {
        0 => ("removed", fs::remove_file(&path)),
        1 => ("emptied", truncate(&path, 0)),
        2 if file.components().count() > 1 => {
            let parent = path.parent().unwrap_or(&path);
            ("removed with its directory", fs::remove_dir_all(parent))
        }
        _ => ("cut", truncate(&path, schedule.random.random_range(0..=length))),
    };
    done.map_err(Problem::io("cutting", &path))?;
    let mut causes = names(&file);
    causes.extend(GONE.map(str::to_owned));
    resume(schedule, &file, &causes, &scars).map_err(|problem| Problem::Wrong(format!("{what}: {problem}")))
}

/// The checkpoints, but `last`, that a file belongs to under any of its names.
fn scarred(schedule: &Schedule<'_>, file: &Path) -> Vec<Scar> {
    let identity = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let own = identity(file);
    let checkpoints = schedule.run().join("checkpoints");
    let same = world::files(&checkpoints)
        .into_iter()
        .filter(|path| identity(path) == own);
    let names = same.filter_map(|path| {
        let name = path.strip_prefix(&checkpoints).ok()?.components().next()?;
        Some(name.as_os_str().to_string_lossy().into_owned())
    });
    names.filter(|name| name != "last").map(Scar::Checkpoint).collect()
}

fn truncate(path: &Path, bytes: u64) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.set_len(bytes)
}

/// Any file of the run's directory that is `fit`, by its path in it.
fn any_file(schedule: &mut Schedule<'_>, fit: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let run = schedule.run();
    let files: Vec<PathBuf> = world::files(&run).into_iter().filter(|path| fit(path)).collect();
    if files.is_empty() {
        return None;
    }
    let file = &files[schedule.random.random_range(0..files.len())];
    file.strip_prefix(&run).ok().map(Path::to_owned)
}

/// What an error may call a file: its name, or its directory's.
fn names(file: &Path) -> Vec<String> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let parent = file.parent().and_then(name).map(|parent| format!("{parent}`"));
    name(file).into_iter().chain(parent).collect()
}

/// What an error may quote of a line of settings with a damaged byte: its key, and the word with the byte.
fn words(bytes: &[u8], at: usize) -> Vec<String> {
    let is_line = |byte: &u8| *byte == b'\n';
    let from = bytes[..at].iter().rposition(is_line).map_or(0, |n| n + 1);
    let to = bytes[at..].iter().position(is_line).map_or(bytes.len(), |n| at + n);
    let Ok(line) = std::str::from_utf8(&bytes[from..to]) else {
        return Vec::new();
    };
    let key = line.split(':').next().unwrap_or_default();
    let key = key.trim().trim_matches(['"', '-', ' ']);
    let is_word = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let inside = at - from;
    let before = line.get(..inside).unwrap_or_default();
    let start = before.rfind(|c| !is_word(c)).map_or(0, |n| n + 1);
    let word = line.get(start..).unwrap_or_default();
    let word: String = word.chars().take_while(|c| is_word(*c)).collect();
    [key.to_owned(), word]
        .into_iter()
        .filter(|word| word.len() > 2)
        .collect()
}

/// Resumes the run: it ends as the undisturbed one, but for the scars, or is refused with the file named.
fn resume(schedule: &mut Schedule<'_>, file: &Path, causes: &[String], scars: &[Scar]) -> Result<Outcome, Problem> {
    let about = |problem: Problem| Problem::Wrong(format!("{}: {problem}", file.display()));
    let mut command = schedule.world.resume(schedule.home(), &schedule.config, world::RUN);
    let ended = schedule.start(&mut command)?.wait().map_err(about)?;
    if !ended.is_success() {
        ended.check_refusal(causes).map_err(about)?;
        return Ok(Outcome::Refused);
    }
    schedule.compare(scars).map_err(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_line_is_known_by_its_key_and_by_the_damaged_word() {
        let text = b"project: wmtp\ndevices:\n  backend: flez\nseed: 42\n";
        assert_eq!(words(text, 36), ["backend", "flez"]);
        assert_eq!(words(text, 44), ["seed"]);
        assert_eq!(words(b"{\n  \"format\": 1,\n  \"uid\": \"ab9\"\n}", 28), ["uid", "ab9"]);
        assert_eq!(words(&[0xff, b'\n', b'a'], 0), Vec::<String>::new());
        assert_eq!(names(Path::new("checkpoints/last/model.bin")), ["model.bin", "last`"]);
    }
}
