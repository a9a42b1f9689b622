//! The pages of the project: links lead somewhere, the files, functions, commands and flags that they name
//! exist, the book has all of them, and prose is wrapped.

#[path = "docs/messages.rs"]
mod messages;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Longest line of prose, in characters. Tables, code, pictures and lone links may be longer.
const WIDTH: usize = 110;
/// Folders of the repository by which a code span is known as a path.
const FOLDERS: &[&str] = &[
    "src/",
    "model/",
    "kernels/",
    "crates/",
    "sandbox/",
    "tests/",
    "configs/",
    "examples/",
    "data/",
    "benches/",
    "docs/",
    "docker/",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The pages in the root.
const ROOT_PAGES: [&str; 7] = [
    "README.md",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "COMPAT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docker/README.md",
];

/// Those in the root and everything in `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ROOT_PAGES.map(|name| root().join(name)).into();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 25, "{} pages", pages.len());
    pages
}

/// The lines outside of fenced code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// The anchor of a heading, as the usual renderers make it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The targets of the links `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let text: Vec<&str> = prose(text).map(|(_, line)| line).collect();
    let text = text.join("\n");
    let parts = text.split("](").skip(1);
    parts
        .filter_map(|part| Some(part.split_once(')')?.0.to_owned()))
        .collect()
}

/// The code spans of a page.
fn spans(text: &str) -> Vec<String> {
    prose(text)
        .flat_map(|(_, line)| line.split('`').skip(1).step_by(2).map(str::to_owned))
        .collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in links(&read(&page)) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap_or(root()).join(file),
            };
            let has_heading = || {
                let text = read(&target);
                prose(&text).any(|(_, line)| line.starts_with('#') && anchor(line) == heading)
            };
            if !target.exists() || !heading.is_empty() && !has_heading() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// mdBook shows only what its list of chapters names.
#[test]
fn the_book_has_every_page() {
    let summary = root().join("docs/SUMMARY.md");
    let named = links(&read(&summary));
    let named: BTreeSet<PathBuf> = named
        .iter()
        .map(|link| match link.strip_prefix("../") {
            Some(page) => root().join(page),
            None => root().join("docs").join(link),
        })
        .collect();
    let pages: BTreeSet<PathBuf> = pages().into_iter().filter(|page| *page != summary).collect();
    let missing: Vec<&PathBuf> = pages.difference(&named).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md lacks {missing:?}");
}

#[test]
fn files_that_pages_name_exist() {
    let mut missing = BTreeSet::new();
    for page in pages() {
        for span in spans(&read(&page)) {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder))
                && span.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c));
            if is_path && !root().join(&span).exists() {
                missing.insert(format!("{}: `{span}`", page.display()));
            }
        }
    }
    let missing: Vec<String> = missing.into_iter().collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Whether a source file declares `name`.
fn declares(source: &str, name: &str) -> bool {
    let kinds = [
        "fn",
        "struct",
        "enum",
        "trait",
        "const",
        "static",
        "type",
        "mod",
        "macro_rules!",
    ];
    source.lines().any(|line| {
        kinds.iter().any(|kind| {
            let Some((before, after)) = line.split_once(&format!("{kind} {name}")) else {
                return false;
            };
            let ends = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            ends(before.chars().last()) && ends(after.chars().next())
        })
    })
}

#[test]
fn a_declaration_is_found_by_its_whole_name() {
    let source = "pub(super) fn step(&mut self) {}\npub struct Batch {\n// fn other\n";
    assert!(declares(source, "step") && declares(source, "Batch"));
    assert!(!declares(source, "ste") && !declares(source, "batch") && !declares(source, "run"));
}

/// In every cell of a table: a source file declares the names in the code spans that follow it.
fn names_exist(page: &str) {
    let text = read(&root().join(page));
    let mut checked = 0;
    let mut missing = Vec::new();
    for (number, line) in prose(&text).filter(|(_, line)| line.starts_with("| ")) {
        for cell in line.split(" | ").map(|cell| spans(cell.trim_start_matches("| "))) {
            let mut file: Option<(String, String)> = None;
            for span in cell {
                if span.ends_with(".rs") && FOLDERS.iter().any(|folder| span.starts_with(folder)) {
                    let source = read(&root().join(&span));
                    file = Some((span, source));
                } else if let Some((path, source)) = &file {
                    checked += 1;
                    if !declares(source, &span) {
                        missing.push(format!("{page}:{number}: `{path}` has no `{span}`"));
                    }
                }
            }
        }
    }
    assert!(checked > 0, "{page} names nothing in a file");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_tour_names_functions_that_exist() {
    names_exist("docs/tour.md");
}

#[test]
fn the_pages_on_extending_and_composing_name_functions_that_exist() {
    names_exist("docs/extending.md");
    names_exist("docs/composability.md");
}

#[test]
fn prose_is_wrapped() {
    let mut long = Vec::new();
    // Generated pages have the lines of their sources.
    let written = pages()
        .into_iter()
        .filter(|page| !page.starts_with(root().join("docs/reference")));
    for page in written {
        let text = read(&page);
        for (number, line) in prose(&text) {
            let free = line.starts_with('|') || line.starts_with("![") || !line.trim().contains(' ');
            if !free && line.chars().count() > WIDTH {
                long.push(format!("{}:{number}", page.display()));
            }
        }
    }
    assert!(long.is_empty(), "longer than {WIDTH} characters: {}", long.join(", "));
}

/// The command lines `wmtp ...` in fenced code, without the explanation that stands behind them.
fn command_lines(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let line = line.trim_start_matches("$ ");
            let command = ["wmtp ", "cargo run --release -- "]
                .iter()
                .find_map(|start| line.strip_prefix(start));
            let command = command.and_then(|command| command.split("  ").next());
            lines.extend(command.and_then(|command| command.split(" # ").next()));
        }
    }
    lines
}

/// What a command line names and the program lacks.
fn unknown(program: &clap::Command, line: &str) -> Option<String> {
    let mut command = program;
    let mut words = line.split_whitespace().peekable();
    while let Some(below) = words.peek().and_then(|word| command.find_subcommand(word)) {
        command = below;
        words.next();
    }
    if command.get_name() == program.get_name() {
        return Some(format!("no command in `{line}`"));
    }
    let flags = words.filter(|word| word.starts_with("--"));
    let names = flags.filter_map(|flag| flag.trim_start_matches("--").split('=').next());
    names
        .filter(|name| !command.get_arguments().any(|arg| arg.get_long() == Some(*name)) && *name != "help")
        .map(|name| format!("`{}` has no --{name}: `{line}`", command.get_name()))
        .next()
}

#[test]
fn commands_on_pages_exist_with_their_flags() {
    let mut program = wmtp::cli::command();
    program.build();
    assert!(unknown(&program, "train critic --max-steps 3").is_none());
    assert!(unknown(&program, "train critic --no-such-flag").is_some());
    let mut checked = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        // Of the generated pages, the one of commands is written by clap itself.
        if page.starts_with(root().join("docs/reference")) {
            continue;
        }
        let text = read(&page);
        let lines = command_lines(&text);
        checked += lines.len();
        let found = lines.into_iter().filter_map(|line| unknown(&program, line));
        wrong.extend(found.map(|problem| format!("{}: {problem}", page.display())));
    }
    assert!(checked > 60, "{checked} command lines");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
