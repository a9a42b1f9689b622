//! Chat templates against what transformers 5 renders (`tests/fixtures/chat/make.py`).

use crate::template::{self, Clock};
use serde_json::{Map, Value};
use std::{fs, path::Path};

fn names(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

#[test]
fn every_template_gives_the_text_that_transformers_gives_or_is_refused_by_both() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat");
    let expected: Value = serde_json::from_str(&fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    let clock = Clock::parse(expected["today"].as_str().unwrap()).unwrap();
    let (mut snippets, mut conversations) = (0, 0);
    for entry in expected["entries"].as_array().unwrap() {
        let mut template = entry["template"].as_str().unwrap().to_owned();
        let given = if entry["names"].is_null() {
            snippets += 1;
            names(&expected["names"])
        } else {
            conversations += 1;
            template = fs::read_to_string(folder.join("templates").join(template)).unwrap();
            names(&entry["names"])
        };
        let rendered = template::render(&template, &given, &clock);
        match entry["text"].as_str() {
            Some(text) => assert_eq!(rendered.as_deref(), Ok(text), "{}: {template}", entry["name"]),
            None => assert!(rendered.is_err(), "{}: {template} gives {rendered:?}", entry["name"]),
        }
    }
    assert!(
        snippets >= 150 && conversations >= 108,
        "{snippets} and {conversations}"
    );
}

/// What is not covered is an error with its line, never another text.
#[test]
fn what_is_not_covered_is_refused_with_its_line() {
    let clock = Clock::parse("2024-07-26").unwrap();
    for (template, expected) in [
        (
            "a\n{{ messages|pprint }}",
            "line 2: the filter `pprint` is not supported",
        ),
        ("{{ cycler(1) }}", "the function `cycler` is not supported"),
        ("{{ ''.__class__ }}", "the attribute `__class__` is not supported"),
        (
            "{% autoescape true %}{% endautoescape %}",
            "`autoescape` is not supported",
        ),
        (
            "{{ strftime_now('%H:%M') }}",
            "`strftime_now` with `%H` is not supported",
        ),
        ("{{ 9223372036854775807 + 1 }}", "the value is too large"),
        ("{{ 'straße'.title() }}", "`title` of this text outside ASCII"),
        ("{{ '\u{b2}'.isdigit() }}", "`isdigit` of this text outside ASCII"),
        ("{{ ('a'|safe).upper() }}", "is not supported"),
        ("{{ 'x'.join }}", "has no fixed text"),
    ] {
        let error = template::render(template, &Map::new(), &clock).unwrap_err().to_string();
        assert!(error.contains(expected), "{template}: {error}");
    }
}

/// A hostile template ends with an error, not with the machine's memory or stack.
#[test]
fn work_is_bounded() {
    let clock = Clock::parse("2024-07-26").unwrap();
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let not = format!("{{{{ {} 1 }}}}", "not ".repeat(5000));
    let minus = format!("{{{{ {}1 }}}}", "-".repeat(5000));
    let nested = "{% if 1 %}".repeat(5000);
    let loops = "{% for a in range(99999) %}".repeat(3) + "x" + &"{% endfor %}".repeat(3);
    let sum = format!("{{{{ 1{} }}}}", "+1".repeat(50_000));
    let items = format!("{{{{ x{} }}}}", "[0]".repeat(50_000));
    let filters = format!("{{{{ x{} }}}}", "|list".repeat(50_000));
    let choices = format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(50_000));
    let elifs = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(50_000));
    for template in [
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{{ 'a' * 9999999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 'a'.ljust(999999999) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 2 ** 99999 }}",
        // Dropping or comparing a value takes stack for every level of it.
        "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(90000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(90000) %}{% set ns.x = namespace(p=ns.x) %}{% endfor %}",
        "{{ 'a'|batch(9999999999, 'x')|list }}",
        "{{ [1]|slice(99999999)|list }}",
        "{{ 'a\\nb'|indent(99999999) }}",
        deep.as_str(),
        not.as_str(),
        minus.as_str(),
        nested.as_str(),
        loops.as_str(),
        sum.as_str(),
        items.as_str(),
        filters.as_str(),
        choices.as_str(),
        elifs.as_str(),
    ] {
        let rendered = template::render(template, &Map::new(), &clock);
        assert!(rendered.is_err(), "{}", template.chars().take(60).collect::<String>());
    }
}

#[test]
fn days_are_read_and_written() {
    for wrong in [
        "2024-02-30",
        "2024-1-01",
        "24-01-01",
        "",
        "2024-01-01x",
        "2024-13-01",
        "0000-01-01",
    ] {
        assert_eq!(Clock::parse(wrong), None, "{wrong}");
    }
    // datetime.date(2000, 2, 29).strftime('%A %d %B %Y, %j %a %b %y %u %w %F')
    let text = Clock::parse("2000-02-29")
        .unwrap()
        .format("%A %d %B %Y, %j %a %b %y %u %w %F");
    assert_eq!(text.unwrap(), "Tuesday 29 February 2000, 060 Tue Feb 00 2 2 2000-02-29");
    let text = Clock::parse("2026-11-29").unwrap().format("%A %u %w %j").unwrap();
    assert_eq!(text, "Sunday 7 0 333");
}
