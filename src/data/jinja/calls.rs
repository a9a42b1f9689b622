//! Calls of functions, methods and macros, and their arguments.

use super::{
    ast::{Arguments, Macro},
    eval::{Given, Interpreter, Scope},
    functions, loops, methods,
    value::{Closure, Fallible, Value},
};
use std::rc::Rc;

impl Interpreter<'_> {
    pub fn arguments(&mut self, arguments: &Arguments, scope: &Rc<Scope>) -> Fallible<Given> {
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
                Value::Loop(state) => loops::call(state, name, given),
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
            scope.set("kwargs", Value::dict(pairs.collect()));
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
