//! Loops, and the variable `loop`.

use super::{
    ast::ForLoop,
    eval::{Flow, Given, Interpreter, Scope, assign},
    value::{Fallible, LoopState, Value},
};
use std::{cell::RefCell, collections::VecDeque, rc::Rc};

impl Interpreter<'_> {
    pub fn for_loop(
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
            let ahead = state.ahead.borrow_mut().pop_front();
            let next = match ahead {
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
    pub fn loop_attribute(&mut self, state: &Rc<LoopState>, name: &str) -> Fallible<Value> {
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
}

/// `loop.cycle` and `loop.changed`.
pub fn call(state: &LoopState, name: &str, given: Given) -> Fallible<Value> {
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
