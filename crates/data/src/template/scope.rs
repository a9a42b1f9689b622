//! The names that a template sets, and where they are seen.

use super::{
    functions,
    value::{Fallible, Name, Value},
};
use minijinja::machinery::ast::Expr;
use std::{cell::RefCell, rc::Rc};

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

    pub fn get(&self, name: &str) -> Option<Value> {
        let names = self.names.borrow();
        if let Some((_, value)) = names.iter().find(|(there, _)| &**there == name) {
            return Some(value.clone());
        }
        self.around.as_ref().and_then(|around| around.get(name))
    }

    /// Forgets all names, and with them the macros that hold this scope.
    pub fn clear(&self) {
        self.names.borrow_mut().clear();
    }
}

/// Assigns a value to names, or to a namespace's attribute.
pub fn assign(target: &Expr<'_>, value: Value, scope: &Rc<Scope>) -> Fallible<()> {
    match target {
        Expr::Var(name) => scope.set(name.id, value),
        Expr::List(targets) => {
            let items = value.elements_of()?;
            if items.len() != targets.items.len() {
                return Err(format!("{} values for {} names", items.len(), targets.items.len()));
            }
            for (target, item) in targets.items.iter().zip(items) {
                assign(target, item, scope)?;
            }
        }
        Expr::GetAttr(access) => {
            let Expr::Var(name) = &access.expr else {
                return Err("an attribute of an attribute cannot be set".into());
            };
            let Some(Value::Namespace(fields)) = scope.get(name.id) else {
                return Err(format!("`{}.{}` can be set on a namespace only", name.id, access.name));
            };
            functions::set_field(&mut fields.borrow_mut(), access.name, value)?;
        }
        other => return Err(format!("a {} cannot be assigned to", other.description())),
    }
    Ok(())
}
