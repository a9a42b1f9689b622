//! Settings: YAML, config, recipe and sweep files, `--set` and variables.

use super::{files, none, words};
use crate::{Kind, Outcome, Target, mutate::Shape, scratch::put, target::FIRST};
use wmtp::{
    settings::{Pipeline, Sources, yaml_to_json},
    sweep::{Overlay, Sweep},
};

pub(super) const YAML: Target = Target {
    name: "yaml",
    what: "YAML of settings, as a tree",
    kind: Kind::Memory,
    shape: Shape::Yaml,
    words: words::SETTINGS,
    stack: FIRST,
    seeds: || files("configs", ".yaml"),
    open: |_| {
        Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            Outcome::of(&yaml_to_json(&text))
        })
    },
};

pub(super) const CONFIG: Target = Target {
    name: "config",
    what: "a config file, with all checks of its values",
    // As for the others here, the schema of all settings is made each time.
    kind: Kind::Loader,
    seeds: || {
        files("configs", ".yaml")
            .into_iter()
            .filter(|text| !text.starts_with(b"# A sweep"))
            .collect()
    },
    open: |dir| {
        let path = dir.join("config.yaml");
        Box::new(move |input| {
            put(&path, input);
            Outcome::of(&Sources::new(None).config(&path).load())
        })
    },
    ..YAML
};

pub(super) const RECIPE: Target = Target {
    name: "recipe",
    what: "a recipe file over a pipeline's own, with all checks of its values",
    kind: Kind::Loader,
    open: |dir| {
        let path = dir.join("recipe.yaml");
        Box::new(move |input| {
            put(&path, input);
            let pipelines = [Pipeline::Baseline, Pipeline::Critic, Pipeline::Rho1];
            let pipeline = pipelines[input.len() % 3];
            Outcome::of(&Sources::new(Some(pipeline)).recipe(&path).load())
        })
    },
    ..YAML
};

pub(super) const SETS: Target = Target {
    name: "sets",
    what: "`--set` and variables, one a line",
    kind: Kind::Loader,
    shape: Shape::Text,
    seeds: none,
    open: |_| {
        Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            let mut sources = Sources::new(None);
            for line in text.lines() {
                sources = match line.split_once('=') {
                    Some((name, value)) if name.starts_with("WMTP_") => {
                        sources.variables([(name.to_owned(), value.to_owned())])
                    }
                    _ => sources.set(line),
                };
            }
            Outcome::of(&sources.load())
        })
    },
    ..YAML
};

pub(super) const SWEEP: Target = Target {
    name: "sweep",
    what: "a sweep file, with the settings of all its arms",
    kind: Kind::Loader,
    seeds: || {
        files("configs", ".yaml")
            .into_iter()
            .filter(|text| text.windows(6).any(|w| w == b"grid:\n"))
            .collect()
    },
    words: words::SWEEP,
    open: |dir| {
        let path = dir.join("sweep.x.yaml");
        Box::new(move |input| {
            put(&path, input);
            Outcome::of(&Sweep::read(&path, &Overlay::default()))
        })
    },
    ..YAML
};
