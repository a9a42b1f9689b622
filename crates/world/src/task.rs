//! A task: its description, tests, right and wrong programs; and how it is made.

use crate::{
    balance::Balance,
    draw::Draw,
    input::{self, SHOWN},
    mistake::{MistakeKind, edit},
    style::{Names, Style, python},
    tree::{InputKind, Tree},
};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What ends a program in prompts and responses, as in the prompts of MBPP.
pub const DONE: &str = "\n[DONE]";

/// A right program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Python, without a line end at its end.
    pub code: String,
    /// How it is written.
    pub style: Style,
}

/// A wrong program that was made from a right one by one edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// Python; it runs, and fails at least one of the task's tests.
    pub code: String,
    /// Index of the right program in the task's list.
    pub of: usize,
    /// The characters of the edit in `code`. It is empty where something was taken out.
    pub span: Range<usize>,
    /// The characters of the edit in the right program.
    pub right_span: Range<usize>,
    /// What is wrong.
    pub kind: MistakeKind,
}

impl Mistake {
    /// The mistake by which `code` was made from the right program number `of`; none where the programs differ in
    /// more than one place, as they do where the edit spans a whole comprehension.
    fn made_from(right: &str, of: usize, code: String, kind: MistakeKind) -> Option<Self> {
        let (right_span, span) = edit(right, &code);
        let whole = |text: Option<&str>| text.is_none_or(|text| text.contains(" for "));
        if whole(right.get(right_span.clone())) || whole(code.get(span.clone())) {
            return None;
        }
        Some(Self {
            code,
            of,
            span,
            right_span,
            kind,
        })
    }
}

/// A programming task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Number of the task in its world, from 1.
    pub id: u32,
    /// `world/` and the number.
    pub name: String,
    /// What to write, in words.
    pub description: String,
    /// The function's name.
    pub entry_point: String,
    /// Assert statements, at least 8. The prompt shows the first two.
    pub tests: Vec<String>,
    /// Right programs in different styles, 1 to 4. They pass all tests.
    pub right: Vec<Program>,
    /// Wrong programs: one for each right program, in their order.
    pub wrong: Vec<Mistake>,
    /// What the task combines: `numbers/even/square/sum` are input, filter, map and reduction.
    pub combination: String,
}

impl Task {
    /// The prompt, in the form of MBPP's zero-shot prompt (Austin et al. 2021, arXiv 2108.07732) with the first
    /// two tests. The model continues with the program and [`DONE`].
    pub fn prompt(&self) -> String {
        let shown = self.tests.get(..SHOWN).unwrap_or(&self.tests);
        format!(
            "You are an expert Python programmer, and here is your task: {} Your code should pass these \
             tests:\n\n{}\n[BEGIN]\n",
            self.description,
            shown.join("\n")
        )
    }

    /// What a model has to write after the prompt for the program `code`; the end token follows.
    pub fn response(code: &str) -> String {
        format!("{code}{DONE}")
    }

    /// A task of the combination of `combination`, with constants, names and words drawn anew. Mistakes are trees
    /// that `allowed` accepts. None where a right program would be without a mistake.
    pub(crate) fn draw(
        id: u32,
        combination: &Tree,
        allowed: impl Fn(&Tree) -> bool,
        balance: &mut Balance,
        draw: &mut Draw,
    ) -> Option<Self> {
        let tree = combination.with_constants(draw);
        let names = Names::new(tree.kind, draw);
        let mistakes = tree.neighbours(draw);
        let (inputs, mut mistakes) = input::inputs(&tree, mistakes, draw);
        mistakes.retain(|(mistake, _)| allowed(mistake));
        let mut styles: Vec<Style> = Style::ALL
            .into_iter()
            .filter(|style| style.suits(tree.reduce))
            .collect();
        draw.shuffle(&mut styles);
        styles.truncate(1 + draw.below(styles.len()));
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for (of, &style) in styles.iter().enumerate() {
            let code = python(&tree, style, &names);
            let candidates: Vec<_> = mistakes
                .iter()
                .filter(|(mistake, _)| style.suits(mistake.reduce))
                .filter_map(|(mistake, kind)| {
                    let edited = python(mistake, style, &names);
                    Some((*mistake, *kind, Mistake::made_from(&code, of, edited, *kind)?))
                })
                .collect();
            wrong.push(balance.choose(style, &tree, candidates, draw)?);
            right.push(Program { code, style });
        }
        let tests = inputs.iter().map(|input| {
            let (input, result) = (input.python(), tree.evaluate(input).python());
            format!("assert {}({input}) == {result}", names.function)
        });
        Some(Self {
            id,
            name: format!("world/{id}"),
            description: description(&tree, &names, draw),
            entry_point: names.function.to_owned(),
            tests: tests.collect(),
            right,
            wrong,
            combination: tree.combination().to_string(),
        })
    }
}

/// The task in words.
fn description(tree: &Tree, names: &Names, draw: &mut Draw) -> String {
    let Names {
        function, parameter, ..
    } = *names;
    let (input, everything) = match tree.kind {
        InputKind::Numbers => ("list", "values"),
        InputKind::Characters => ("string", "characters"),
    };
    let kept = tree.filter.words(everything, draw);
    let mapped = tree.map.words(&kept, draw);
    let result = tree.reduce.words(&mapped, draw);
    match draw.below(3) {
        0 => format!("Write a function {function} that takes a {input} {parameter} and returns {result}."),
        1 => format!("Write a Python function {function}({parameter}) that returns {result}."),
        _ => format!("Given a {input} {parameter}, write a function {function} that returns {result}."),
    }
}
