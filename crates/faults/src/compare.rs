//! Whether a run ended as the undisturbed one, bit for bit: weights, moments, value head, and what it recorded.

use crate::moments;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Files of a run's directory that are compared as they are.
const SAME: &[&str] = &[
    "critic/value_head.safetensors",
    "critic/report.json",
    "critic/metrics.jsonl",
    "weights.jsonl",
    "tokens.jsonl",
    "steps.jsonl",
    "metrics.jsonl",
    "recipe.yaml",
];
/// What lines of `metrics.jsonl` have from the clock and from the machine.
const CLOCK: [&str; 2] = ["tok_s", "mem"];
/// What `trainer.json` has of it: the size of `metrics.jsonl`, whose figures from the clock have several lengths.
const TRAINER_CLOCK: [&str; 1] = ["metrics_bytes"];

/// What was done to a file of the run, which has no second copy to be restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scar {
    /// A bit of this log, or report, was flipped: the line with it, or the two that it joins, may differ.
    Flipped(PathBuf),
    /// This log was cut or removed: lines may be missing, and one may be broken.
    Cut(PathBuf),
    /// Something of this checkpoint is not as it was written. A run that is resumed at another one does not look.
    Checkpoint(String),
}

/// Every difference between two runs' directories, a sentence each; none where they are alike. `scars` are logs
/// that were damaged on purpose.
pub fn differences(expected: &Path, found: &Path, scars: &[Scar]) -> Vec<String> {
    let mut differences = Vec::new();
    for name in SAME {
        if expected.join(name).exists() {
            let problem = compare_file(expected, found, Path::new(name), scars).err();
            differences.extend(problem.map(|problem| format!("`{name}`: {problem}")));
        }
    }
    let is_scarred = |name: &String| scars.contains(&Scar::Checkpoint(name.clone()));
    let (mut names, mut ours) = (checkpoints(expected), checkpoints(found));
    for names in [&mut names, &mut ours] {
        names.retain(|name| !is_scarred(name));
    }
    if names != ours {
        differences.push(format!("checkpoints {ours:?} instead of {names:?}"));
    }
    for name in names.intersection(&ours) {
        let at = |run: &Path| run.join("checkpoints").join(name);
        let problems = compare_checkpoint(&at(expected), &at(found), scars);
        differences.extend(
            problems
                .into_iter()
                .map(|problem| format!("checkpoints/{name}: {problem}")),
        );
    }
    differences
}

/// Names of the checkpoints, but `previous`: which step it has depends on where the run was resumed.
pub fn checkpoints(run: &Path) -> BTreeSet<String> {
    let mut names = names(&run.join("checkpoints"));
    names.retain(|name| name != "previous" && !name.starts_with('.'));
    names
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn compare_checkpoint(expected: &Path, found: &Path, scars: &[Scar]) -> Vec<String> {
    let mut of_trainer = TRAINER_CLOCK.to_vec();
    if scars.iter().any(|scar| matches!(scar, Scar::Cut(_))) {
        // The sizes of the logs.
        of_trainer.push("recorded");
    }
    let (files, ours) = (names(expected), names(found));
    let mut problems = Vec::new();
    if files != ours {
        problems.push(format!("files {ours:?} instead of {files:?}"));
    }
    for name in files.intersection(&ours) {
        let (expected, found) = (expected.join(name), found.join(name));
        let problem = match name.as_str() {
            // Hashes of the moments' file, which may hold the same values in another type.
            "manifest.json" => None,
            "optimizer.bpk" => moments::compare(&expected, &found).err(),
            "trainer.json" => compare_json(&expected, &found, &of_trainer).err(),
            _ => compare_bytes(&expected, &found).err(),
        };
        problems.extend(problem.map(|problem| format!("`{name}`: {problem}")));
    }
    problems
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| e.to_string())
}

fn text(path: &Path) -> Result<String, String> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

fn compare_bytes(expected: &Path, found: &Path) -> Result<(), String> {
    let (expected, found) = (read(expected)?, read(found)?);
    if expected == found {
        return Ok(());
    }
    let at = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    Err(format!(
        "{} bytes instead of {}, the first other one at {at}",
        found.len(),
        expected.len()
    ))
}

fn compare_json(expected: &Path, found: &Path, but: &[&str]) -> Result<(), String> {
    let json = |path: &Path| serde_json::from_slice::<Value>(&read(path)?).map_err(|e| e.to_string());
    let (mut expected, mut found) = (json(expected)?, json(found)?);
    for key in but {
        for value in [&mut expected, &mut found] {
            if let Some(map) = value.as_object_mut() {
                map.remove(*key);
            }
        }
    }
    if expected == found {
        Ok(())
    } else {
        Err(format!("{found} instead of {expected}"))
    }
}

fn compare_file(expected: &Path, found: &Path, name: &Path, scars: &[Scar]) -> Result<(), String> {
    let is_log = name.extension().is_some_and(|extension| extension == "jsonl");
    if !is_log {
        // Figures for people, without a hash.
        if name.ends_with("report.json") && scars.contains(&Scar::Flipped(name.to_owned())) {
            return Ok(());
        }
        return compare_bytes(&expected.join(name), &found.join(name));
    }
    let lines = |text: &str| text.lines().map(without_clock).collect::<Vec<_>>();
    let expected = lines(&text(&expected.join(name))?);
    if scars.contains(&Scar::Cut(name.to_owned())) {
        let found = text(&found.join(name)).unwrap_or_default();
        return is_part_of(&lines(&found), &expected);
    }
    let found = lines(&text(&found.join(name))?);
    if scars.contains(&Scar::Flipped(name.to_owned())) {
        return is_but_one(&found, &expected);
    }
    match (0..expected.len().max(found.len())).find(|&n| expected.get(n) != found.get(n)) {
        None => Ok(()),
        Some(n) => Err(format!(
            "line {} of {} is {:?} instead of {:?} of {}",
            n + 1,
            found.len(),
            found.get(n),
            expected.get(n),
            expected.len()
        )),
    }
}

/// A line without its figures from the clock. As text: parsed numbers would be rounded.
fn without_clock(line: &str) -> String {
    let mut line = line.to_owned();
    for key in CLOCK {
        let Some(from) = line.find(&format!("\"{key}\":")) else {
            continue;
        };
        let length = line[from..].find([',', '}']).unwrap_or(line.len() - from);
        line.replace_range(from..from + length, "");
    }
    line
}

/// Lines of a log with one flipped bit: all others are there, in their order.
fn is_but_one(found: &[String], expected: &[String]) -> Result<(), String> {
    let before = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let (rest, ours) = (&expected[before..], &found[before..]);
    let after = rest.iter().rev().zip(ours.iter().rev());
    let after = after.take_while(|(a, b)| a == b).count();
    if rest.len() - after <= 2 && ours.len() - after <= 2 {
        Ok(())
    } else {
        Err(format!("more than one line differs, from line {} on", before + 1))
    }
}

/// Lines of a log that was cut: each is one of those expected, in their order, but for one that is broken.
fn is_part_of(found: &[String], expected: &[String]) -> Result<(), String> {
    let mut left = expected.iter();
    let mut broken = 0;
    for line in found.iter().filter(|line| !line.is_empty()) {
        let here = left.clone();
        if left.any(|other| other == line) {
            continue;
        }
        left = here;
        broken += 1;
        if broken > 1 || expected.contains(line) {
            return Err(format!("the line {line:?} stands where it does not belong"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(metrics: &str, weights: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let last = dir.path().join("checkpoints/last");
        fs::create_dir_all(&last).expect("a checkpoint");
        fs::write(dir.path().join("metrics.jsonl"), metrics).expect("a log");
        fs::write(last.join("model.safetensors"), weights).expect("weights");
        fs::write(last.join("trainer.json"), "{\"step\": 2, \"metrics_bytes\": 90}").expect("a state");
        dir
    }

    const METRICS: &str = "{\"step\":1,\"loss\":0.30000000000000004,\"tok_s\":12.5,\"mem\":7}\n\
                           {\"step\":2,\"loss\":0.25,\"tok_s\":11.0,\"mem\":8}\n\
                           {\"step\":3,\"loss\":0.125,\"tok_s\":11.0,\"mem\":9}\n";

    #[test]
    fn what_the_clock_decides_may_differ_and_nothing_else() {
        let whole = run(METRICS, b"weights");
        let compare = |metrics: &str, weights: &[u8]| {
            let other = run(metrics, weights);
            fs::write(
                other.path().join("checkpoints/last/trainer.json"),
                "{\"step\": 2, \"metrics_bytes\": 91}",
            )
            .expect("a state");
            differences(whole.path(), other.path(), &[])
        };
        let slower = METRICS.replace("12.5", "3.25").replace("\"mem\":8", "\"mem\":80");
        assert_eq!(compare(&slower, b"weights"), Vec::<String>::new());
        let other = compare(&METRICS.replace("0.30000000000000004", "0.3"), b"weights");
        assert!(other.len() == 1 && other[0].contains("metrics.jsonl"), "{other:?}");
        let other = compare(METRICS, b"Weights");
        assert!(other.len() == 1 && other[0].contains("at 0"), "{other:?}");
    }

    #[test]
    fn a_missing_checkpoint_and_another_step_are_seen() {
        let (whole, other) = (run(METRICS, b"w"), run(METRICS, b"w"));
        let last = other.path().join("checkpoints/last");
        fs::write(last.join("trainer.json"), "{\"step\": 3, \"metrics_bytes\": 90}").expect("a state");
        let found = differences(whole.path(), other.path(), &[]);
        assert!(found.len() == 1 && found[0].contains("\"step\":3"), "{found:?}");
        fs::remove_dir_all(&last).expect("a directory to remove");
        let found = differences(whole.path(), other.path(), &[]);
        assert!(found.len() == 1 && found[0].starts_with("checkpoints {}"), "{found:?}");
        let scars = [Scar::Checkpoint("last".into())];
        assert_eq!(differences(whole.path(), other.path(), &scars), Vec::<String>::new());
    }

    #[test]
    fn scars_of_logs_excuse_what_they_touched_and_no_more() {
        let whole = run(METRICS, b"w");
        let compare = |metrics: &str, scar: Scar| {
            let other = run(metrics, b"w");
            differences(whole.path(), other.path(), &[scar]).len()
        };
        let flipped = || Scar::Flipped("metrics.jsonl".into());
        let cut = || Scar::Cut("metrics.jsonl".into());
        assert_eq!(compare(&METRICS.replace("0.25", "0.35"), flipped()), 0);
        assert_eq!(compare(&METRICS.replacen('\n', "J", 1), flipped()), 0);
        let two_apart = METRICS.replace("0.125", "0.5").replace("0.30000000000000004", "0.3");
        assert_eq!(compare(&two_apart, flipped()), 1);
        let lines: Vec<&str> = METRICS.lines().collect();
        let joined = |lines: &[&str]| lines.join("\n");
        assert_eq!(compare(&joined(&[lines[0], &lines[1][..20], lines[2]]), cut()), 0);
        assert_eq!(compare(lines[2], cut()), 0);
        assert_eq!(compare("", cut()), 0);
        // A step twice, lines in another order, two broken ones.
        assert_eq!(compare(&joined(&[lines[0], lines[2], lines[1]]), cut()), 1);
        assert_eq!(compare(&joined(&[lines[0], lines[0]]), cut()), 1);
        assert_eq!(compare(&joined(&[&lines[0][..9], &lines[1][..20], lines[2]]), cut()), 1);
    }
}
