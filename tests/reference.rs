//! The reference pages are those that `just reference` writes, and no environment variable is missing.

#[path = "../examples/reference.rs"]
#[allow(dead_code)] // `main` writes the pages.
mod reference;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_pages_are_current() {
    for (name, text) in reference::pages() {
        let path = root().join("docs/reference").join(name);
        let page = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let differs = page.lines().zip(text.lines()).position(|(a, b)| a != b);
        assert!(
            page == text,
            "docs/reference/{name} is not current (line {}): run `just reference`",
            differs.map_or(page.lines().count().min(text.lines().count()), |line| line) + 1
        );
    }
}

/// The sources of the product: no tests, benches or examples.
fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .flatten()
    {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir()
            && !["target", "tests", "examples", "benches"]
                .iter()
                .any(|skip| name == *skip)
        {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
            out.push(path);
        }
    }
}

/// Text literals in `code` that are names of variables: capitals, digits and underscores, and known by their
/// beginning or by the call that reads them.
fn variables(code: &str) -> BTreeSet<String> {
    let pieces: Vec<&str> = code.split('"').collect();
    let named = pieces.windows(2).filter_map(|pair| {
        let name = pair[1];
        let is_name = name.len() > 2
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let is_read = ["env::var(", "env::var_os(", "variable("]
            .iter()
            .any(|call| pair[0].ends_with(call));
        let known = ["WMTP_", "HF_", "AWS_", "MLFLOW_", "RAYON_"];
        (is_name && (is_read || known.iter().any(|start| name.starts_with(start)))).then(|| name.to_owned())
    });
    // A setting's variable is none of its own.
    named
        .filter(|name| !name.contains("__") && !name.ends_with('_'))
        .collect()
}

#[test]
fn every_variable_that_the_program_reads_is_listed() {
    let mut files = Vec::new();
    for part in ["src", "model", "kernels", "sandbox", "crates"] {
        let part = root().join(part);
        if part.is_dir() {
            sources(&part, &mut files);
        }
    }
    let mut found = BTreeSet::new();
    for file in files {
        let code = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let product = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        found.extend(variables(product));
    }
    let listed: BTreeSet<String> = reference::VARIABLES
        .iter()
        .chain(reference::TEST_VARIABLES)
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(missing.is_empty(), "examples/reference.rs lacks {missing:?}");
    assert!(
        found.contains("HF_TOKEN"),
        "the test can see a variable where it is read"
    );
    for reserved in wmtp::settings::RESERVED_VARIABLES {
        assert!(listed.contains(*reserved), "examples/reference.rs lacks {reserved}");
    }
}
