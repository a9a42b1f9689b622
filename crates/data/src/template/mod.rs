//! Chat templates: Jinja as jinja2 3.1 renders it inside transformers 5.
//!
//! A chat template decides which tokens are trained, so it is rendered as transformers renders it or
//! not at all: what this renderer lacks is an error that names it, never another text. minijinja reads
//! the template. Its evaluator does not give that text, because Jinja's values are Python's: `{{ ['a',
//! none] }}` prints `['a', None]`, dictionaries keep their order, a generator is used up by its first
//! loop, `%` and `.format` format, `tojson(indent=2)` is `json.dumps`. So its syntax tree is evaluated
//! here.
//!
//! Covers the environment that transformers makes: `trim_blocks` and `lstrip_blocks`, the immutable
//! sandbox (methods that change a value are refused), loop controls, `{% generation %}`,
//! `raise_exception`, `strftime_now` (a given date), namespaces, macros, `call`, `filter` and `set`
//! blocks, recursive loops. Not covered, and refused: other templates (`include`, `import`,
//! `extends`, `block`), `autoescape`, `lipsum`, `cycler`, `joiner`, the filters `filesizeformat`,
//! `pprint`, `random`, `striptags`, `urlize`, `wordwrap` and `xmlattr`, whole numbers of more than 64
//! bits, methods of texts outside ASCII where Unicode's classes are not certain.
//!
//! Work and memory are bounded: steps, nesting, the length of texts and lists, and what is made in all (`fuel`).
//!
//! The semantics are those of Jinja (Pallets) and CPython; `tests/fixtures/chat/make.py` writes the
//! expected texts with the two of them.

mod arguments;
mod calls;
mod clock;
mod filters;
mod format;
mod fuel;
mod functions;
mod interpreter;
mod methods;
mod numbers;
mod operators;
mod predicates;
mod scope;
mod sequences;
mod source;
mod strings;
mod text;
mod trace;
mod value;

pub use clock::Clock;
pub use source::Source;
pub use trace::{Part, Rendered};

use minijinja::machinery::ast::Stmt;
use value::Value;

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// From 1.
    pub line: usize,
    /// In words.
    pub problem: String,
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// Renders `template` with the fields of `names`, a JSON object. Fields keep their order.
///
/// # Errors
/// The template's syntax, what it does wrong or what `raise_exception` says, and whatever is not
/// covered.
#[cfg(test)]
pub fn render(
    template: &str,
    names: &serde_json::Map<String, serde_json::Value>,
    clock: &Clock,
) -> Result<String, TemplateError> {
    let source = Source::read(template)?;
    Ok(Template::parse(&source)?.render(names, clock)?.text)
}

/// A template that is parsed once and rendered several times.
pub struct Template<'s> {
    source: &'s Source,
    tree: Stmt<'s>,
}

impl<'s> Template<'s> {
    /// Parses a template.
    ///
    /// # Errors
    /// The template's syntax.
    pub fn parse(source: &'s Source) -> Result<Self, TemplateError> {
        Ok(Self {
            source,
            tree: source.parse()?,
        })
    }

    /// As [`render`], with the places of messages and `{% generation %}` blocks.
    ///
    /// # Errors
    /// As [`render`].
    pub fn render(
        &self,
        names: &serde_json::Map<String, serde_json::Value>,
        clock: &Clock,
    ) -> Result<Rendered, TemplateError> {
        let fuel = fuel::Rendering::prepare();
        let mut values = Vec::with_capacity(names.len());
        for (name, value) in names {
            values.push((name.clone(), from_json(value)?));
        }
        fuel.begin();
        interpreter::Interpreter::new(self.source, clock).render(&self.tree, values)
    }
}

fn from_json(value: &serde_json::Value) -> Result<Value, TemplateError> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => Value::None,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(real)) if number.is_f64() => Value::Float(real),
            _ => {
                return Err(TemplateError {
                    line: 1,
                    problem: format!("the number {number} of a message is too large"),
                });
            }
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::list(items.iter().map(from_json).collect::<Result<_, _>>()?),
        Json::Object(fields) => {
            let pairs: Result<Vec<_>, _> = fields
                .iter()
                .map(|(name, value)| Ok((Value::from(name.as_str()), from_json(value)?)))
                .collect();
            Value::dict(pairs?)
        }
    })
}
