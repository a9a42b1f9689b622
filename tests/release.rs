//! What a release says about itself: `--version`, the manual pages, and the files that name the version.

mod common;

use common::{json, succeed, wmtp};
use std::{fs, path::Path};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn repository(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn printed(args: &[&str], variables: &[(&str, &str)]) -> String {
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = succeed(wmtp(home.path()).args(args).envs(variables.iter().copied()));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_short_version_is_one_line() {
    assert_eq!(printed(&["-V"], &[]), format!("wmtp {VERSION}\n"));
    assert_eq!(printed(&["train", "-V"], &[]), format!("wmtp-train {VERSION}\n"));
}

#[test]
fn the_long_version_names_commit_target_features_and_instruction_sets() {
    let text = printed(&["--version"], &[]);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(format!("wmtp {VERSION}").as_str()));
    let values: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["commit", "target", "features", "instruction sets", "matrix products"],
        "{text}"
    );
    let value = |name: &str| values.iter().find(|(n, _)| *n == name).expect("listed").1;
    let commit = value("commit");
    assert!(
        commit == "unknown" || commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()),
        "{commit}"
    );
    assert!(value("target").starts_with(std::env::consts::ARCH), "{text}");
    for (feature, on) in [
        ("charts", cfg!(feature = "charts")),
        ("flex", cfg!(feature = "flex")),
        ("mlflow", cfg!(feature = "mlflow")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("remote", cfg!(feature = "remote")),
    ] {
        assert_eq!(
            value("features").split(", ").any(|name| name == feature),
            on,
            "{feature}"
        );
    }
    // Linux lists the same sets by names of its own: `avx512_bf16`.
    if let Ok(machine) = fs::read_to_string("/proc/cpuinfo")
        && cfg!(target_arch = "x86_64")
    {
        let flags = machine.lines().find(|line| line.starts_with("flags"));
        let flags: Vec<String> = flags
            .unwrap_or_default()
            .split_whitespace()
            .map(|f| f.replace('_', ""))
            .collect();
        for set in ["avx2", "fma", "avx512f", "avx512bf16"] {
            let listed = value("instruction sets").split(", ").any(|name| name == set);
            assert_eq!(listed, flags.iter().any(|flag| flag == set), "{set}: {text}");
        }
    }
}

#[test]
fn the_instructions_of_products_can_be_chosen() {
    let text = printed(&["--version"], &[("WMTP_GEMM", "portable")]);
    assert!(
        text.lines().any(|line| line.starts_with("matrix products: portable")),
        "{text}"
    );
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = wmtp(home.path())
        .args(["schema", "config"])
        .env("WMTP_GEMM", "mmx")
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(
        said,
        "error: WMTP_GEMM is `mmx`; give one of portable, avx2, avx512, amx\n"
    );
}

#[test]
fn every_command_has_a_manual_page_with_its_flags_and_examples() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let pages = json(&succeed(wmtp(home.path()).args(["man", "man1", "--json"])));
    let names: Vec<&str> = pages["pages"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|n| n.as_str())
        .collect();
    assert!(
        names.len() > 15 && names.contains(&"wmtp.1") && names.contains(&"wmtp-inspect-recipe.1"),
        "{names:?}"
    );
    assert!(!names.contains(&"wmtp-man.1"), "hidden commands have no page");
    let read = |name: &str| fs::read_to_string(home.path().join("man1").join(name)).expect("a page");
    for name in &names {
        let page = read(name);
        for part in [".TH ", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n"] {
            assert!(page.contains(part), "{name} lacks {part}");
        }
        let title = format!(
            ".TH {} 1 \"\" \"wmtp {VERSION}\" \"wmtp manual\"\n",
            name.trim_end_matches(".1")
        );
        assert!(page.contains(&title), "{name} lacks {title}");
        // Pages are the same on every machine.
        assert!(!page.contains("commit:") && !page.contains("avx"), "{name}");
    }
    let train = read("wmtp-train.1");
    assert!(
        train.contains("\\-\\-max\\-steps") && train.contains("\nwmtp train critic \\-\\-resume auto\n"),
        "{train}"
    );
    assert!(read("wmtp.1").contains(".SH \"EXIT STATUS\""));
}

#[test]
fn the_version_is_the_same_everywhere() {
    let changelog = repository("CHANGELOG.md");
    let newest = changelog
        .lines()
        .filter(|line| line.starts_with("## ["))
        .find(|line| *line != "## [Unreleased]");
    let newest = newest.expect("a released version");
    assert!(newest.starts_with(&format!("## [{VERSION}]")), "CHANGELOG.md: {newest}");
    let citation = repository("CITATION.cff");
    assert!(
        citation.lines().any(|line| line == format!("version: \"{VERSION}\"")),
        "CITATION.cff"
    );
    // The wheel's comes from Cargo.toml.
    assert!(repository("pyproject.toml").contains("dynamic = [\"version\", \"description\"]"));
    let lock = repository("Cargo.lock");
    assert!(
        lock.contains(&format!("name = \"wmtp\"\nversion = \"{VERSION}\"")),
        "Cargo.lock"
    );
}
