//! `config.yaml` and `recipe.yaml` of a run that is resumed: they are what the run wrote, or the run is refused.

use crate::{
    FileHash, RunError, RunRecord,
    file::{CONFIG, RECIPE, RECORD},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Sections that `config.yaml` has had in every version.
const SECTIONS: [&str; 6] = ["devices:", "paths:", "project:", "seed:", "storage:", "tracking:"];

impl RunRecord {
    /// `run.json` of a run that is resumed.
    ///
    /// # Errors
    /// It can't be read, or is damaged.
    pub fn of_run(dir: &Path) -> Result<Self, RunError> {
        let path = dir.join(RECORD);
        let text = fs::read(&path).map_err(RunError::io("reading", &path))?;
        serde_json::from_slice(&text).map_err(|error| RunError::Damaged {
            problem: format!("it is not JSON: {error}"),
            path,
        })
    }

    /// Checks that the settings files in `dir` are those that the run wrote: by their hashes, and where an older
    /// version recorded none, that none is empty and `config.yaml` has all sections.
    ///
    /// # Errors
    /// The first file that is missing, empty, cut or another.
    pub fn check_settings_files(&self, dir: &Path) -> Result<(), RunError> {
        // A change of settings writes `run.json` before the recipe.
        let recipe = [&self.recipe_sha256, &self.recipe_sha256_before];
        for (name, known) in [(CONFIG, vec![&self.config_sha256]), (RECIPE, recipe.into())] {
            let path = dir.join(name);
            let known: Vec<&String> = known.into_iter().flatten().collect();
            if known.is_empty() {
                check_content(name, path)?;
                continue;
            }
            let found = match FileHash::of(&path) {
                Ok(hash) => hash.sha256,
                Err(error) => return Err(unreadable(path, error)),
            };
            if !known.contains(&&found) {
                return Err(RunError::Altered {
                    path,
                    found,
                    expected: known[0].clone(),
                });
            }
        }
        Ok(())
    }
}

fn check_content(name: &str, path: PathBuf) -> Result<(), RunError> {
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return Err(unreadable(path, error)),
    };
    let has = |section: &&str| text.lines().any(|line| line.starts_with(section));
    let problem = if text.trim().is_empty() {
        "it is empty".to_owned()
    } else {
        match SECTIONS.iter().find(|section| name == CONFIG && !has(section)) {
            Some(section) => format!("it has no `{}`", section.trim_end_matches(':')),
            None => return Ok(()),
        }
    };
    Err(RunError::Damaged { path, problem })
}

fn unreadable(path: PathBuf, error: io::Error) -> RunError {
    let problem = match error.kind() {
        io::ErrorKind::NotFound => "it is missing".to_owned(),
        _ => format!("it can't be read: {error}"),
    };
    RunError::Damaged { path, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SHA-256 of `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const WHOLE: &str =
        "devices:\n  backend: flex\npaths:\n  runs: runs\nproject: wmtp\nseed: 7\nstorage: {}\ntracking: {}\n";

    fn files(config: &str, recipe: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG), config).unwrap();
        fs::write(dir.path().join(RECIPE), recipe).unwrap();
        dir
    }

    #[test]
    fn files_with_their_hashes_pass_and_all_others_are_refused_by_name_and_both_hashes() {
        let record = RunRecord {
            config_sha256: Some(ABC.into()),
            recipe_sha256: Some("later".into()),
            recipe_sha256_before: Some(ABC.into()),
            ..RunRecord::default()
        };
        let dir = files("abc", "abc");
        record.check_settings_files(dir.path()).unwrap();
        for (config, recipe, named) in [("", "abc", "config.yaml"), ("abc", "ab", "recipe.yaml")] {
            let dir = files(config, recipe);
            let error = record.check_settings_files(dir.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("{named}` is not the settings file")), "{error}");
            let expected = if named == "config.yaml" { ABC } else { "later" };
            assert!(error.contains(expected), "{error}");
        }
        fs::remove_file(dir.path().join(CONFIG)).unwrap();
        let error = record.check_settings_files(dir.path()).unwrap_err().to_string();
        assert!(error.contains("config.yaml` can't be used: it is missing"), "{error}");
    }

    #[test]
    fn of_an_older_version_what_is_empty_or_cut_is_refused() {
        let record = RunRecord::default();
        record.check_settings_files(files(WHOLE, "run: {}\n").path()).unwrap();
        let cut = &WHOLE[..WHOLE.find("storage").unwrap()];
        for (config, recipe, problem) in [
            ("\n", "run: {}\n", "config.yaml` can't be used: it is empty"),
            (cut, "run: {}\n", "config.yaml` can't be used: it has no `storage`"),
            (WHOLE, "", "recipe.yaml` can't be used: it is empty"),
        ] {
            let error = record.check_settings_files(files(config, recipe).path()).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }
}
