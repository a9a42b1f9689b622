//! Libraries do not print: what they have to say goes to a `Progress` or to `tracing`. Only the command line
//! writes to a terminal.

use super::{
    graph::{tokens, without_tests},
    root, walk,
};
use std::{fs, path::Path};

/// Macros that print.
const PRINTS: [&str; 7] = ["print", "println", "eprint", "eprintln", "dbg", "say", "ask"];
/// Sources that may: the command line, and a test program.
const MAY: [&str; 3] = ["src/cli", "src/main.rs", "crates/fuzz"];

/// The macros that a text of Rust calls outside of its tests.
fn prints(text: &str) -> Vec<String> {
    let tokens = without_tests(&tokens(text));
    let called = tokens.windows(2).filter(|pair| pair[1] == "!");
    called
        .map(|pair| pair[0].clone())
        .filter(|name| PRINTS.contains(&name.as_str()))
        .collect()
}

fn is_test(file: &Path) -> bool {
    file.with_extension("").iter().any(|part| part == "tests")
}

#[test]
fn only_the_command_line_prints() {
    let mut sources = Vec::new();
    for dir in ["src", "crates", "kernels/src", "model/src", "sandbox/src"] {
        walk(&root().join(dir), "rs", &mut sources);
    }
    let mut found = Vec::new();
    let mut by_the_command_line = 0;
    for file in sources {
        let inside = file.strip_prefix(root()).expect("a file of the repository");
        let is_source = inside.iter().any(|part| part == "src");
        if !is_source || is_test(inside) {
            continue;
        }
        let prints = prints(&fs::read_to_string(&file).expect("a source file"));
        if MAY.iter().any(|may| inside.starts_with(may)) {
            by_the_command_line += prints.len();
        } else {
            found.extend(prints.iter().map(|name| format!("{}: {name}!", inside.display())));
        }
    }
    assert_eq!(found, Vec::<String>::new());
    assert!(by_the_command_line > 10, "the test can see it where it is");
}

/// The test of the test.
#[test]
fn a_print_is_seen_in_code_alone() {
    for (text, seen) in [
        ("fn f() { eprintln!(\"warning: {x}\"); }", "eprintln"),
        ("fn f() { std::print!(\"a\") }", "print"),
        ("fn f() { dbg!(x); }", "dbg"),
    ] {
        assert_eq!(prints(text), [seen], "{text}");
    }
    for text in [
        "/// println!(\"an example\");\nfn f() {}",
        "const TEXT: &str = \"eprintln!()\";",
        "#[cfg(test)]\nmod tests { fn f() { println!(\"a figure\"); } }",
        "fn println() { println(); }",
    ] {
        assert_eq!(prints(text), Vec::<String>::new(), "{text}");
    }
}
