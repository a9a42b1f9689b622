//! `wmtp man DIR`: a manual page for every command, for packages. Text and flags are those of `--help`.

use super::{Cli, Failure, Output};
use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Inline, Roff, roman},
};
use serde_json::json;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// `wmtp man DIR`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory for the pages; made if it does not exist.
    dir: PathBuf,
}

/// Writes the pages.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let pages = pages().and_then(|pages| write(&args.dir, &pages).map(|()| pages));
    let pages = pages.map_err(|e| Failure::failed(format!("{}: {e}", args.dir.display())))?;
    let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    let text = format!("{} pages in {}\n", names.len(), args.dir.display());
    output.result(&json!({"directory": args.dir, "pages": names}), &text)
}

fn write(dir: &Path, pages: &[(String, String)]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    pages
        .iter()
        .try_for_each(|(name, page)| std::fs::write(dir.join(name), page))
}

/// File name and text of every page.
fn pages() -> io::Result<Vec<(String, String)>> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    add(&program, "", &mut pages)?;
    Ok(pages)
}

/// The page of `command`, then those of the commands below it.
fn add(command: &Command, above: &str, pages: &mut Vec<(String, String)>) -> io::Result<()> {
    let man = Man::new(command.clone());
    let name = man.get_filename();
    let mut page = Vec::new();
    // The page has no date, which `Man` leaves out of the line instead of writing it empty.
    let title = name.trim_end_matches(".1");
    let version = env!("CARGO_PKG_VERSION");
    writeln!(page, ".TH {title} 1 \"\" \"wmtp {version}\" \"wmtp manual\"")?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let below = || command.get_subcommands().filter(|below| !below.is_hide_set());
    if below().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::default();
    if let Some(text) = command.get_after_help() {
        examples(&mut roff, &text.to_string());
    }
    if above.is_empty() {
        exit_status(&mut roff);
    }
    if let Some(above) = above.strip_suffix(".1") {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman(format!("{above}(1)"))]);
    }
    roff.to_writer(&mut page)?;
    // Each part begins with the same definitions: they stand once, at the top.
    let definitions = Roff::default().render();
    let page = String::from_utf8_lossy(&page).replace(&definitions, "");
    pages.push((name.clone(), definitions + &page));
    below().try_for_each(|command| add(command, &name, pages))
}

/// The text below the flags: examples line by line, then paragraphs.
fn examples(roff: &mut Roff, text: &str) {
    let mut notes = false;
    for block in text.split("\n\n") {
        if let Some(lines) = block.strip_prefix("Examples:\n") {
            roff.control("SH", ["EXAMPLES"]);
            roff.control("nf", []);
            for line in lines.lines() {
                roff.text([roman(line.trim_start())]);
            }
            roff.control("fi", []);
            continue;
        }
        match notes {
            false => roff.control("SH", ["NOTES"]),
            true => roff.control("PP", []),
        };
        notes = true;
        roff.text([roman(block.lines().collect::<Vec<_>>().join(" "))]);
    }
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "success"),
        ("1", "a failure while doing what was asked for"),
        ("2", "bad usage or settings"),
    ] {
        roff.control("TP", ["4"]);
        roff.text([Inline::Bold(code.into())]);
        roff.text([roman(meaning)]);
    }
}
