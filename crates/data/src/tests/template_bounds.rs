//! Templates that loop without end or grow without end: each is given up with a sentence, soon, and holds little.

use crate::template::{self, Clock};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Twice what a rendering that is given up may take, for machines that do other things as well.
const SOON: Duration = Duration::from_secs(10);

fn conversation(messages: usize, bytes: usize) -> Map<String, Value> {
    let message = json!({"role": "user", "content": "x".repeat(bytes)});
    let names = json!({"messages": vec![message; messages], "add_generation_prompt": true});
    names.as_object().cloned().unwrap()
}

fn render(template: &str, names: &Map<String, Value>) -> Result<String, String> {
    template::render(template, names, &Clock::EPOCH).map_err(|error| error.to_string())
}

/// A namespace whose `s` has grown to 16 MiB after 24 rounds.
const BIG: &str = "{% set ns = namespace(s='x', l=[], d={}) %}\
    {% for a in range(23) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";

#[test]
fn what_takes_too_long_is_given_up() {
    let names = conversation(1, 10);
    for template in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(100000) %}{% macro f() %}{% endmacro %}{% endfor %}\
         {% for a in range(100000) %}{% for b in range(100) %}{{ '' }}{% endfor %}{% endfor %}",
        // 2^60 comparisons of two values that share their parts.
        "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}\
         {% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
        "{{ range(100000)|unique|list|length }}",
        "{{ dict.fromkeys(range(100000))|length }}",
    ] {
        let begun = Instant::now();
        let error = render(template, &names).unwrap_err();
        assert!(
            error.contains("the template takes more than 10000000 steps")
                || error.contains("the template makes texts and lists of more than 64 MiB")
                || error.contains("levels of nesting"),
            "{template}: {error}"
        );
        assert!(begun.elapsed() < SOON, "{template} took {:?}", begun.elapsed());
    }
    // Reading a long text takes steps, too.
    for what in [
        "'z' in ns.s",
        "ns.s|length > 9",
        "ns.s == ns.s",
        "ns.s.startswith('y')",
        "ns.s|upper == ''",
    ] {
        let template = format!(
            "{BIG}{{% for a in range(100000) %}}{{% if {what} %}}{{% set ns.d = 1 %}}{{% endif %}}{{% endfor %}}"
        );
        let begun = Instant::now();
        let error = render(&template, &names).unwrap_err();
        assert!(error.contains("the template"), "{what}: {error}");
        assert!(begun.elapsed() < SOON, "{what} took {:?}", begun.elapsed());
    }
}

#[test]
fn what_makes_too_much_is_given_up() {
    let names = conversation(1, 10);
    for (template, says) in [
        (
            "{% set ns = namespace(s='x') %}{% for a in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}".to_owned(),
            "grew past 16 MiB",
        ),
        (
            "{% for a in range(100000) %}{{ messages }}{{ messages }}{{ messages }}{{ messages }}{% endfor %}".to_owned(),
            "the text grew past 263 KiB",
        ),
        (format!("{BIG}{{% for a in range(1000) %}}{{% set ns.l = ns.l + [ns.s ~ a] %}}{{% endfor %}}"), "of more than 64 MiB"),
        (format!("{BIG}{{{{ ns.s|replace('x', 'xxx') }}}}"), "too large"),
        (format!("{BIG}{{% set y = ns.s.replace('x', ',') %}}{{{{ y.split(',')|length }}}}"), "too large"),
        (format!("{BIG}{{% set y = ns.s.replace('x', '&') %}}{{{{ y|escape }}}}"), "too large"),
        (format!("{BIG}{{% set y = ns.s.replace('x', '\\x01') %}}{{{{ y|tojson }}}}"), "too large"),
        (format!("{BIG}{{% set y = ns.s.replace('x', '\\x01') %}}{{{{ [y] }}}}"), "too large"),
        (format!("{BIG}{{% for a in range(1000) %}}{{{{ ns.s[a:] }}}}{{% endfor %}}"), "64 MiB"),
        ("{% set ns = namespace(l=[0]) %}{% for a in range(30) %}{% set ns.l = ns.l + ns.l %}{% endfor %}".to_owned(), "too large"),
        // A list of a million elements, copied again and again.
        (
            "{% set big = [0] * 1000000 %}{% for a in range(1000) %}{% set c = big[1:] %}{% endfor %}".to_owned(),
            "64 MiB",
        ),
        // Every round of the loop is kept by the macro that it defines.
        ("{% for a in range(100000) %}{% for b in range(99) %}{% macro f() %}{% endmacro %}{% endfor %}{% endfor %}".to_owned(), "64 MiB"),
        // Every change from one message to another is noted.
        (
            "{% for a in range(100000) %}{% for b in range(99) %}{% generation %}{% endgeneration %}{% endfor %}{% endfor %}".to_owned(),
            "the template ",
        ),
    ] {
        let begun = Instant::now();
        let error = render(&template, &names).unwrap_err();
        assert!(error.contains(says), "{template}: {error}");
        assert!(begun.elapsed() < SOON, "{template} took {:?}", begun.elapsed());
    }
    let long = format!("{{# {} #}}", "x".repeat(1 << 20));
    assert!(
        render(&long, &names)
            .unwrap_err()
            .contains("the template has more than 1 MiB")
    );
}

/// A long conversation may take what a short one may not.
#[test]
fn long_conversations_are_rendered() {
    let plain = "{% for m in messages %}{% if loop.index0 > 0 and messages[loop.index0 - 1].role == m.role %}-{% endif %}\
        <|{{ m.role }}|>{{ m['content']|trim }}{% if loop.last or messages|last == m %}!{% endif %}{% endfor %}";
    let text = render(plain, &conversation(2000, 1000)).unwrap();
    assert_eq!(text.len(), 2000 * (1000 + "<|user|>!".len()) + 1999);
    // Built up from piece to piece, which is quadratic: 400 messages make 80 MB.
    let built =
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s ~ m.content %}{% endfor %}{{ ns.s }}";
    assert_eq!(render(built, &conversation(400, 1000)).unwrap().len(), 400_000);
    // What one rendering used up is not missing in the next.
    let names = conversation(1, 10);
    for _ in 0..3 {
        let _ = render(
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            &names,
        )
        .unwrap_err();
    }
    assert_eq!(render("{{ messages[0].content }}", &names).unwrap(), "xxxxxxxxxx");
}
