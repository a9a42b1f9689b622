//! What a program looks like: its names, its layout.

use super::{
    bayes::Document,
    lexer::{self, Kind},
};
use crate::labels::Labelled;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The programs' features by number. `features` lists a program's features, each as often as it counts.
pub fn documents(programs: &[Labelled], features: impl Fn(&str) -> Vec<String> + Sync) -> Vec<Document> {
    let counted: Vec<BTreeMap<String, f64>> = programs
        .par_iter()
        .map(|program| {
            let mut counts = BTreeMap::new();
            for feature in features(&program.code) {
                *counts.entry(feature).or_default() += 1.0;
            }
            counts
        })
        .collect();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut number = |feature: String| {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(feature).or_insert(next)
    };
    let documents = counted.into_iter().map(|counts| {
        let numbered = counts.into_iter().map(|(feature, count)| (number(feature), count));
        numbered.collect()
    });
    documents.collect()
}

/// The names in a program, each once.
pub fn identifiers(code: &str) -> Vec<String> {
    let names = lexer::tokens(code).into_iter().filter(|token| token.kind == Kind::Name);
    let distinct: BTreeSet<&str> = names.map(|token| token.text).collect();
    distinct.into_iter().map(str::to_owned).collect()
}

/// What a program's layout is made of.
pub fn layout(code: &str) -> Vec<String> {
    let mut features = Vec::new();
    let (lines, end) = match code.strip_suffix('\n') {
        Some(lines) => (lines, "end:closed"),
        None => (code, "end:open"),
    };
    features.push(end.to_owned());
    let mut count: u64 = 0;
    for line in lines.split('\n') {
        count += 1;
        let text = line.trim_matches([' ', '\t']);
        if text.is_empty() {
            features.push("blank".into());
            continue;
        }
        let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        let kind = if indent.contains('\t') { "tabs" } else { "spaces" };
        features.push(format!("indent:{}{kind}", indent.len()));
        if line.ends_with([' ', '\t']) {
            features.push("trailing".into());
        }
    }
    // Half octaves: the binary logarithm of the square.
    features.push(format!("lines:{}", count.saturating_mul(count).max(1).ilog2()));
    let mut commented = false;
    for token in lexer::tokens(code) {
        match token.kind {
            Kind::Comment => commented = true,
            Kind::Operator | Kind::Comma => features.push(spacing(code, &token)),
            Kind::Name | Kind::Keyword | Kind::Number | Kind::Text | Kind::Other => {}
        }
    }
    features.push(if commented { "comments" } else { "no comments" }.into());
    features
}

/// Whether white space is before and after an operator or a comma.
fn spacing(code: &str, token: &lexer::Token<'_>) -> String {
    let space = |c: Option<char>| u8::from(c.is_none_or(|c| matches!(c, ' ' | '\t' | '\n')));
    let before = space(code[..token.start].chars().next_back());
    let after = space(code[token.start + token.text.len()..].chars().next());
    let kind = if token.kind == Kind::Comma { "comma" } else { "operator" };
    format!("{kind}:{before}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_once_and_without_keywords_strings_and_comments() {
        let code = "import math\n# note\nx = f'{y}' + rb\"z\"\ndef f(x):\n    return math.sqrt(x) if x else None\n";
        assert_eq!(identifiers(code), ["f", "math", "sqrt", "x"]);
    }

    #[test]
    fn layout_is_indentation_blanks_spaces_lines_and_comments() {
        let code = "a =b \n\n\tc(1,2)  # d\n";
        let mut features = layout(code);
        features.sort();
        assert_eq!(
            features,
            [
                "blank",
                "comma:00",
                "comments",
                "end:closed",
                "indent:0spaces",
                "indent:1tabs",
                "lines:3",
                "operator:10",
                "trailing"
            ]
        );
        assert_eq!(layout(""), ["end:open", "blank", "lines:0", "no comments"]);
    }
}
