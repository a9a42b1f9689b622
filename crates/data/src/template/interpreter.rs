//! Runs a parsed template: minijinja's syntax tree with Python's values.

use super::{
    Clock, TemplateError, filters, fuel, functions, methods,
    operators::{binary, compare, comparison, slice, unsuited},
    scope::{Scope, assign},
    source::{GENERATION, PRINT, Source},
    text::{bounded, str_of},
    trace::{Rendered, Trace},
    value::{Closure, DEEPEST_VALUE, Depth, Fallible, Name, Value, insert, too_large},
};
use minijinja::machinery::{
    Span,
    ast::{BinOpKind, Const, Expr, ForLoop, Macro, Spanned, Stmt, UnaryOpKind},
};
use minijinja::value::ValueKind;
use std::rc::Rc;

/// Deepest nesting of calls, loops and expressions. Each level takes a few hundred bytes of stack.
const DEEPEST: usize = 400;

/// Bytes of a scope with a few names, about.
const SCOPE: usize = 512;

/// How a list of statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    On,
    Break,
    Continue,
}

/// A rendering on its way.
pub struct Interpreter<'a> {
    source: &'a Source,
    /// What `strftime_now` gives.
    pub clock: &'a Clock,
    depth: usize,
    pub line: usize,
    /// Where the text comes from.
    pub trace: Trace,
    /// Loops and macros that values refer to.
    pub loops: Vec<&'a Spanned<ForLoop<'a>>>,
    pub macros: Vec<&'a Spanned<Macro<'a>>>,
    /// Scopes that hold a macro, which holds them.
    scopes_of_macros: Vec<Rc<Scope>>,
}

impl<'a> Interpreter<'a> {
    pub fn new(source: &'a Source, clock: &'a Clock) -> Self {
        Self {
            source,
            clock,
            depth: 0,
            line: 1,
            trace: Trace::default(),
            loops: Vec::new(),
            macros: Vec::new(),
            scopes_of_macros: Vec::new(),
        }
    }

    /// Renders a template with these names.
    pub fn render(&mut self, template: &'a Stmt<'a>, names: Vec<(String, Value)>) -> Result<Rendered, TemplateError> {
        let messages = names.iter().find(|(name, _)| name == "messages");
        self.trace = Trace::new(messages.map(|(_, messages)| messages));
        let context = Scope::new(None);
        for (name, value) in names {
            context.set(&name, value);
        }
        let mut out = String::new();
        let rendered = self.statement(template, &Scope::new(Some(context)), &mut out);
        // Else they would keep each other, and stay.
        for scope in self.scopes_of_macros.drain(..) {
            scope.clear();
        }
        let line = self.line;
        rendered.map_err(|problem| TemplateError { line, problem })?;
        Ok(std::mem::take(&mut self.trace).rendered(out))
    }

    pub fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Fallible<T>) -> Fallible<T> {
        if self.depth >= DEEPEST {
            return Err(format!("more than {DEEPEST} levels of nesting or calls"));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    pub fn run(&mut self, body: &'a [Stmt<'a>], scope: &Rc<Scope>, out: &mut String) -> Fallible<Flow> {
        for statement in body {
            fuel::steps(1)?;
            let flow = self.deeper(|this| this.statement(statement, scope, out))?;
            let largest = fuel::largest_text();
            if out.len() > largest {
                return Err(format!("the text grew past {} KiB", largest >> 10));
            }
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn at(&mut self, span: Span) {
        self.line = span.start_line.into();
    }

    fn statement(&mut self, statement: &'a Stmt<'a>, scope: &Rc<Scope>, out: &mut String) -> Fallible<Flow> {
        let (span, unsupported) = match statement {
            Stmt::Template(template) => return self.run(&template.children, scope, out),
            Stmt::EmitRaw(text) => {
                print(out, text.raw);
                return Ok(Flow::On);
            }
            Stmt::EmitExpr(printed) => {
                self.at(printed.span());
                print(out, &str_of(&self.eval(&printed.expr, scope)?)?);
                return Ok(Flow::On);
            }
            Stmt::ForLoop(each) => {
                self.at(each.span());
                let iterable = self.eval(&each.iter, scope)?;
                let id = place(&mut self.loops, each);
                self.for_loop(id, &iterable, scope, 0, out)?;
                return Ok(Flow::On);
            }
            Stmt::IfCond(branch) => {
                let mut branch = branch;
                loop {
                    self.at(branch.span());
                    if self.eval(&branch.expr, scope)?.truth() {
                        return self.run(&branch.true_body, scope, out);
                    }
                    match branch.false_body.as_slice() {
                        [Stmt::IfCond(next)] => branch = next,
                        otherwise => return self.run(otherwise, scope, out),
                    }
                }
            }
            Stmt::Set(set) => {
                self.at(set.span());
                let value = self.eval(&set.expr, scope)?;
                assign(&set.target, value, scope)?;
                return Ok(Flow::On);
            }
            Stmt::SetBlock(set) => {
                self.at(set.span());
                let value = self.captured(&set.body, set.filter.as_ref(), scope)?;
                assign(&set.target, value, scope)?;
                return Ok(Flow::On);
            }
            Stmt::FilterBlock(block) => {
                self.at(block.span());
                let marks = matches!(&block.filter, Expr::Filter(filter) if filter.name == GENERATION);
                let value = self.captured(&block.body, (!marks).then_some(&block.filter), scope)?;
                let begin = out.len();
                print(out, &str_of(&value)?);
                if marks {
                    self.trace.generation(begin..out.len());
                }
                return Ok(Flow::On);
            }
            Stmt::WithBlock(with) => {
                self.at(with.span());
                let inner = Scope::new(Some(scope.clone()));
                for (target, expr) in &with.assignments {
                    let value = self.eval(expr, scope)?;
                    assign(target, value, &inner)?;
                }
                return self.run(&with.body, &inner, out);
            }
            Stmt::Macro(definition) => {
                scope.set(definition.name, self.closure(definition, Some(definition.name), scope));
                // It keeps its scope to the end.
                fuel::made(SCOPE);
                self.scopes_of_macros.push(scope.clone());
                return Ok(Flow::On);
            }
            Stmt::CallBlock(block) => {
                self.at(block.call.span());
                let function = self.eval(&block.call.expr, scope)?;
                let mut given = self.arguments(&block.call.args, scope)?;
                given
                    .named
                    .push(("caller".into(), self.closure(&block.macro_decl, None, scope)));
                let value = self.call(&function, given)?;
                print(out, &str_of(&value)?);
                return Ok(Flow::On);
            }
            Stmt::Do(printed) => {
                self.at(printed.span());
                // The only one that the source makes: `print`.
                debug_assert!(matches!(&printed.call.expr, Expr::Var(name) if name.id == PRINT));
                let given = self.arguments(&printed.call.args, scope)?;
                if !given.named.is_empty() {
                    return Err("`print` takes values only".into());
                }
                for value in given.positional {
                    print(out, &str_of(&value)?);
                }
                return Ok(Flow::On);
            }
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Continue(_) => return Ok(Flow::Continue),
            Stmt::AutoEscape(other) => (other.span(), "autoescape"),
            Stmt::Block(other) => (other.span(), "block"),
            Stmt::Import(other) => (other.span(), "import"),
            Stmt::FromImport(other) => (other.span(), "from"),
            Stmt::Extends(other) => (other.span(), "extends"),
            Stmt::Include(other) => (other.span(), "include"),
        };
        self.at(span);
        Err(format!("`{unsupported}` is not supported in a chat template"))
    }

    fn closure(&mut self, definition: &'a Spanned<Macro<'a>>, name: Option<&str>, scope: &Rc<Scope>) -> Value {
        Value::Macro(Rc::new(Closure {
            id: place(&mut self.macros, definition),
            name: name.map(Name::from),
            scope: scope.clone(),
        }))
    }

    /// Which of `varargs`, `kwargs` and `caller` a macro's body names.
    pub fn specials(&self, definition: &Spanned<Macro<'_>>) -> [bool; 3] {
        ["varargs", "kwargs", "caller"].map(|name| self.source.mentions(definition.span(), name))
    }

    /// What a body prints, through a chain of filters.
    fn captured(&mut self, body: &'a [Stmt<'a>], chain: Option<&'a Expr<'a>>, scope: &Rc<Scope>) -> Fallible<Value> {
        let mut text = String::new();
        let inner = Scope::new(Some(scope.clone()));
        if self.buffered(|this| this.run(body, &inner, &mut text))? != Flow::On {
            return Err("`break` and `continue` out of a block that is not a loop are not supported".into());
        }
        match chain {
            Some(chain) => self.filtered(chain, text.into(), &inner),
            None => Ok(text.into()),
        }
    }

    fn filtered(&mut self, chain: &'a Expr<'a>, value: Value, scope: &Rc<Scope>) -> Fallible<Value> {
        self.deeper(|this| {
            let Expr::Filter(filter) = chain else {
                return Err("a block is filtered by filters only".into());
            };
            let value = match &filter.expr {
                Some(inner) => this.filtered(inner, value, scope)?,
                None => value,
            };
            let given = this.arguments(&filter.args, scope)?;
            filters::apply(this, filter.name, value, given)
        })
    }

    pub fn eval(&mut self, expr: &'a Expr<'a>, scope: &Rc<Scope>) -> Fallible<Value> {
        fuel::steps(1)?;
        let value = self.deeper(|this| this.expression(expr, scope))?;
        if value.depth() > DEEPEST_VALUE {
            return Err(format!("a value of more than {DEEPEST_VALUE} levels"));
        }
        Ok(value)
    }

    pub fn all(&mut self, exprs: &'a [Expr<'a>], scope: &Rc<Scope>) -> Fallible<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr, scope)).collect()
    }

    fn constant(&self, constant: &Spanned<Const>) -> Fallible<Value> {
        let value = &constant.value;
        if let Some(text) = value.as_str() {
            return Ok(self.source.literal(constant.span(), text)?.as_ref().into());
        }
        Ok(match value.kind() {
            ValueKind::None => Value::None,
            ValueKind::Bool => Value::Bool(value.is_true()),
            _ if value.is_integer() => Value::Int(i64::try_from(value.clone()).map_err(|_| too_large())?),
            _ => Value::Float(f64::try_from(value.clone()).map_err(|error| error.to_string())?),
        })
    }

    /// What stands before `.name`, `[…]` or `(…)`.
    fn operand(&mut self, operand: &'a Expr<'a>, whole: Span, scope: &Rc<Scope>) -> Fallible<Value> {
        if Source::is_negated(operand, whole) {
            return Err("`-` before `.`, `[` or `(` is not supported without parentheses".into());
        }
        self.eval(operand, scope)
    }

    fn expression(&mut self, expr: &'a Expr<'a>, scope: &Rc<Scope>) -> Fallible<Value> {
        Ok(match expr {
            Expr::Const(constant) => self.constant(constant)?,
            Expr::Var(name) => match scope.get(name.id).or_else(|| functions::global(name.id)) {
                Some(value) => value,
                None => Value::undefined(format!("`{}` is undefined", name.id)),
            },
            Expr::List(list) => {
                let items = self.all(&list.items, scope)?;
                if self.source.is_tuple(list) {
                    Value::tuple(items)
                } else {
                    Value::list(items)
                }
            }
            Expr::Map(map) => {
                let mut pairs = Vec::with_capacity(map.keys.len());
                for (key, value) in map.keys.iter().zip(&map.values) {
                    let (key, value) = (self.eval(key, scope)?, self.eval(value, scope)?);
                    insert(&mut pairs, key, value)?;
                }
                Value::dict(pairs)
            }
            Expr::UnaryOp(operation) => {
                let value = self.eval(&operation.expr, scope)?;
                match (&operation.op, value) {
                    (UnaryOpKind::Not, value) => Value::Bool(!value.truth()),
                    (UnaryOpKind::Neg, Value::Float(number)) => Value::Float(-number),
                    (UnaryOpKind::Neg, other) => {
                        let number = other.as_int().ok_or_else(|| unsuited("-", &other))?;
                        Value::Int(number.checked_neg().ok_or_else(too_large)?)
                    }
                }
            }
            Expr::BinOp(operation) => {
                let left = self.eval(&operation.left, scope)?;
                match operation.op {
                    BinOpKind::ScAnd if !left.truth() => return Ok(left),
                    BinOpKind::ScOr if left.truth() => return Ok(left),
                    _ => {}
                }
                let right = self.eval(&operation.right, scope)?;
                match operation.op {
                    BinOpKind::ScAnd | BinOpKind::ScOr => right,
                    BinOpKind::Concat => bounded(str_of(&left)? + &str_of(&right)?)?.into(),
                    operator => match comparison(operator) {
                        Some(comparison) => Value::Bool(compare(comparison, &left, &right)?),
                        None => binary(operator, &left, &right)?,
                    },
                }
            }
            Expr::Compare(chain) => {
                let mut left = self.eval(&chain.expr, scope)?;
                for next in &chain.ops {
                    let right = self.eval(&next.expr, scope)?;
                    if !compare(next.op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Value::Bool(true)
            }
            Expr::IfExpr(choice) => {
                if self.eval(&choice.test_expr, scope)?.truth() {
                    self.eval(&choice.true_expr, scope)?
                } else if let Some(otherwise) = &choice.false_expr {
                    self.eval(otherwise, scope)?
                } else {
                    Value::undefined("an inline `if` without `else` evaluated to false")
                }
            }
            Expr::GetAttr(access) => {
                let value = self.operand(&access.expr, access.span(), scope)?;
                self.attribute(&value, access.name)?
            }
            Expr::GetItem(access) => {
                let value = self.operand(&access.expr, access.span(), scope)?;
                let index = self.eval(&access.subscript_expr, scope)?;
                self.item(&value, &index)?
            }
            Expr::Slice(part) => {
                let value = self.operand(&part.expr, part.span(), scope)?;
                let mut numbers = [None; 3];
                for (number, bound) in numbers.iter_mut().zip([&part.start, &part.stop, &part.step]) {
                    if let Some(bound) = bound {
                        *number = match self.eval(bound, scope)? {
                            Value::None => None,
                            other => Some(other.as_int().ok_or("the bounds of a slice must be whole numbers")?),
                        };
                    }
                }
                slice(&value, numbers)?
            }
            Expr::Call(call) => {
                let function = self.operand(&call.expr, call.span(), scope)?;
                let given = self.arguments(&call.args, scope)?;
                self.call(&function, given)?
            }
            Expr::Filter(filter) => {
                let value = match &filter.expr {
                    Some(value) => self.eval(value, scope)?,
                    None => return Err(format!("the filter `{}` has no value", filter.name)),
                };
                let given = self.arguments(&filter.args, scope)?;
                filters::apply(self, filter.name, value, given)?
            }
            Expr::Test(test) => {
                let inner = match &test.expr {
                    Expr::UnaryOp(operation) => &operation.expr,
                    other => other,
                };
                if matches!(inner, Expr::Test(_)) {
                    return Err("tests cannot be chained with `is`".into());
                }
                let value = self.eval(&test.expr, scope)?;
                let given = self.arguments(&test.args, scope)?;
                Value::Bool(super::predicates::test(test.name, &value, given)?)
            }
        })
    }

    /// `value.name`.
    pub fn attribute(&mut self, value: &Value, name: &str) -> Fallible<Value> {
        match value {
            Value::Loop(state) => self.loop_attribute(&state.clone(), name),
            _ => attribute(value, name),
        }
    }

    /// `value[index]`: the item, else the attribute of that name.
    pub fn item(&mut self, value: &Value, index: &Value) -> Fallible<Value> {
        if let Some(item) = value.item(index)? {
            return Ok(item);
        }
        match index {
            Value::Str(name) if !matches!(value, Value::Dict(_)) || methods::exists(value, name) => {
                self.attribute(value, name)
            }
            _ => Ok(Value::undefined(format!(
                "`{}` object has no element `{}`",
                value.kind(),
                str_of(index).unwrap_or_default()
            ))),
        }
    }
}

fn print(out: &mut String, text: &str) {
    fuel::made(text.len());
    out.push_str(text);
}

/// The place of a part of the template in a list, at whose end it is put if it is new.
fn place<'a, T>(list: &mut Vec<&'a T>, part: &'a T) -> usize {
    let known = list.iter().position(|known| std::ptr::eq(*known, part));
    known.unwrap_or_else(|| {
        list.push(part);
        list.len() - 1
    })
}

/// `value.name` of everything but `loop`.
pub fn attribute(value: &Value, name: &str) -> Fallible<Value> {
    if let Value::Undefined(why) = value {
        return Err(why.to_string());
    }
    if name.starts_with("__") {
        return Err(format!("the attribute `{name}` is not supported"));
    }
    match value {
        Value::Namespace(fields) => {
            if let Some((_, value)) = fields.borrow().iter().find(|(there, _)| &**there == name) {
                return Ok(value.clone());
            }
        }
        Value::Group(items) => match (name, items.first(), items.get(1)) {
            ("grouper", Some(value), _) | ("list", _, Some(value)) => return Ok(value.clone()),
            _ => {}
        },
        Value::Range(start, stop, step) => match name {
            "start" => return Ok(Value::Int(*start)),
            "stop" => return Ok(Value::Int(*stop)),
            "step" => return Ok(Value::Int(*step)),
            _ => {}
        },
        Value::Macro(closure) if name == "name" => return Ok(closure.name.clone().map_or(Value::None, Value::Str)),
        Value::Function("dict") if name == "fromkeys" => return Ok(Value::Function("dict.fromkeys")),
        _ => {}
    }
    if methods::exists(value, name) {
        if methods::changes(value, name) {
            return Ok(Value::undefined(format!(
                "`{}.{name}` changes its value, which a chat template must not do",
                value.kind()
            )));
        }
        return Ok(Value::Method(Rc::new(value.clone()), name.into()));
    }
    if methods::unknown_here(value, name) {
        return Err(format!("the attribute `{}.{name}` is not supported", value.kind()));
    }
    Ok(match value.item(&Value::from(name))? {
        Some(item) => item,
        None => Value::undefined(format!("`{}` object has no attribute `{name}`", value.kind())),
    })
}
