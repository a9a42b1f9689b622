//! Runs a parsed template.

use super::{
    Clock, JinjaError,
    ast::{Arguments, Expr, Kind, Name, Statement, Target},
    filters, functions, methods,
    operators::{binary, compare, slice, unsuited},
    text::{bounded, str_of},
    value::{Closure, DEEPEST_VALUE, Depth, Fallible, LARGEST_TEXT, Value, insert, too_large},
};
use std::{cell::RefCell, rc::Rc};

/// Most statements and expressions that a rendering evaluates.
const MOST_STEPS: usize = 20_000_000;
/// Deepest nesting of calls, loops and expressions. Each level takes a few hundred bytes of stack.
const DEEPEST: usize = 400;

/// Names in a block, and the block around it.
pub struct Scope {
    names: RefCell<Vec<(Name, Value)>>,
    around: Option<Rc<Scope>>,
}

impl Scope {
    pub fn new(around: Option<Rc<Self>>) -> Rc<Self> {
        Rc::new(Self {
            names: RefCell::default(),
            around,
        })
    }

    pub fn set(&self, name: &str, value: Value) {
        let mut names = self.names.borrow_mut();
        match names.iter_mut().find(|(there, _)| &**there == name) {
            Some((_, old)) => *old = value,
            None => names.push((name.into(), value)),
        }
    }

    fn get(&self, name: &str) -> Option<Value> {
        let names = self.names.borrow();
        if let Some((_, value)) = names.iter().find(|(there, _)| &**there == name) {
            return Some(value.clone());
        }
        self.around.as_ref().and_then(|around| around.get(name))
    }
}

/// How a list of statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    On,
    Break,
    Continue,
}

/// The arguments of a call.
#[derive(Default)]
pub struct Given {
    pub positional: Vec<Value>,
    pub named: Vec<(Name, Value)>,
}

impl Given {
    pub fn of(positional: Vec<Value>) -> Self {
        Self {
            positional,
            named: Vec::new(),
        }
    }

    /// The arguments by the names of the parameters; None where one is not given.
    pub fn bind<const N: usize>(self, what: &str, parameters: [&str; N]) -> Fallible<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(format!("`{what}` takes at most {N} arguments"));
        }
        let mut bound: [Option<Value>; N] = std::array::from_fn(|_| None);
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let at = parameters.iter().position(|parameter| *parameter == &*name);
            match at.and_then(|at| bound.get_mut(at)) {
                Some(slot) if slot.is_none() => *slot = Some(value),
                Some(_) => return Err(format!("`{what}` got two values for `{name}`")),
                None => return Err(format!("`{what}` has no parameter `{name}`")),
            }
        }
        Ok(bound)
    }
}

/// A rendering on its way.
pub struct Interpreter<'a> {
    /// What `strftime_now` gives.
    pub clock: &'a Clock,
    steps: usize,
    depth: usize,
    pub line: usize,
    /// Scopes that hold a macro, which holds them.
    scopes_of_macros: Vec<Rc<Scope>>,
}

impl<'a> Interpreter<'a> {
    pub fn new(clock: &'a Clock) -> Self {
        Self {
            clock,
            steps: 0,
            depth: 0,
            line: 1,
            scopes_of_macros: Vec::new(),
        }
    }

    /// Renders a template with these names.
    pub fn render(&mut self, body: &[Statement], names: Vec<(String, Value)>) -> Result<String, JinjaError> {
        let context = Scope::new(None);
        for (name, value) in names {
            context.set(&name, value);
        }
        let mut out = String::new();
        let rendered = self.run(body, &Scope::new(Some(context)), &mut out);
        // Else they would keep each other, and stay.
        for scope in self.scopes_of_macros.drain(..) {
            scope.names.borrow_mut().clear();
        }
        let line = self.line;
        rendered.map_err(|problem| JinjaError { line, problem })?;
        Ok(out)
    }

    pub fn step(&mut self) -> Fallible<()> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(format!("the template takes more than {MOST_STEPS} steps"));
        }
        Ok(())
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

    pub fn run(&mut self, body: &[Statement], scope: &Rc<Scope>, out: &mut String) -> Fallible<Flow> {
        for statement in body {
            self.step()?;
            self.line = statement.line;
            let flow = self.deeper(|this| this.statement(&statement.kind, scope, out))?;
            if out.len() > LARGEST_TEXT {
                return Err(format!("the text grew past {} MiB", LARGEST_TEXT >> 20));
            }
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, kind: &Kind, scope: &Rc<Scope>, out: &mut String) -> Fallible<Flow> {
        match kind {
            Kind::Text(text) => out.push_str(text),
            Kind::Print(expr) => out.push_str(&str_of(&self.eval(expr, scope)?)?),
            Kind::For(statement) => {
                let iterable = self.eval(&statement.iterable, scope)?;
                self.for_loop(statement, &iterable, scope, 0, out)?;
            }
            Kind::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.eval(condition, scope)?.truth() {
                        return self.run(body, scope, out);
                    }
                }
                return self.run(otherwise, scope, out);
            }
            Kind::Set(target, expr) => {
                let value = self.eval(expr, scope)?;
                assign(target, value, scope)?;
            }
            Kind::SetBlock(target, filters, body) => {
                let value = self.captured(body, filters, scope)?;
                assign(target, value, scope)?;
            }
            Kind::FilterBlock(filters, body) => {
                let value = self.captured(body, filters, scope)?;
                out.push_str(&str_of(&value)?);
            }
            Kind::With(assigned, body) => {
                let inner = Scope::new(Some(scope.clone()));
                for (target, expr) in assigned {
                    let value = self.eval(expr, scope)?;
                    assign(target, value, &inner)?;
                }
                return self.run(body, &inner, out);
            }
            Kind::Macro(definition) => {
                let closure = Closure {
                    definition: definition.clone(),
                    scope: scope.clone(),
                };
                scope.set(&definition.name, Value::Macro(Rc::new(closure)));
                self.scopes_of_macros.push(scope.clone());
            }
            Kind::Call(function, arguments, body) => {
                let function = self.eval(function, scope)?;
                let mut given = self.arguments(arguments, scope)?;
                let closure = Closure {
                    definition: body.clone(),
                    scope: scope.clone(),
                };
                given.named.push(("caller".into(), Value::Macro(Rc::new(closure))));
                let value = self.call(&function, given)?;
                out.push_str(&str_of(&value)?);
            }
            Kind::Generation(body) => {
                self.run(body, &Scope::new(Some(scope.clone())), out)?;
            }
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// What a body prints, through a chain of filters.
    fn captured(&mut self, body: &[Statement], chain: &[(Name, Arguments)], scope: &Rc<Scope>) -> Fallible<Value> {
        let mut text = String::new();
        let inner = Scope::new(Some(scope.clone()));
        self.run(body, &inner, &mut text)?;
        let mut value = Value::from(text);
        for (name, arguments) in chain {
            let given = self.arguments(arguments, &inner)?;
            value = filters::apply(self, name, value, given)?;
        }
        Ok(value)
    }

    pub fn eval(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Fallible<Value> {
        self.step()?;
        let value = self.deeper(|this| this.expression(expr, scope))?;
        if value.depth() > DEEPEST_VALUE {
            return Err(format!("a value of more than {DEEPEST_VALUE} levels"));
        }
        Ok(value)
    }

    pub fn all(&mut self, exprs: &[Expr], scope: &Rc<Scope>) -> Fallible<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr, scope)).collect()
    }

    fn expression(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Fallible<Value> {
        Ok(match expr {
            Expr::Const(value) => value.clone(),
            Expr::Name(name) => match scope.get(name).or_else(|| functions::global(name)) {
                Some(value) => value,
                None => Value::undefined(format!("`{name}` is undefined")),
            },
            Expr::Tuple(items) => Value::tuple(self.all(items, scope)?),
            Expr::List(items) => Value::list(self.all(items, scope)?),
            Expr::Dict(items) => {
                let mut pairs = Vec::with_capacity(items.len());
                for (key, value) in items {
                    let (key, value) = (self.eval(key, scope)?, self.eval(value, scope)?);
                    insert(&mut pairs, key, value)?;
                }
                Value::dict(pairs)
            }
            Expr::Not(inner) => Value::Bool(!self.eval(inner, scope)?.truth()),
            Expr::And(left, right) => {
                let left = self.eval(left, scope)?;
                if left.truth() { self.eval(right, scope)? } else { left }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left, scope)?;
                if left.truth() { left } else { self.eval(right, scope)? }
            }
            Expr::Compare(first, others) => {
                let mut left = self.eval(first, scope)?;
                for (comparison, right) in others {
                    let right = self.eval(right, scope)?;
                    if !compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Value::Bool(true)
            }
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.eval(left, scope)?, self.eval(right, scope)?);
                binary(*operator, &left, &right)?
            }
            Expr::Negative(inner) => match self.eval(inner, scope)? {
                Value::Float(number) => Value::Float(-number),
                other => {
                    let number = other.as_int().ok_or_else(|| unsuited("-", &other))?;
                    Value::Int(number.checked_neg().ok_or_else(too_large)?)
                }
            },
            Expr::Positive(inner) => match self.eval(inner, scope)? {
                Value::Float(number) => Value::Float(number),
                other => Value::Int(other.as_int().ok_or_else(|| unsuited("+", &other))?),
            },
            Expr::Concat(parts) => {
                let mut text = String::new();
                for part in parts {
                    text.push_str(&str_of(&self.eval(part, scope)?)?);
                }
                bounded(text)?.into()
            }
            Expr::Conditional(condition, value, otherwise) => {
                if self.eval(condition, scope)?.truth() {
                    self.eval(value, scope)?
                } else if let Some(otherwise) = otherwise {
                    self.eval(otherwise, scope)?
                } else {
                    Value::undefined("an inline `if` without `else` evaluated to false")
                }
            }
            Expr::Attribute(inner, name) => {
                let value = self.eval(inner, scope)?;
                self.attribute(&value, name)?
            }
            Expr::Item(inner, index) => {
                let (value, index) = (self.eval(inner, scope)?, self.eval(index, scope)?);
                self.item(&value, &index)?
            }
            Expr::Slice(inner, bounds) => {
                let value = self.eval(inner, scope)?;
                let mut numbers = [None; 3];
                for (number, bound) in numbers.iter_mut().zip(bounds) {
                    if let Some(bound) = bound {
                        let bound = self.eval(bound, scope)?;
                        *number = match bound {
                            Value::None => None,
                            other => Some(other.as_int().ok_or("the bounds of a slice must be whole numbers")?),
                        };
                    }
                }
                slice(&value, numbers)?
            }
            Expr::Call(function, arguments) => {
                let function = self.eval(function, scope)?;
                let given = self.arguments(arguments, scope)?;
                self.call(&function, given)?
            }
            Expr::Filter(inner, name, arguments) => {
                let value = self.eval(inner, scope)?;
                let given = self.arguments(arguments, scope)?;
                filters::apply(self, name, value, given)?
            }
            Expr::Test(inner, name, arguments) => {
                let value = self.eval(inner, scope)?;
                let given = self.arguments(arguments, scope)?;
                Value::Bool(super::predicates::test(name, &value, given)?)
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
        Value::Macro(closure) if name == "name" => return Ok(Value::Str(closure.definition.name.clone())),
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

/// Assigns a value to names, or to a namespace's attribute.
pub fn assign(target: &Target, value: Value, scope: &Rc<Scope>) -> Fallible<()> {
    match target {
        Target::Name(name) => scope.set(name, value),
        Target::Attribute(name, attribute) => {
            let Some(Value::Namespace(fields)) = scope.get(name) else {
                return Err(format!("`{name}.{attribute}` can be set on a namespace only"));
            };
            functions::set_field(&mut fields.borrow_mut(), attribute, value)?;
        }
        Target::Tuple(targets) => {
            let items = value.elements_of()?;
            if items.len() != targets.len() {
                return Err(format!("{} values for {} names", items.len(), targets.len()));
            }
            for (target, item) in targets.iter().zip(items) {
                assign(target, item, scope)?;
            }
        }
    }
    Ok(())
}
