use super::*;
use roxmltree::{Document, ParsingOptions};
use serde_json::json;
use std::{fs, path::Path};

const NASTY: &str = "</script><img src=x onerror=alert(1)>&\"'|`*_\u{0}\u{202e}";

/// A page as the tree that a browser would make of it: it is written so that it is XML, too.
fn tree(html: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(html, options).unwrap_or_else(|error| panic!("{error}\n{html}"))
}

fn names(html: &str) -> Vec<String> {
    let tree = tree(html);
    let elements = tree.descendants().filter(|node| node.is_element());
    elements.map(|node| node.tag_name().name().to_owned()).collect()
}

/// Markdown without its blocks of code, in which nothing is markup.
fn outside_of_fences(markdown: &str) -> String {
    let parts = markdown.split("```");
    parts.step_by(2).collect()
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A run's directory in which every text that a run may take from outside is as nasty as can be.
fn nasty(dir: &Path) {
    let line = |value: serde_json::Value| format!("{value}\n");
    write(
        dir,
        "run.json",
        &json!({"name": NASTY, "algorithm": "critic", "model": NASTY, "started": NASTY, "environment": {"cpu": NASTY, NASTY: NASTY}}).to_string(),
    );
    write(
        dir,
        "metrics.jsonl",
        &(1..=3)
            .map(|step| line(json!({"step": step, "loss": 3.0, "ce_head_1": 2.5, "grad_norm": 1.0, "lr": 1e-4, "tok_s": 9.0, "tokens": 10 * step})))
            .collect::<String>(),
    );
    write(
        dir,
        "events.jsonl",
        &line(json!({"time": 1, "step": 1, "event": NASTY, "reason": NASTY})),
    );
    write(
        dir,
        "tokens.jsonl",
        &line(
            json!({"step": 0, "split": "train", "document": NASTY, "prompt_tokens": 1, "tokens": [NASTY, NASTY, "\n"],
            "weight": [1.0, 2.0], "scores": {NASTY: [1.0, 2.0]}, "ce": [[1.0, 2.0]], "problem": NASTY}),
        ),
    );
    write(
        dir,
        "recipe.yaml",
        &format!("run:\n  tags: [{}]\n{}: 1\n", json!(NASTY), json!(NASTY)),
    );
    write(dir, "config.yaml", &format!("project: {}\n", json!(NASTY)));
    let mut evaluation = crate::report::evaluation::example();
    for key in ["benchmark", "variant", "prompt", "run_dir", "checkpoint"] {
        evaluation[key] = NASTY.into();
    }
    write(dir, "evaluations/a.json", &evaluation.to_string());
    write(
        dir,
        "critic/report.json",
        &json!({"steps": NASTY, "held_out": {"auroc_last": 0.5}}).to_string(),
    );
    write(
        dir,
        "checkpoints/last/trainer.json",
        &json!({"finished": true}).to_string(),
    );
}

#[test]
fn no_text_of_a_run_becomes_markup() {
    let home = tempfile::tempdir().unwrap();
    nasty(home.path());
    let run = Run::read(home.path()).unwrap();
    assert_eq!(run.problems, Vec::<String>::new());
    let Pages { html, markdown } = pages(&run).unwrap();
    let found = names(&html);
    for element in ["script", "img", "iframe", "link"] {
        assert!(!found.iter().any(|name| name == element), "{element}");
    }
    // The text is there, as text, in the headline, in tokens and in events.
    let shown = visible(NASTY);
    let tree = tree(&html);
    let headline = tree.descendants().find(|node| node.has_tag_name("h1")).unwrap();
    assert!(headline.text().unwrap().contains(&shown), "{:?}", headline.text());
    let token = tree
        .descendants()
        .find(|node| node.attribute("tabindex").is_some())
        .unwrap();
    assert_eq!(token.text(), Some(shown.as_str()));
    assert!(token.attribute("aria-label").unwrap().contains("weight 1.000"));
    assert!(
        tree.descendants()
            .any(|node| node.has_tag_name("td") && node.text() == Some(&shown))
    );
    for harmful in ["<script", "<img", "\u{0}", "\u{202e}"] {
        assert!(
            !outside_of_fences(&markdown).contains(harmful),
            "{harmful:?} in {markdown}"
        );
    }
    assert!(!html.contains('\u{0}') && !html.contains('\u{202e}'));
}

#[test]
fn a_page_asks_nothing_of_the_network() {
    let home = tempfile::tempdir().unwrap();
    nasty(home.path());
    let html = pages(&Run::read(home.path()).unwrap()).unwrap().html;
    let tree = tree(&html);
    for node in tree.descendants().filter(|node| node.is_element()) {
        for attribute in node.attributes() {
            let asks = ["src", "srcset", "data", "action", "poster", "background"].contains(&attribute.name());
            assert!(!asks, "{} has {}", node.tag_name().name(), attribute.name());
            let local = attribute.name() != "href" || attribute.value().starts_with('#');
            assert!(local, "{}", attribute.value());
        }
    }
    for style in tree.descendants().filter(|node| node.has_tag_name("style")) {
        let text = style.text().unwrap_or_default();
        assert!(!text.contains("url(") && !text.contains("@import"), "{text}");
    }
}

#[test]
fn a_run_with_nothing_but_its_record_has_a_report_that_names_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "run.json", "{\"name\": \"empty\"}");
    let run = Run::read(home.path()).unwrap();
    let Pages { html, markdown } = pages(&run).unwrap();
    names(&html);
    for file in [
        "metrics.jsonl",
        "events.jsonl",
        "recipe.yaml",
        "config.yaml",
        "checkpoints/last/trainer.json",
    ] {
        assert!(html.contains(&format!("<code>{file}</code> is not there")), "{file}");
        assert!(markdown.contains(&format!("`{file}` is not there")), "{file}");
    }
}

#[test]
fn damaged_files_are_named_and_the_rest_is_shown() {
    let home = tempfile::tempdir().unwrap();
    nasty(home.path());
    let metrics = fs::read_to_string(home.path().join("metrics.jsonl")).unwrap();
    write(home.path(), "metrics.jsonl", &format!("{metrics}{{\"step\": 4, \"lo"));
    write(
        home.path(),
        "weights.jsonl",
        "{\"edges\": [0, 1]}\n{\"step\": 1, \"counts\": [1, 2]}\n",
    );
    write(home.path(), "recipe.yaml", "a: [");
    write(home.path(), "evaluations/b.json", "no JSON");
    fs::write(home.path().join("events.jsonl"), [0xff, 0xfe, b'\n']).unwrap();
    let run = Run::read(home.path()).unwrap();
    assert_eq!(run.steps.len(), 3);
    assert_eq!(run.evaluations.len(), 1);
    for file in [
        "metrics.jsonl",
        "weights.jsonl",
        "recipe.yaml",
        "evaluations/b.json",
        "events.jsonl",
    ] {
        let named = run.problems.iter().filter(|problem| problem.contains(file)).count();
        assert_eq!(named, 1, "{file}: {:?}", run.problems);
    }
    names(&pages(&run).unwrap().html);
}

#[test]
fn a_directory_that_is_no_run_is_one_clear_error() {
    let home = tempfile::tempdir().unwrap();
    let said = |dir: &Path| Run::read(dir).unwrap_err().to_string();
    assert!(said(home.path()).contains("it holds no run.json"));
    assert!(said(&home.path().join("nowhere")).contains("there is no such directory"));
    write(home.path(), "run.json", "{");
    assert!(said(home.path()).contains("its run.json is not JSON"));
    write(home.path(), "run.json", "{\"kind\": \"evaluation\"}");
    assert!(said(home.path()).contains("it is an evaluation"));
}

#[test]
fn comparisons_escape_as_well() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    nasty(&a);
    nasty(&b);
    write(&b, "recipe.yaml", "optim:\n  lr: 1\n");
    let runs = [Run::read(&a).unwrap(), Run::read(&b).unwrap()];
    let Pages { html, markdown } = crate::report::compare::pages(&runs).unwrap();
    let found = names(&html);
    assert!(!found.iter().any(|name| name == "script" || name == "img"));
    assert!(!markdown.contains("<script") && !markdown.contains("<img"));
    // Two runs of one name are told apart by their directories.
    let shown = html.replace("&#x2f;", "/");
    assert!(shown.contains(&a.display().to_string()) && shown.contains(&b.display().to_string()));
    assert!(shown.contains("optim.lr"));
}

#[test]
fn backticks_become_code_and_nothing_else_markup() {
    assert_eq!(
        prose("set `a.b` to <1> & `c`"),
        "set <code>a.b</code> to &lt;1&gt; &amp; <code>c</code>"
    );
    assert_eq!(prose("a ` b <"), "a ` b &lt;");
    assert_eq!(prose("`<i>`"), "<code>&lt;i&gt;</code>");
}

#[test]
fn blocks_of_code_and_cells_keep_their_content_inside() {
    assert_eq!(code("a ``` b"), "````\na ``` b\n````");
    assert_eq!(markdown("a|b\nc <d>", true), "a\\|b c &lt;d&gt;");
    assert_eq!(
        markdown("Raise `data.seq_len` of a_b|c.", false),
        "Raise `data.seq_len` of a\\_b|c."
    );
    for (text, expected) in [
        ("`<i>`", "\\`&lt;i&gt;\\`"),
        ("a ` b", "a \\` b"),
        ("`a` ` `b`", "\\`a\\` \\` \\`b\\`"),
        ("``a_b``", "\\`\\`a\\_b\\`\\`"),
        ("`a|b`", "\\`a\\|b\\`"),
    ] {
        assert_eq!(markdown(text, true), expected, "{text}");
    }
}
