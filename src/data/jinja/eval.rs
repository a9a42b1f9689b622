//! Runs a parsed template.

use super::{
    Clock, JinjaError,
    ast::{Arguments, Comparison, Expr, ForLoop, Kind, Macro, Name, Operator, Statement, Target},
    filters, format, functions, methods,
    text::{bounded, slice_indices, str_of},
    value::{Closure, Fallible, LARGEST_LIST, LARGEST_TEXT, LoopState, Value, insert, too_large},
};
use std::{cell::RefCell, collections::VecDeque, rc::Rc};

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
enum Flow {
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
    line: usize,
}

impl<'a> Interpreter<'a> {
    pub fn new(clock: &'a Clock) -> Self {
        Self {
            clock,
            steps: 0,
            depth: 0,
            line: 1,
        }
    }

    /// Renders a template with these names.
    pub fn render(&mut self, body: &[Statement], names: Vec<(String, Value)>) -> Result<String, JinjaError> {
        let context = Scope::new(None);
        for (name, value) in names {
            context.set(&name, value);
        }
        let mut out = String::new();
        self.run(body, &Scope::new(Some(context)), &mut out)
            .map_err(|problem| JinjaError {
                line: self.line,
                problem,
            })?;
        Ok(out)
    }

    fn step(&mut self) -> Fallible<()> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(format!("the template takes more than {MOST_STEPS} steps"));
        }
        Ok(())
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Fallible<T>) -> Fallible<T> {
        if self.depth >= DEEPEST {
            return Err(format!("more than {DEEPEST} levels of nesting or calls"));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    fn run(&mut self, body: &[Statement], scope: &Rc<Scope>, out: &mut String) -> Fallible<Flow> {
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

    fn for_loop(
        &mut self,
        statement: &Rc<ForLoop>,
        iterable: &Value,
        scope: &Rc<Scope>,
        depth0: usize,
        out: &mut String,
    ) -> Fallible<()> {
        let known = statement.condition.is_none().then(|| iterable.length().ok()).flatten();
        let source = match iterable {
            Value::Iter(items) => items.clone(),
            other => Rc::new(RefCell::new(VecDeque::from(other.elements_of()?))),
        };
        let state = Rc::new(LoopState {
            source,
            ahead: RefCell::default(),
            known_length: RefCell::new(known),
            index0: RefCell::new(0),
            before: RefCell::new(None),
            current: RefCell::new(None),
            changed: RefCell::new(None),
            depth0,
            statement: statement.clone(),
            scope: scope.clone(),
        });
        let mut rounds = 0;
        loop {
            let next = match state.ahead.borrow_mut().pop_front() {
                Some(next) => Some(next),
                None => None,
            };
            let next = match next {
                Some(next) => Some(next),
                None => self.fetch(&state)?,
            };
            let Some(item) = next else { break };
            self.step()?;
            *state.index0.borrow_mut() = rounds;
            let current = state.current.replace(Some(item.clone()));
            *state.before.borrow_mut() = current;
            rounds += 1;
            let inner = Scope::new(Some(scope.clone()));
            inner.set("loop", Value::Loop(state.clone()));
            assign(&statement.target, item, &inner)?;
            let flow = self.run(&statement.body, &inner, out)?;
            self.line = statement.line;
            if flow == Flow::Break {
                break;
            }
        }
        if rounds == 0 {
            let inner = Scope::new(Some(scope.clone()));
            if self.run(&statement.otherwise, &inner, out)? != Flow::On {
                return Err("`break` or `continue` in the `else` of a loop is not supported".into());
            }
        }
        Ok(())
    }

    /// The next element that passes the loop's `if`.
    fn fetch(&mut self, state: &LoopState) -> Fallible<Option<Value>> {
        loop {
            let Some(item) = state.source.borrow_mut().pop_front() else {
                return Ok(None);
            };
            let Some(condition) = &state.statement.condition else {
                return Ok(Some(item));
            };
            self.step()?;
            let inner = Scope::new(Some(state.scope.clone()));
            assign(&state.statement.target, item.clone(), &inner)?;
            if self.eval(condition, &inner)?.truth() {
                return Ok(Some(item));
            }
        }
    }

    /// An attribute of `loop`.
    fn loop_attribute(&mut self, state: &Rc<LoopState>, name: &str) -> Fallible<Value> {
        let index0 = *state.index0.borrow();
        Ok(match name {
            "index0" => Value::int(index0)?,
            "index" => Value::int(index0 + 1)?,
            "first" => Value::Bool(index0 == 0),
            "depth0" => Value::int(state.depth0)?,
            "depth" => Value::int(state.depth0 + 1)?,
            "length" => Value::int(self.loop_length(state)?)?,
            "revindex" => Value::int(self.loop_length(state)?.saturating_sub(index0))?,
            "revindex0" => Value::int(self.loop_length(state)?.saturating_sub(index0 + 1))?,
            "last" => Value::Bool(self.loop_next(state)?.is_none()),
            "nextitem" => match self.loop_next(state)? {
                Some(next) => next,
                None => Value::undefined("there is no next item"),
            },
            "previtem" => match state.before.borrow().clone() {
                Some(before) if index0 > 0 => before,
                _ => Value::undefined("there is no previous item"),
            },
            "cycle" | "changed" => Value::Method(Rc::new(Value::Loop(state.clone())), name.into()),
            _ => Value::undefined(format!("`loop` has no attribute `{name}`")),
        })
    }

    fn loop_next(&mut self, state: &LoopState) -> Fallible<Option<Value>> {
        let ahead = state.ahead.borrow().front().cloned();
        if ahead.is_some() {
            return Ok(ahead);
        }
        let next = self.fetch(state)?;
        state.ahead.borrow_mut().extend(next.clone());
        Ok(next)
    }

    fn loop_length(&mut self, state: &LoopState) -> Fallible<usize> {
        if let Some(known) = *state.known_length.borrow() {
            return Ok(known);
        }
        while let Some(next) = self.fetch(state)? {
            state.ahead.borrow_mut().push_back(next);
        }
        let length = *state.index0.borrow() + 1 + state.ahead.borrow().len();
        *state.known_length.borrow_mut() = Some(length);
        Ok(length)
    }

    pub fn eval(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Fallible<Value> {
        self.step()?;
        self.deeper(|this| this.expression(expr, scope))
    }

    fn all(&mut self, exprs: &[Expr], scope: &Rc<Scope>) -> Fallible<Vec<Value>> {
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
                Value::Dict(Rc::new(pairs))
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
                Value::Bool(super::tests_of::test(name, &value, given)?)
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

    fn arguments(&mut self, arguments: &Arguments, scope: &Rc<Scope>) -> Fallible<Given> {
        let mut given = Given::of(self.all(&arguments.positional, scope)?);
        for (name, expr) in &arguments.named {
            given.named.push((name.clone(), self.eval(expr, scope)?));
        }
        if let Some(more) = &arguments.more {
            given.positional.extend(self.eval(more, scope)?.elements_of()?);
        }
        if let Some(more) = &arguments.more_named {
            let Value::Dict(pairs) = self.eval(more, scope)? else {
                return Err("`**` needs a dictionary".into());
            };
            for (name, value) in pairs.iter() {
                let name = name.as_str().ok_or("names of arguments must be texts")?;
                given.named.push((name.into(), value.clone()));
            }
        }
        Ok(given)
    }

    /// Calls a function, a method or a macro.
    pub fn call(&mut self, function: &Value, given: Given) -> Fallible<Value> {
        self.deeper(|this| match function {
            Value::Macro(closure) => this.call_macro(closure, given),
            Value::Function(name) => functions::call(this, name, given),
            Value::Method(value, name) => match &**value {
                Value::Loop(state) => loop_method(state, name, given),
                value => methods::call(value, name, given),
            },
            Value::Loop(state) => {
                let [iterable] = given.bind("loop", ["iterable"])?;
                if !state.statement.recursive {
                    return Err("the loop must be marked `recursive` to be called".into());
                }
                let mut out = String::new();
                let iterable = iterable.ok_or("`loop` needs what to loop over")?;
                this.for_loop(&state.statement, &iterable, &state.scope, state.depth0 + 1, &mut out)?;
                Ok(out.into())
            }
            Value::Undefined(why) => Err(why.to_string()),
            other => Err(format!("`{}` object is not callable", other.kind())),
        })
    }

    fn call_macro(&mut self, closure: &Closure, mut given: Given) -> Fallible<Value> {
        let Macro {
            name,
            parameters,
            body,
            uses: [varargs, kwargs, caller],
        } = &*closure.definition;
        let scope = Scope::new(Some(closure.scope.clone()));
        let mut positional = given.positional.into_iter();
        for (parameter, default) in parameters {
            let named = given.named.iter().position(|(name, _)| name == parameter);
            let value = match (positional.next(), named) {
                (Some(value), _) => value,
                (None, Some(at)) => given.named.remove(at).1,
                (None, None) => match default {
                    Some(default) => self.eval(default, &scope)?,
                    None => Value::undefined(format!("parameter `{parameter}` was not provided")),
                },
            };
            scope.set(parameter, value);
        }
        let rest: Vec<Value> = positional.collect();
        let is_parameter = |special: &str| parameters.iter().any(|(name, _)| &**name == special);
        if *caller && !is_parameter("caller") {
            let at = given.named.iter().position(|(name, _)| &**name == "caller");
            let value = match at {
                Some(at) => given.named.remove(at).1,
                None => Value::undefined("no caller defined"),
            };
            scope.set("caller", value);
        }
        if *kwargs && !is_parameter("kwargs") {
            let pairs = given.named.drain(..).map(|(name, value)| (Value::Str(name), value));
            scope.set("kwargs", Value::Dict(Rc::new(pairs.collect())));
        } else if let Some((unknown, _)) = given.named.first() {
            return Err(format!("macro `{name}` has no parameter `{unknown}`"));
        }
        if *varargs && !is_parameter("varargs") {
            scope.set("varargs", Value::tuple(rest));
        } else if !rest.is_empty() {
            return Err(format!("macro `{name}` takes at most {} arguments", parameters.len()));
        }
        let mut out = String::new();
        let line = self.line;
        self.run(body, &scope, &mut out)?;
        self.line = line;
        Ok(out.into())
    }
}

fn loop_method(state: &LoopState, name: &str, given: Given) -> Fallible<Value> {
    if !given.named.is_empty() {
        return Err(format!("`loop.{name}` has no named parameters"));
    }
    if name == "changed" {
        let mut last = state.changed.borrow_mut();
        let same = match &*last {
            Some(last) => Value::tuple(last.clone()).equals(&Value::tuple(given.positional.clone()))?,
            None => false,
        };
        *last = Some(given.positional);
        return Ok(Value::Bool(!same));
    }
    let length = given.positional.len();
    let at = state
        .index0
        .borrow()
        .checked_rem(length)
        .ok_or("`loop.cycle` needs values")?;
    given
        .positional
        .into_iter()
        .nth(at)
        .ok_or_else(|| "`loop.cycle` needs values".to_owned())
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
fn assign(target: &Target, value: Value, scope: &Rc<Scope>) -> Fallible<()> {
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

pub fn compare(comparison: Comparison, left: &Value, right: &Value) -> Fallible<bool> {
    Ok(match comparison {
        Comparison::Equal => left.equals(right)?,
        Comparison::NotEqual => !left.equals(right)?,
        Comparison::In => right.contains(left)?,
        Comparison::NotIn => !right.contains(left)?,
        ordered => {
            // None: a NaN, which has no order.
            let order = left.compare(right)?;
            order.is_some_and(|order| match ordered {
                Comparison::Less => order.is_lt(),
                Comparison::LessEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                _ => order.is_ge(),
            })
        }
    })
}

fn unsuited(operator: &str, value: &Value) -> String {
    match value {
        Value::Undefined(why) => why.to_string(),
        other => format!("`{operator}` does not apply to `{}`", other.kind()),
    }
}

/// `value[start:stop:step]`.
fn slice(value: &Value, bounds: [Option<i64>; 3]) -> Fallible<Value> {
    let taken = |items: &[Value]| -> Fallible<Vec<Value>> {
        let indices = slice_indices(items.len(), bounds)?;
        Ok(indices.into_iter().filter_map(|i| items.get(i).cloned()).collect())
    };
    Ok(match value {
        Value::Str(text) => {
            let chars: Vec<char> = text.chars().collect();
            let indices = slice_indices(chars.len(), bounds)?;
            indices
                .into_iter()
                .filter_map(|i| chars.get(i))
                .collect::<String>()
                .into()
        }
        Value::List(items) => Value::list(taken(items)?),
        Value::Tuple(items) | Value::Group(items) => Value::tuple(taken(items)?),
        Value::Undefined(why) => return Err(why.to_string()),
        other => return Err(format!("a slice of a `{}` is not supported", other.kind())),
    })
}

/// An arithmetic operation; also what `+`, `*` and `%` do with texts and lists.
pub fn binary(operator: Operator, left: &Value, right: &Value) -> Fallible<Value> {
    use Operator::{Add, Divide, FloorDivide, Modulo, Multiply, Power, Subtract};
    if let (Modulo, Value::Str(template)) = (operator, left) {
        return format::percent(template, right).map(Value::from);
    }
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        let zero = || "division by zero".to_owned();
        return Ok(match operator {
            Add => Value::Int(a.checked_add(b).ok_or_else(too_large)?),
            Subtract => Value::Int(a.checked_sub(b).ok_or_else(too_large)?),
            Multiply => Value::Int(a.checked_mul(b).ok_or_else(too_large)?),
            Divide if b == 0 => return Err(zero()),
            Divide if a.unsigned_abs().max(b.unsigned_abs()) >= 1 << 53 => return Err(too_large()),
            Divide => Value::Float(a as f64 / b as f64),
            FloorDivide | Modulo if b == 0 => return Err(zero()),
            FloorDivide => {
                let quotient = a.checked_div(b).ok_or_else(too_large)?;
                Value::Int(quotient - i64::from(a % b != 0 && (a < 0) != (b < 0)))
            }
            Modulo => {
                let rest = a.checked_rem(b).ok_or_else(too_large)?;
                Value::Int(if rest != 0 && (rest < 0) != (b < 0) {
                    rest + b
                } else {
                    rest
                })
            }
            Power => match u32::try_from(b) {
                Ok(exponent) => Value::Int(a.checked_pow(exponent).ok_or_else(too_large)?),
                Err(_) if a == 0 => return Err("0 has no negative power".into()),
                Err(_) => Value::Float((a as f64).powf(b as f64)),
            },
        });
    }
    if let (Some(a), Some(b)) = (left.as_float(), right.as_float()) {
        return Ok(Value::Float(match operator {
            Add => a + b,
            Subtract => a - b,
            Multiply => a * b,
            Divide | FloorDivide | Modulo if b == 0.0 => return Err("division by zero".into()),
            Divide => a / b,
            FloorDivide => ((a - modulo(a, b)) / b).round(),
            Modulo => modulo(a, b),
            Power if a < 0.0 && b.fract() != 0.0 => return Err("a power of a negative number".into()),
            Power => a.powf(b),
        }));
    }
    match (operator, left, right) {
        (_, Value::Undefined(why), _) | (_, _, Value::Undefined(why)) => Err(why.to_string()),
        (Add, Value::Str(a), Value::Str(b)) => bounded(format!("{a}{b}")).map(Value::from),
        (Add, Value::List(a), Value::List(b)) => joined(a, b).map(Value::list),
        (Add, Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => joined(a, b).map(Value::tuple),
        (Multiply, Value::Str(text), times) | (Multiply, times, Value::Str(text)) if times.as_int().is_some() => {
            let times = times
                .as_int()
                .and_then(|times| usize::try_from(times).ok())
                .unwrap_or(0);
            if text.len().checked_mul(times).is_none_or(|bytes| bytes > LARGEST_TEXT) {
                return Err(too_large());
            }
            Ok(text.repeat(times).into())
        }
        (Multiply, items, times) | (Multiply, times, items)
            if items.elements().is_some() && times.as_int().is_some() =>
        {
            let times = times
                .as_int()
                .and_then(|times| usize::try_from(times).ok())
                .unwrap_or(0);
            let elements = items.elements().map(|items| items.as_slice()).unwrap_or_default();
            if elements
                .len()
                .checked_mul(times)
                .is_none_or(|length| length > LARGEST_LIST)
            {
                return Err(too_large());
            }
            let repeated = elements.iter().cycle().take(elements.len() * times).cloned().collect();
            Ok(match items {
                Value::List(_) => Value::list(repeated),
                _ => Value::tuple(repeated),
            })
        }
        _ => {
            let sign = match operator {
                Add => "+",
                Subtract => "-",
                Multiply => "*",
                Divide => "/",
                FloorDivide => "//",
                Modulo => "%",
                Power => "**",
            };
            Err(format!(
                "`{sign}` does not apply to `{}` and `{}`",
                left.kind(),
                right.kind()
            ))
        }
    }
}

/// Python's `%` of floats: the sign of the divisor.
fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
        rest + b
    } else if rest == 0.0 {
        0.0_f64.copysign(b)
    } else {
        rest
    }
}

fn joined(a: &[Value], b: &[Value]) -> Fallible<Vec<Value>> {
    if a.len() + b.len() > LARGEST_LIST {
        return Err(too_large());
    }
    Ok(a.iter().chain(b).cloned().collect())
}
