//! Calls of functions, methods and macros, and loops with their variable `loop`.

use super::{
    arguments::Given,
    fuel, functions,
    interpreter::{Flow, Interpreter},
    methods,
    scope::{Scope, assign},
    value::{Closure, Fallible, LoopState, Progress, Value},
};
use minijinja::machinery::ast::{CallArg, Expr};
use std::{cell::RefCell, collections::VecDeque, rc::Rc};

impl<'a> Interpreter<'a> {
    pub fn arguments(&mut self, arguments: &'a [CallArg<'a>], scope: &Rc<Scope>) -> Fallible<Given> {
        let mut given = Given::default();
        let mut splats = false;
        for argument in arguments {
            match argument {
                CallArg::Pos(_) | CallArg::PosSplat(_) if splats => {
                    return Err("a positional argument follows `*` or `**`".into());
                }
                CallArg::Pos(expr) => given.positional.push(self.eval(expr, scope)?),
                CallArg::Kwarg(name, expr) => given.named.push(((*name).into(), self.eval(expr, scope)?)),
                CallArg::PosSplat(expr) => {
                    given.positional.extend(self.eval(expr, scope)?.elements_of()?);
                    splats = true;
                }
                CallArg::KwargSplat(expr) => {
                    let Value::Dict(pairs) = self.eval(expr, scope)? else {
                        return Err("`**` needs a dictionary".into());
                    };
                    for (name, value) in pairs.iter() {
                        let name = name.as_str().ok_or("names of arguments must be texts")?;
                        given.named.push((name.into(), value.clone()));
                    }
                    splats = true;
                }
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
                let [iterable, ..] = given.bind("loop", "iterable")?;
                if !this.loops.get(state.id).is_some_and(|each| each.recursive) {
                    return Err("the loop must be marked `recursive` to be called".into());
                }
                let mut out = String::new();
                let iterable = iterable.ok_or("`loop` needs what to loop over")?;
                this.buffered(|this| this.for_loop(state.id, &iterable, &state.scope, state.depth0 + 1, &mut out))?;
                Ok(out.into())
            }
            Value::Undefined(why) => Err(why.to_string()),
            other => Err(format!("`{}` object is not callable", other.kind())),
        })
    }

    /// Runs what writes into a text of its own.
    pub fn buffered<T>(&mut self, run: impl FnOnce(&mut Self) -> Fallible<T>) -> Fallible<T> {
        self.trace.open();
        let result = run(self);
        self.trace.close();
        result
    }

    fn call_macro(&mut self, closure: &Closure, mut given: Given) -> Fallible<Value> {
        let definition = *self
            .macros
            .get(closure.id)
            .ok_or("the macro is not one of this template")?;
        let (name, args, defaults) = (definition.name, &definition.args, &definition.defaults);
        let [varargs, kwargs, caller] = self.specials(definition);
        let scope = Scope::new(Some(closure.scope.clone()));
        let mut positional = given.positional.into_iter();
        let required = args.len() - defaults.len();
        for (at, parameter) in args.iter().enumerate() {
            let Expr::Var(parameter) = parameter else {
                return Err("a parameter is a name".into());
            };
            let named = given.named.iter().position(|(name, _)| **name == *parameter.id);
            let default = at.checked_sub(required).and_then(|at| defaults.get(at));
            let value = match (positional.next(), named) {
                (Some(value), _) => value,
                (None, Some(at)) => given.named.remove(at).1,
                (None, None) => match default {
                    Some(default) => self.eval(default, &scope)?,
                    None => Value::undefined(format!("parameter `{}` was not provided", parameter.id)),
                },
            };
            scope.set(parameter.id, value);
        }
        let rest: Vec<Value> = positional.collect();
        let is_parameter = |special: &str| {
            args.iter()
                .any(|arg| matches!(arg, Expr::Var(arg) if arg.id == special))
        };
        if caller && !is_parameter("caller") {
            let at = given.named.iter().position(|(name, _)| &**name == "caller");
            let value = match at {
                Some(at) => given.named.remove(at).1,
                None => Value::undefined("no caller defined"),
            };
            scope.set("caller", value);
        }
        if kwargs && !is_parameter("kwargs") {
            let pairs = given.named.drain(..).map(|(name, value)| (Value::Str(name), value));
            scope.set("kwargs", Value::dict(pairs.collect()));
        } else if let Some((unknown, _)) = given.named.first() {
            return Err(format!("macro `{name}` has no parameter `{unknown}`"));
        }
        if varargs && !is_parameter("varargs") {
            scope.set("varargs", Value::tuple(rest));
        } else if !rest.is_empty() {
            return Err(format!("macro `{name}` takes at most {} arguments", args.len()));
        }
        let mut out = String::new();
        let line = self.line;
        self.buffered(|this| this.run(&definition.body, &scope, &mut out))?;
        self.line = line;
        Ok(out.into())
    }

    pub fn for_loop(
        &mut self,
        id: usize,
        iterable: &Value,
        scope: &Rc<Scope>,
        depth0: usize,
        out: &mut String,
    ) -> Fallible<()> {
        let each = *self.loops.get(id).ok_or("the loop is not one of this template")?;
        let known = each.filter_expr.is_none().then(|| iterable.length().ok()).flatten();
        let source = match iterable {
            Value::Iter(items) => items.clone(),
            other => Rc::new(RefCell::new(VecDeque::from(other.elements_of()?))),
        };
        let state = Rc::new(LoopState {
            id,
            depth0,
            scope: scope.clone(),
            source,
            progress: RefCell::new(Progress {
                known_length: known,
                ..Progress::default()
            }),
        });
        let mut rounds = 0;
        loop {
            let ahead = state.progress.borrow_mut().ahead.pop_front();
            let next = match ahead {
                Some(next) => Some(next),
                None => self.fetch(&state)?,
            };
            let Some(item) = next else { break };
            fuel::steps(1)?;
            let mut progress = state.progress.borrow_mut();
            progress.index0 = rounds;
            progress.before = progress.current.replace(item.clone());
            drop(progress);
            rounds += 1;
            let inner = Scope::new(Some(scope.clone()));
            inner.set("loop", Value::Loop(state.clone()));
            let around = self.trace.enter(&item, out.len());
            assign(&each.target, item, &inner)?;
            let flow = self.run(&each.body, &inner, out)?;
            self.trace.leave(around, out.len());
            self.line = each.span().start_line.into();
            if flow == Flow::Break {
                break;
            }
        }
        if rounds == 0 {
            let inner = Scope::new(Some(scope.clone()));
            if self.run(&each.else_body, &inner, out)? != Flow::On {
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
            let each = *self.loops.get(state.id).ok_or("the loop is not one of this template")?;
            let Some(condition) = &each.filter_expr else {
                return Ok(Some(item));
            };
            fuel::steps(1)?;
            let inner = Scope::new(Some(state.scope.clone()));
            assign(&each.target, item.clone(), &inner)?;
            if self.eval(condition, &inner)?.truth() {
                return Ok(Some(item));
            }
        }
    }

    /// An attribute of `loop`.
    pub fn loop_attribute(&mut self, state: &Rc<LoopState>, name: &str) -> Fallible<Value> {
        let index0 = state.progress.borrow().index0;
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
            "previtem" => match state.progress.borrow().before.clone() {
                Some(before) if index0 > 0 => before,
                _ => Value::undefined("there is no previous item"),
            },
            "cycle" | "changed" => Value::Method(Rc::new(Value::Loop(state.clone())), name.into()),
            _ => Value::undefined(format!("`loop` has no attribute `{name}`")),
        })
    }

    fn loop_next(&mut self, state: &LoopState) -> Fallible<Option<Value>> {
        let ahead = state.progress.borrow().ahead.front().cloned();
        if ahead.is_some() {
            return Ok(ahead);
        }
        let next = self.fetch(state)?;
        state.progress.borrow_mut().ahead.extend(next.clone());
        Ok(next)
    }

    fn loop_length(&mut self, state: &LoopState) -> Fallible<usize> {
        if let Some(known) = state.progress.borrow().known_length {
            return Ok(known);
        }
        while let Some(next) = self.fetch(state)? {
            state.progress.borrow_mut().ahead.push_back(next);
        }
        let mut progress = state.progress.borrow_mut();
        let length = progress.index0 + 1 + progress.ahead.len();
        progress.known_length = Some(length);
        Ok(length)
    }
}

/// `loop.cycle` and `loop.changed`.
fn loop_method(state: &LoopState, name: &str, given: Given) -> Fallible<Value> {
    if !given.named.is_empty() {
        return Err(format!("`loop.{name}` has no named parameters"));
    }
    let values = given.positional;
    let mut progress = state.progress.borrow_mut();
    if name == "changed" {
        let same = match &progress.changed {
            Some(last) => Value::tuple(last.clone()).equals(&Value::tuple(values.clone()))?,
            None => false,
        };
        progress.changed = Some(values);
        return Ok(Value::Bool(!same));
    }
    let at = progress.index0.checked_rem(values.len());
    let chosen = at.and_then(|at| values.into_iter().nth(at));
    chosen.ok_or_else(|| "`loop.cycle` needs values".into())
}
