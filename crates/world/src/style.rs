//! A tree as a Python function, in several styles and with drawn names.

use crate::{
    draw::Draw,
    reduce::Reduce,
    tree::{InputKind, Tree},
};
use serde::{Deserialize, Serialize};

/// How a solution is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// One expression: a comprehension in a built-in function.
    Expression,
    /// A comprehension, and a second statement that reduces it.
    Steps,
    /// A loop that appends to a list, which is reduced after it.
    Collect,
    /// A loop that changes the result itself.
    Accumulate,
}

impl Style {
    /// All styles.
    pub const ALL: [Self; 4] = [Self::Expression, Self::Steps, Self::Collect, Self::Accumulate];

    /// Whether programs with this reduction can be written in the style.
    pub fn suits(self, reduce: Reduce) -> bool {
        let in_place = matches!(
            reduce,
            Reduce::Count | Reduce::Sum | Reduce::Join | Reduce::JoinReversed
        );
        self != Self::Accumulate || in_place
    }
}

/// Names in a task's programs. All of a task's programs have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The function.
    pub function: &'static str,
    /// Its parameter.
    pub parameter: &'static str,
    /// The loop variable.
    pub element: &'static str,
    /// The variable for what is returned.
    pub result: &'static str,
}

// Each is one or two tokens of small tokenizers, so that copying it from the prompt is soon learned.
const FUNCTIONS: [&str; 6] = ["f", "find", "get", "check", "task", "func"];
const LISTS: [&str; 4] = ["nums", "arr", "a", "xs"];
const STRINGS: [&str; 3] = ["s", "text", "word"];
const NUMBERS: [&str; 3] = ["x", "n", "i"];
const CHARACTERS: [&str; 3] = ["c", "ch", "x"];
const RESULTS: [&str; 3] = ["result", "res", "r"];

impl Names {
    /// Names drawn from the pools; no two pools that meet in a program share one.
    pub fn new(kind: InputKind, draw: &mut Draw) -> Self {
        let (parameter, element) = match kind {
            InputKind::Numbers => (draw.pick(&LISTS), draw.pick(&NUMBERS)),
            InputKind::Characters => (draw.pick(&STRINGS), draw.pick(&CHARACTERS)),
        };
        Self {
            function: draw.pick(&FUNCTIONS),
            parameter,
            element,
            result: draw.pick(&RESULTS),
        }
    }
}

/// The function in Python, without a line end at its end.
pub fn python(tree: &Tree, style: Style, names: &Names) -> String {
    let Names {
        function,
        parameter,
        element,
        result,
    } = *names;
    let value = tree.map.python(element);
    let condition = tree.filter.python(element);
    let clauses = match &condition {
        Some(condition) => format!("for {element} in {parameter} if {condition}"),
        None => format!("for {element} in {parameter}"),
    };
    let in_loop = |start: &str, statement: &str, end: &str| {
        let head = format!("    {result} = {start}\n    for {element} in {parameter}:\n");
        let body = match &condition {
            Some(condition) => format!("        if {condition}:\n            {statement}\n"),
            None => format!("        {statement}\n"),
        };
        format!("{head}{body}    return {end}")
    };
    let body = match style {
        Style::Expression => format!("    return {}", expression(tree.reduce, &value, &clauses)),
        Style::Steps => format!(
            "    {result} = [{value} {clauses}]\n    return {}",
            reduced(tree.reduce, result)
        ),
        Style::Collect => in_loop(
            "[]",
            &format!("{result}.append({value})"),
            &reduced(tree.reduce, result),
        ),
        Style::Accumulate => match tree.reduce {
            Reduce::Count => in_loop("0", &format!("{result} += 1"), result),
            Reduce::JoinReversed => in_loop("\"\"", &format!("{result} = {value} + {result}"), result),
            Reduce::Join => in_loop("\"\"", &format!("{result} += {value}"), result),
            _ => in_loop("0", &format!("{result} += {value}"), result),
        },
    };
    format!("def {function}({parameter}):\n{body}")
}

/// The reduction of `value` over the clauses of a comprehension.
fn expression(reduce: Reduce, value: &str, clauses: &str) -> String {
    let each = format!("{value} {clauses}");
    match reduce {
        Reduce::Count => format!("sum(1 {clauses})"),
        Reduce::Sum => format!("sum({each})"),
        Reduce::Max(default) => format!("max(({each}), default={})", default.python()),
        Reduce::Min(default) => format!("min(({each}), default={})", default.python()),
        Reduce::List => format!("[{each}]"),
        Reduce::Reversed => format!("[{each}][::-1]"),
        Reduce::Ascending => format!("sorted([{each}])"),
        Reduce::Descending => format!("sorted([{each}], reverse=True)"),
        Reduce::Join => format!("\"\".join({each})"),
        Reduce::JoinReversed => format!("\"\".join({each})[::-1]"),
        Reduce::JoinSorted => format!("\"\".join(sorted({each}))"),
    }
}

/// The reduction of a list in variable `list`.
fn reduced(reduce: Reduce, list: &str) -> String {
    match reduce {
        Reduce::Count => format!("len({list})"),
        Reduce::Sum => format!("sum({list})"),
        Reduce::Max(default) => format!("max({list}, default={})", default.python()),
        Reduce::Min(default) => format!("min({list}, default={})", default.python()),
        Reduce::List => list.to_owned(),
        Reduce::Reversed => format!("{list}[::-1]"),
        Reduce::Ascending => format!("sorted({list})"),
        Reduce::Descending => format!("sorted({list}, reverse=True)"),
        Reduce::Join => format!("\"\".join({list})"),
        Reduce::JoinReversed => format!("\"\".join({list})[::-1]"),
        Reduce::JoinSorted => format!("\"\".join(sorted({list}))"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{filter::Filter, map::Map, reduce::Fallback};

    const NAMES: Names = Names {
        function: "f",
        parameter: "a",
        element: "x",
        result: "r",
    };

    fn tree(filter: Filter, map: Map, reduce: Reduce) -> Tree {
        Tree {
            kind: InputKind::Numbers,
            filter,
            map,
            reduce,
        }
    }

    #[test]
    fn a_sum_in_four_styles() {
        let sum = tree(Filter::Odd, Map::Square, Reduce::Sum);
        let programs = Style::ALL.map(|style| python(&sum, style, &NAMES));
        assert_eq!(
            programs,
            [
                "def f(a):\n    return sum(x ** 2 for x in a if x % 2 == 1)",
                "def f(a):\n    r = [x ** 2 for x in a if x % 2 == 1]\n    return sum(r)",
                "def f(a):\n    r = []\n    for x in a:\n        if x % 2 == 1:\n            r.append(x ** 2)\n    return sum(r)",
                "def f(a):\n    r = 0\n    for x in a:\n        if x % 2 == 1:\n            r += x ** 2\n    return r",
            ]
        );
    }

    #[test]
    fn without_filter_and_map_the_elements_stand_alone() {
        let max = tree(Filter::All, Map::Same, Reduce::Max(Fallback::None));
        assert_eq!(
            python(&max, Style::Expression, &NAMES),
            "def f(a):\n    return max((x for x in a), default=None)"
        );
        let reversed = tree(Filter::All, Map::Same, Reduce::JoinReversed);
        assert_eq!(
            python(&reversed, Style::Accumulate, &NAMES),
            "def f(a):\n    r = \"\"\n    for x in a:\n        r = x + r\n    return r"
        );
    }

    #[test]
    fn names_of_one_program_are_distinct() {
        for kind in [InputKind::Numbers, InputKind::Characters] {
            let draw = &mut Draw::new(0, 0);
            for _ in 0..500 {
                let Names {
                    function,
                    parameter,
                    element,
                    result,
                } = Names::new(kind, draw);
                let mut names = [function, parameter, element, result];
                names.sort_unstable();
                assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
            }
        }
    }
}
