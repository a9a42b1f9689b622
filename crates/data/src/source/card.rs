//! The configuration of a hub data set: `configs` in the front matter of its README.
//!
//! `data_files` is a path or pattern, a list of them, or a list of `{split, path}`; `data_dir` is a folder. Of
//! several configurations the one that is asked for is taken, or the one with `default: true` or named `default`.

use super::{
    files::{TRAIN, canonical, find, matches},
    format::wrong,
    row::listed,
};
use crate::DataError;
use saphyr::{LoadableYamlNode, Yaml};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// The files of each split as the README says; nothing if it says nothing. `wanted` names a configuration.
///
/// # Errors
/// Several configurations without a default, a pattern that no file matches, a path that leaves the folder,
/// a folder `data_dir` without data.
pub(super) fn splits(folder: &Path, wanted: Option<&str>) -> Result<Option<BTreeMap<String, Vec<PathBuf>>>, DataError> {
    let readme = folder.join("README.md");
    let Ok(text) = std::fs::read_to_string(&readme) else {
        return Ok(None);
    };
    let Some(front) = front_matter(&text) else {
        return Ok(None);
    };
    // Other text may stand between two such lines.
    if wmtp_base::yaml::too_deep(front).is_some() {
        return Ok(None);
    }
    let Ok(documents) = Yaml::load_from_str(front) else {
        return Ok(None);
    };
    let configs = documents.first().and_then(|card| card.as_mapping_get("configs"));
    let Some(configs) = configs.and_then(Yaml::as_sequence) else {
        return Ok(None);
    };
    let Some(config) = chosen(configs, wanted, &readme)? else {
        return Ok(None);
    };
    let base = match config.as_mapping_get("data_dir").and_then(Yaml::as_str) {
        Some(dir) => dir.trim_end_matches('/').to_owned() + "/",
        None => String::new(),
    };
    let inside = |path: &str| {
        let leaves = |part| !matches!(part, Component::Normal(_) | Component::CurDir);
        match Path::new(path).components().any(leaves) {
            true => Err(wrong(
                &readme,
                format!("names `{path}` outside of the folder; correct it"),
            )),
            false => Ok(()),
        }
    };
    let Some(files) = config.as_mapping_get("data_files") else {
        inside(&base)?;
        if Path::new(&base).components().all(|part| part == Component::CurDir) {
            return Ok(None);
        }
        return Ok(Some(find(&folder.join(base), None)?.splits));
    };
    let mut splits = BTreeMap::new();
    for (split, patterns) in data_files(files, &base) {
        let mut files: Vec<PathBuf> = Vec::new();
        for pattern in &patterns {
            inside(pattern)?;
            let escaped = glob::Pattern::escape(&folder.to_string_lossy());
            let found = matches(&readme, &format!("{escaped}/{pattern}"))?;
            if found.is_empty() {
                return Err(wrong(
                    &readme,
                    format!("names `{pattern}` for the split `{split}`, but no file matches; download the files"),
                ));
            }
            files.extend(found);
        }
        splits.insert(canonical(&split).to_owned(), files);
    }
    Ok((!splits.is_empty()).then_some(splits))
}

/// The YAML between the two lines `---` at the start.
fn front_matter(text: &str) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let rest = text.strip_prefix("---")?.trim_start_matches('\r').strip_prefix('\n')?;
    rest.split_once("\n---").map(|(front, _)| front)
}

/// The wanted configuration, or the default one; nothing if none has files.
fn chosen<'a, 'b>(
    configs: &'a [Yaml<'b>],
    wanted: Option<&str>,
    readme: &Path,
) -> Result<Option<&'a Yaml<'b>>, DataError> {
    let has_files = |config: &&Yaml| {
        let keys = ["data_files", "data_dir"];
        keys.iter().any(|key| config.as_mapping_get(key).is_some())
    };
    let configs: Vec<&Yaml> = configs.iter().filter(has_files).collect();
    let name = |config: &'a Yaml<'b>| config.as_mapping_get("config_name").and_then(Yaml::as_str);
    let named = |wanted: &str| configs.iter().find(|config| name(config) == Some(wanted));
    let is_default = |config: &&&Yaml| config.as_mapping_get("default").and_then(Yaml::as_bool) == Some(true);
    let names = || listed(configs.iter().filter_map(|config| name(config)));
    match (wanted, configs.as_slice()) {
        (_, []) => Ok(None),
        (Some(wanted), _) => match named(wanted) {
            Some(config) => Ok(Some(config)),
            None => Err(wrong(
                readme,
                format!(
                    "has no configuration `{wanted}`, only {}; set `data.split` to CONFIGURATION/SPLIT",
                    names()
                ),
            )),
        },
        (None, [config]) => Ok(Some(config)),
        (None, _) => match configs.iter().find(is_default).or_else(|| named("default")) {
            Some(config) => Ok(Some(config)),
            None => Err(wrong(
                readme,
                format!(
                    "has the configurations {} and no default; set `data.split` to CONFIGURATION/SPLIT",
                    names()
                ),
            )),
        },
    }
}

/// Splits and patterns of a configuration's files.
fn data_files(files: &Yaml, base: &str) -> Vec<(String, Vec<String>)> {
    let paths = |value: &Yaml| -> Vec<String> {
        match (value.as_str(), value.as_sequence()) {
            (Some(path), _) => vec![format!("{base}{path}")],
            (None, Some(list)) => list
                .iter()
                .filter_map(Yaml::as_str)
                .map(|path| format!("{base}{path}"))
                .collect(),
            (None, None) => Vec::new(),
        }
    };
    let by_split: Vec<(String, Vec<String>)> = files
        .as_sequence()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let split = entry.as_mapping_get("split")?.as_str()?;
            Some((split.to_owned(), paths(entry.as_mapping_get("path")?)))
        })
        .collect();
    match by_split.is_empty() {
        true => vec![(TRAIN.into(), paths(files))],
        false => by_split,
    }
}
