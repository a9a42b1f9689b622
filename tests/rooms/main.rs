//! Which module of `src/` may import which, that no files import each other in a circle, and that only
//! `storage` and `track` speak to the network.

mod graph;
mod messages;

use graph::{Sources, circles};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The crates of the workspace, and those of it that they may depend on, from the ground up. What is not
/// listed is refused by the compiler; the list says that the manifests are as they are meant to be.
const CRATES: &[(&str, &[&str])] = &[
    ("crates/base", &[]),
    ("crates/charts", &[]),
    ("crates/faults", &[]),
    ("crates/features", &[]),
    ("crates/gemm", &[]),
    ("crates/world", &[]),
    ("sandbox", &[]),
    ("kernels", &["gemm"]),
    ("model", &["gemm", "kernels"]),
    ("crates/run", &["base"]),
    ("crates/data", &["base"]),
    ("crates/device", &["base"]),
    ("crates/storage", &["base", "run"]),
    ("crates/track", &["base", "run", "storage"]),
    ("crates/eval", &["base", "data", "run", "sandbox", "world"]),
    ("crates/scorer", &["base", "data", "device"]),
    (
        "crates/train",
        &["base", "data", "device", "kernels", "model", "run", "scorer"],
    ),
    (
        ".",
        &[
            "base", "charts", "data", "device", "eval", "features", "kernels", "model", "run", "sandbox", "scorer",
            "storage", "track", "train", "world",
        ],
    ),
    (
        "crates/fuzz",
        &[
            "base", "data", "eval", "model", "run", "sandbox", "scorer", "storage", "track",
        ],
    ),
];

/// The whole allowed graph: a module of `src/`, and the modules of it and the crates at [`GROUND`] that it
/// may import. A module that is not listed may import none. The order is from the ground up: a module imports
/// only what stands above it.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "settings",
        &["base", "data", "device", "eval", "scorer", "storage", "track", "train"],
    ),
    ("clock", &[]),
    ("report", &["base", "clock", "eval", "run", "settings"]),
    (
        "pipeline",
        &[
            "base", "clock", "data", "device", "eval", "report", "run", "scorer", "settings", "storage", "track",
            "train",
        ],
    ),
    (
        "sweep",
        &[
            "base", "clock", "data", "device", "eval", "report", "run", "settings", "track", "train",
        ],
    ),
    (
        "cli",
        &[
            "base", "clock", "data", "device", "eval", "pipeline", "report", "run", "settings", "storage", "sweep",
            "track", "train",
        ],
    ),
    ("main", &[]),
];

/// Crates that modules of `src/` import by the names that `src/lib.rs` gives them.
const GROUND: &[&str] = &[
    "base", "data", "device", "eval", "run", "scorer", "storage", "track", "train",
];

/// Circles of files that are there on purpose: the crate, and what the files' names begin with.
const CIRCLES: &[(&str, &[&str])] = &[
    // An interpreter: values, expressions and filters evaluate each other.
    ("crates/data", &["template/"]),
    // The card of a hub's data set names folders, which are read as folders are.
    ("crates/data", &["source/card", "source/files"]),
    // Documents are in memory or in a token cache: what hands them out and what writes them share their types.
    (
        "crates/data",
        &["collect", "dataset", "epoch", "splits", "token_cache/"],
    ),
    // The key of a token cache is made of what the cache is made from.
    ("crates/data", &["from_records", "stream", "token_cache/"]),
    // A recursive type: the settings of `shuffled` hold another scorer's, of any kind in the list.
    ("crates/scorer", &[""]),
];

/// Crates and types that open connections.
const NETWORK: &[&str] = &[
    "opendal",
    "reqwest",
    "hyper",
    "ureq",
    "curl",
    "isahc",
    "attohttpc",
    "minreq",
    "tonic",
    "rusoto",
    "aws_sdk",
    "object_store",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
];
/// Crates that may.
const MAY: &[&str] = &["crates/storage", "crates/track"];
/// Test programs, which answer on loopback as bad servers do and ask nobody.
const ANSWERS: [&str; 2] = ["crates/faults", "crates/fuzz"];

#[test]
fn modules_import_only_what_they_may() {
    assert_eq!(forbidden(&read(|_, text| text)), Vec::<String>::new());
}

#[test]
fn the_allowed_graph_has_no_circle_and_nothing_that_is_not_used() {
    for (n, (module, imports)) in ALLOWED.iter().enumerate() {
        let above: Vec<&str> = ALLOWED[..n].iter().map(|(name, _)| *name).collect();
        for import in *imports {
            assert!(
                above.contains(import) || GROUND.contains(import),
                "{module} imports {import}, which does not stand above it"
            );
        }
    }
    let arrows = read(|_, text| text).rooms();
    for (module, imports) in ALLOWED {
        for import in *imports {
            let used = arrows.get(*module).is_some_and(|used| used.contains(*import));
            assert!(used, "{module} may import {import} and does not: take it off the list");
        }
    }
}

/// The test of the test: an import that is added to a file is seen, however it is written.
#[test]
fn a_forbidden_import_is_seen() {
    let imports = [
        "use crate::cli::main;",
        "use crate::{cli, run::RunDir};",
        "fn added() { crate::cli::main(); }",
        "fn added() { super::super::cli::main(); }",
    ];
    for added in imports {
        let sources = read(|file, text| match file.to_str() {
            Some("pipeline/train.rs") => format!("{text}\n{added}\n"),
            _ => text,
        });
        assert_eq!(forbidden(&sources), ["pipeline imports cli"], "{added}");
    }
    for harmless in [
        "// use crate::cli::main;",
        "const ADDED: &str = \"crate::cli\";",
        "#[cfg(test)]\nmod added {\n    use crate::cli::main;\n}",
    ] {
        let sources = read(|_, text| format!("{text}\n{harmless}\n"));
        assert_eq!(forbidden(&sources), Vec::<String>::new(), "{harmless}");
    }
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    assert_eq!(unlisted(".", &read(|_, text| text)), Vec::<String>::new());
    for (name, _) in CRATES.iter().filter(|(name, _)| name.starts_with("crates/")) {
        let sources = Sources::read(&root().join(name).join("src"), |_, text| text);
        assert_eq!(unlisted(name, &sources), Vec::<String>::new(), "{name}");
        let found = circles(&sources.files());
        for (_, listed) in CIRCLES.iter().filter(|(of, _)| of == name) {
            assert!(
                found.iter().any(|circle| is_in(circle, listed)),
                "{name}: {listed:?} has no circle any more: take it off the list"
            );
        }
    }
}

/// The test of the test: two files of a module that import each other are seen.
#[test]
fn a_circle_of_files_is_seen() {
    let sources = Sources::read(&root().join("crates/track/src"), |file, text| match file.to_str() {
        Some("spool.rs") => format!("{text}\nuse super::Tracking;\n"),
        _ => text,
    });
    assert_eq!(
        unlisted("crates/track", &sources),
        ["deliver.rs, spool.rs, tracking.rs"]
    );
}

fn read(change: impl Fn(&Path, String) -> String) -> Sources {
    Sources::read(&root().join("src"), change)
}

/// Imports that [`ALLOWED`] does not have.
fn forbidden(sources: &Sources) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let arrows = sources.rooms();
    assert!(arrows.len() > 4, "the sources are where they are looked for");
    let mut found = Vec::new();
    for (module, imports) in &arrows {
        let may: BTreeSet<&str> = allowed
            .get(module.as_str())
            .into_iter()
            .copied()
            .flatten()
            .copied()
            .collect();
        let not = imports.iter().filter(|import| !may.contains(import.as_str()));
        found.extend(not.map(|import| format!("{module} imports {import}")));
    }
    found
}

/// Circles of files of a crate that [`CIRCLES`] does not have.
fn unlisted(name: &str, sources: &Sources) -> Vec<String> {
    circles(&sources.files())
        .into_iter()
        .filter(|circle| !CIRCLES.iter().any(|(of, listed)| *of == name && is_in(circle, listed)))
        .map(|circle| {
            let names: Vec<String> = circle.iter().map(|file| file.display().to_string()).collect();
            names.join(", ")
        })
        .collect()
}

/// Whether each file of a circle is one of `listed`.
fn is_in(circle: &[&Path], listed: &[&str]) -> bool {
    let begins = |file: &Path| listed.iter().any(|start| file.to_string_lossy().starts_with(start));
    circle.iter().all(|file| begins(file))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, extension: &str, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            walk(&path, extension, out);
        } else if path.extension().is_some_and(|e| e == extension) {
            out.push(path);
        }
    }
}

/// Lines of code that name a word of [`NETWORK`], as `file:line`.
fn speakers(files: &[PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.into_iter().any(|word| NETWORK.contains(&word)) {
                let file = file.strip_prefix(root()).expect("a file of the repository");
                found.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    found
}

#[test]
fn only_storage_and_track_speak_to_the_network() {
    let mut sources = Vec::new();
    for (dir, _) in CRATES.iter().filter(|(dir, _)| !ANSWERS.contains(dir)) {
        walk(&root().join(dir).join("src"), "rs", &mut sources);
    }
    for dir in ["benches", "examples"] {
        walk(&root().join(dir), "rs", &mut sources);
    }
    assert!(sources.len() > 100, "the sources are where they are looked for");
    let (may, may_not): (Vec<_>, Vec<_>) = sources
        .into_iter()
        .partition(|path| MAY.iter().any(|dir| path.starts_with(root().join(dir))));
    assert_eq!(speakers(&may_not), Vec::<String>::new());
    // The test can see it where it is.
    assert!(!speakers(&may).is_empty());
}

/// The names in a section of a manifest.
fn names_in(manifest: &str, section: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != section).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['=', '.']).next())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn crates_depend_on_each_other_as_listed_and_only_two_on_the_network() {
    let mut directories: Vec<PathBuf> = fs::read_dir(root().join("crates"))
        .expect("the crates")
        .flatten()
        .map(|entry| Path::new("crates").join(entry.file_name()))
        .collect();
    directories.retain(|dir| !CRATES.iter().any(|(listed, _)| Path::new(listed) == dir));
    assert_eq!(directories, Vec::<PathBuf>::new(), "not in the list");
    for (dir, expected) in CRATES {
        let manifest = fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("a manifest");
        let names = names_in(&manifest, "[dependencies]");
        let ours: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("wmtp-")).collect();
        assert_eq!(ours, *expected, "{dir}");
        let network = names
            .iter()
            .any(|name| NETWORK.contains(&name.replace('-', "_").as_str()));
        assert_eq!(network, MAY.contains(dir), "{dir}");
    }
}
