//! Who may speak to the network: the rooms `storage` and `track`, and nobody else.

use std::{
    fs,
    path::{Path, PathBuf},
};

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
/// Rooms that may, under `src/`.
const MAY: &[&str] = &["storage", "track"];

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
    for dir in ["src", "kernels", "model", "sandbox", "benches", "examples"] {
        walk(&root().join(dir), "rs", &mut sources);
    }
    assert!(sources.len() > 100, "the sources are where they are looked for");
    let (may, may_not): (Vec<_>, Vec<_>) = sources
        .into_iter()
        .partition(|path| MAY.iter().any(|room| path.starts_with(root().join("src").join(room))));
    assert_eq!(speakers(&may_not), Vec::<String>::new());
    // The test can see it where it is.
    assert!(!speakers(&may).is_empty());
}

#[test]
fn only_the_root_crate_depends_on_it() {
    let mut manifests = Vec::new();
    walk(root(), "toml", &mut manifests);
    manifests.retain(|path| path.ends_with("Cargo.toml"));
    assert!(manifests.len() >= 5, "{manifests:?}");
    for manifest in manifests {
        let text = fs::read_to_string(&manifest).expect("a manifest");
        let names = text
            .lines()
            .filter_map(|line| line.split(['=', '.']).next())
            .map(str::trim);
        let speaks: Vec<&str> = names
            .filter(|name| NETWORK.contains(&name.replace('-', "_").as_str()))
            .collect();
        if manifest == root().join("Cargo.toml") {
            assert!(speaks.contains(&"opendal"), "the test can see it where it is");
        } else {
            assert_eq!(speaks, Vec::<&str>::new(), "{}", manifest.display());
        }
    }
}
