//! Documents with every token coloured by its weight.

use super::run::{Run, visible};
use crate::run::TokensLine;
use serde::Serialize;

/// Colours by weight: class, upper bound of the weight, and legend.
const CLASSES: [(&str, f64, &str); 7] = [
    ("w0", 0.25, "below 0.25"),
    ("w1", 0.5, "0.25 to 0.5"),
    ("w2", 0.85, "0.5 to 0.85"),
    ("w3", 1.18, "about 1"),
    ("w4", 1.6, "1.18 to 1.6"),
    ("w5", 2.2, "1.6 to 2.2"),
    ("w6", f64::INFINITY, "2.2 and more"),
];
/// The class of a token that is not trained.
const UNTRAINED: &str = "wz";

/// An entry of the legend.
#[derive(Clone, Debug, Serialize)]
pub struct Shade {
    /// CSS class.
    pub class: &'static str,
    /// Range of weights.
    pub label: &'static str,
}

/// The legend of the colours.
pub fn legend() -> Vec<Shade> {
    let classes = CLASSES.iter().map(|&(class, _, label)| Shade { class, label });
    std::iter::once(Shade {
        class: UNTRAINED,
        label: "exactly 0: not trained",
    })
    .chain(classes)
    .collect()
}

/// A document at all recorded steps that are shown.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Its name.
    pub document: String,
    /// Training or held out.
    pub split: &'static str,
    /// Its first tokens, which are not trained.
    pub prompt: String,
    /// The tokens after that, which are.
    pub response: String,
    /// At the first and at the last recorded step.
    pub moments: Vec<Moment>,
}

/// A document after some steps.
#[derive(Clone, Debug, Serialize)]
pub struct Moment {
    /// Number of steps before it.
    pub step: usize,
    /// The response's tokens.
    pub tokens: Vec<Token>,
    /// Mean cross-entropy of each head.
    pub ce: String,
    /// The heaviest tokens, for pages without colours.
    pub heaviest: String,
    /// Why there are no weights.
    pub problem: Option<String>,
}

/// A token as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Token {
    /// CSS class of its colour; empty without a weight.
    pub class: &'static str,
    /// Its text, whitespace made visible.
    pub text: String,
    /// Its figures, one per line.
    pub figures: String,
}

/// Every recorded document at its first and its last recorded step, training documents first.
pub fn samples(run: &Run) -> Vec<Sample> {
    let mut all: Vec<Sample> = Vec::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for line in &run.tokens {
        let key = (line.split.as_str(), line.observed.document.as_str());
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let same = |other: &&TokensLine| (other.split.as_str(), other.observed.document.as_str()) == key;
        let last = run.tokens.iter().rev().find(same).filter(|last| last.step != line.step);
        let prompt: String = line
            .tokens
            .iter()
            .take(line.observed.prompt_tokens)
            .map(String::as_str)
            .collect();
        all.push(Sample {
            document: visible(&line.observed.document),
            split: if line.split == "valid" { "held out" } else { "training" },
            prompt: visible(&prompt),
            response: visible(
                &line
                    .tokens
                    .iter()
                    .skip(line.observed.prompt_tokens)
                    .map(String::as_str)
                    .collect::<String>(),
            ),
            moments: std::iter::once(line).chain(last).map(moment).collect(),
        });
    }
    all
}

fn moment(line: &TokensLine) -> Moment {
    let seen = &line.observed;
    let response: Vec<&String> = line.tokens.iter().skip(seen.prompt_tokens).collect();
    let tokens = response
        .iter()
        .enumerate()
        .map(|(i, text)| token(line, i, text))
        .collect();
    let mean = |values: &Vec<Option<f64>>| {
        let known: Vec<f64> = values.iter().copied().flatten().collect();
        match known.len() {
            0 => "–".into(),
            n => format!("{:.3}", known.iter().sum::<f64>() / n as f64),
        }
    };
    let mut by_weight: Vec<(f64, &str)> = seen
        .weight
        .iter()
        .zip(&response)
        .filter_map(|(weight, text)| Some(((*weight)?, text.as_str())))
        .collect();
    by_weight.sort_by(|a, b| b.0.total_cmp(&a.0));
    let heaviest = by_weight
        .iter()
        .take(8)
        .map(|(weight, text)| format!("{} {weight:.2}", quoted(text)));
    Moment {
        step: line.step,
        tokens,
        ce: seen.ce.iter().map(mean).collect::<Vec<_>>().join(", "),
        heaviest: heaviest.collect::<Vec<_>>().join(", "),
        problem: seen.problem.as_deref().map(visible),
    }
}

fn token(line: &TokensLine, i: usize, text: &str) -> Token {
    let seen = &line.observed;
    let weight = seen.weight.get(i).copied().flatten();
    let mut figures = vec![format!("token {}", quoted(text))];
    let mut add = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            figures.push(format!("{} {}", name.replace('_', " "), number(value)));
        }
    };
    add("weight", weight);
    for (name, values) in &seen.scores {
        add(&visible(name), values.get(i).copied().flatten());
    }
    for (ce, k) in seen.ce.iter().zip(1..) {
        add(&format!("CE of head {k}"), ce.get(i).copied().flatten());
    }
    Token {
        class: weight.map_or("", class),
        text: marked(text),
        figures: figures.join("\n"),
    }
}

fn class(weight: f64) -> &'static str {
    if weight == 0.0 {
        return UNTRAINED;
    }
    CLASSES
        .iter()
        .find(|(_, below, _)| weight < *below)
        .map_or("w6", |(class, ..)| class)
}

fn number(value: f64) -> String {
    let digits = if value != 0.0 && value.abs() < 0.01 { 5 } else { 3 };
    format!("{value:.digits$}").replace('-', "\u{2212}")
}

/// A token's text on the page: line ends and tabs are preceded by a sign, and a token of spaces alone is
/// shown as dots.
fn marked(text: &str) -> String {
    if text.is_empty() {
        // A part of a character that ends with a later token.
        return "\u{25cc}".into();
    }
    let text = visible(text).replace('\n', "\u{23ce}\n").replace('\t', "\u{21e5}\t");
    if text.trim_matches(' ').is_empty() {
        return "\u{b7}".repeat(text.len());
    }
    text
}

/// A token's text within a sentence.
fn quoted(text: &str) -> String {
    let text = visible(text)
        .replace('\n', "\u{23ce}")
        .replace('\t', "\u{21e5}")
        .replace(' ', "\u{b7}");
    format!("\u{2039}{text}\u{203a}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(lines: &[serde_json::Value]) -> Run {
        Run {
            tokens: lines
                .iter()
                .map(|line| serde_json::from_value(line.clone()).unwrap())
                .collect(),
            ..Run::default()
        }
    }

    fn line(step: usize) -> serde_json::Value {
        json!({
            "step": step, "split": "valid", "document": "mbpp/511/reference", "prompt_tokens": 1,
            "tokens": ["ask ", "def", "    ", "\n", " </script>"],
            "weight": [2.5, 1.0, 0.0, null], "scores": {"score": [0.5, 0.0, -0.001, null], "value": [0.25, 0.5, 0.75, 1.0]},
            "ce": [[1.0, 2.0, 3.0, 4.0], [null, null, 5.0, 6.0]]
        })
    }

    #[test]
    fn a_document_is_shown_at_its_first_and_last_moment() {
        let all = samples(&run(&[line(0), line(50), line(100)]));
        assert_eq!(all.len(), 1);
        let sample = &all[0];
        assert_eq!((sample.split, sample.prompt.as_str()), ("held out", "ask "));
        let steps: Vec<usize> = sample.moments.iter().map(|moment| moment.step).collect();
        assert_eq!(steps, [0, 100]);
        assert_eq!(samples(&run(&[line(0)]))[0].moments.len(), 1);
    }

    #[test]
    fn every_token_has_its_colour_and_its_figures() {
        let all = samples(&run(&[line(0)]));
        let moment = &all[0].moments[0];
        let classes: Vec<&str> = moment.tokens.iter().map(|token| token.class).collect();
        assert_eq!(classes, ["w6", "w3", "wz", ""]);
        assert_eq!(
            moment.tokens[0].figures,
            "token ‹def›\nweight 2.500\nscore 0.500\nvalue 0.250\nCE of head 1 1.000"
        );
        assert!(moment.tokens[2].figures.contains("score \u{2212}0.00100\n"));
        assert_eq!(moment.ce, "2.500, 5.500");
        assert_eq!(moment.heaviest, "‹def› 2.50, ‹····› 1.00, ‹⏎› 0.00");
    }

    #[test]
    fn whitespace_is_visible_where_there_is_nothing_else() {
        let all = samples(&run(&[line(0)]));
        let texts: Vec<&str> = all[0].moments[0]
            .tokens
            .iter()
            .map(|token| token.text.as_str())
            .collect();
        assert_eq!(texts, ["def", "····", "⏎\n", " </script>"]);
        assert_eq!(marked(""), "◌");
        assert_eq!(marked("\u{0}\u{7f}\t"), "␀␡⇥\t");
        assert_eq!(marked("\n    "), "⏎\n    ");
    }

    #[test]
    fn colours_change_where_the_legend_says() {
        for (weight, expected) in [
            (1e-9, "w0"),
            (0.25, "w1"),
            (0.84, "w2"),
            (1.0, "w3"),
            (1.18, "w4"),
            (2.2, "w6"),
            (1e9, "w6"),
        ] {
            assert_eq!(class(weight), expected, "{weight}");
        }
        assert_eq!(legend().len(), CLASSES.len() + 1);
    }

    #[test]
    fn a_scorer_that_could_not_score_is_quoted() {
        let mut broken = line(0);
        broken["weight"] = json!([]);
        broken["scores"] = json!({});
        broken["problem"] = json!("no scores for this document");
        let all = samples(&run(&[broken]));
        let moment = &all[0].moments[0];
        assert_eq!(moment.problem.as_deref(), Some("no scores for this document"));
        assert!(moment.tokens.iter().all(|token| token.class.is_empty()));
        assert!(moment.tokens[0].figures.contains("CE of head 1 1.000"));
    }
}
