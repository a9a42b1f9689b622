//! Values as a template sees them: Python's, immutable.

use super::{fuel, scope::Scope};
use std::{cell::RefCell, collections::VecDeque, rc::Rc};

pub type Name = Rc<str>;

/// What went wrong, without its place.
pub type Fallible<T> = Result<T, String>;

/// Most bytes of a text and most elements of a list that a template may make.
pub const LARGEST_TEXT: usize = 16 << 20;
pub const LARGEST_LIST: usize = 1 << 20;

/// Names and values of a namespace, in the order of insertion.
type Fields = Vec<(Rc<str>, Value)>;

/// A Python value. Containers are shared, never changed: the sandbox that transformers renders in
/// refuses methods that change them.
#[derive(Clone)]
pub enum Value {
    /// Something that is not there, and what to say if it is used.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// `markupsafe.Markup`, what `safe` and `escape` return.
    Markup(Rc<str>),
    List(Rc<Items<Value>>),
    Tuple(Rc<Items<Value>>),
    /// What `groupby` yields: a tuple of `grouper` and `list`.
    Group(Rc<Items<Value>>),
    /// In the order of insertion.
    Dict(Rc<Items<(Value, Value)>>),
    /// `dict_keys`, `dict_values` or `dict_items`.
    View(&'static str, Rc<Items<Value>>),
    /// start, stop, step.
    Range(i64, i64, i64),
    /// A generator or another iterator, which is used up by the first loop over it.
    Iter(Rc<RefCell<VecDeque<Value>>>),
    Namespace(Rc<RefCell<Fields>>),
    /// A method bound to its value.
    Method(Rc<Value>, Rc<str>),
    Function(&'static str),
    Macro(Rc<Closure>),
    Loop(Rc<LoopState>),
}

/// Deepest nesting of a value: printing, comparing and dropping one take stack for every level.
pub const DEEPEST_VALUE: usize = 200;

/// Bytes of a value in addition to its text or elements, about.
const HEADER: usize = 48;

/// Elements of a container, and how deep it is nested.
pub struct Items<T> {
    items: Vec<T>,
    depth: usize,
}

impl<T: Depth> Items<T> {
    pub fn new(items: Vec<T>) -> Rc<Self> {
        fuel::made(HEADER + std::mem::size_of_val(items.as_slice()));
        let depth = 1 + items.iter().map(T::depth).max().unwrap_or(0);
        Rc::new(Self { items, depth })
    }
}

impl<T> std::ops::Deref for Items<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.items
    }
}

/// Levels of containers in a value.
pub trait Depth {
    fn depth(&self) -> usize;
}

impl Depth for Value {
    fn depth(&self) -> usize {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => items.depth,
            Self::Dict(pairs) => pairs.depth,
            Self::Iter(items) => 1 + items.borrow().iter().map(Self::depth).max().unwrap_or(0),
            Self::Method(value, _) => 1 + value.depth(),
            // What these hold may change or is not looked at: none of them goes into a namespace.
            Self::Namespace(_) | Self::Macro(_) | Self::Loop(_) => DEEPEST_VALUE - 50,
            _ => 0,
        }
    }
}

impl Depth for (Value, Value) {
    fn depth(&self) -> usize {
        self.0.depth().max(self.1.depth())
    }
}

/// A macro, or the body of a `call` block, and the scope it was defined in.
pub struct Closure {
    /// Its place among the macros of the rendering.
    pub id: usize,
    /// None for the body of a `call` block.
    pub name: Option<Name>,
    pub scope: Rc<Scope>,
}

/// The special variable `loop`.
pub struct LoopState {
    /// Its place among the loops of the rendering.
    pub id: usize,
    pub depth0: usize,
    /// The scope around the loop.
    pub scope: Rc<Scope>,
    /// What is still to come, before the loop's `if`.
    pub source: Rc<RefCell<VecDeque<Value>>>,
    pub progress: RefCell<Progress>,
}

/// How far a loop is.
#[derive(Default)]
pub struct Progress {
    /// What passed the `if` and was fetched ahead for `loop.last`, `loop.length` and the like.
    pub ahead: VecDeque<Value>,
    /// Elements of a sequence whose length is known; None where it has to be counted.
    pub known_length: Option<usize>,
    pub index0: usize,
    pub before: Option<Value>,
    pub current: Option<Value>,
    /// The last arguments of `loop.changed`.
    pub changed: Option<Vec<Value>>,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        fuel::made(HEADER + text.len());
        Self::Str(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl Value {
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Items::new(items))
    }

    pub fn tuple(items: Vec<Self>) -> Self {
        Self::Tuple(Items::new(items))
    }

    pub fn dict(pairs: Vec<(Self, Self)>) -> Self {
        Self::Dict(Items::new(pairs))
    }

    /// `markupsafe.Markup`.
    pub fn markup(text: &str) -> Self {
        fuel::made(HEADER + text.len());
        Self::Markup(text.into())
    }

    pub fn iter(items: Vec<Self>) -> Self {
        fuel::made(HEADER + std::mem::size_of_val(items.as_slice()));
        Self::Iter(Rc::new(RefCell::new(items.into())))
    }

    pub fn undefined(why: impl Into<Rc<str>>) -> Self {
        Self::Undefined(why.into())
    }

    pub fn int(number: usize) -> Fallible<Self> {
        i64::try_from(number).map(Self::Int).map_err(|_| too_large())
    }

    /// Its type's name in Python.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Markup(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) | Self::Group(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(kind, _) => kind,
            Self::Range(..) => "range",
            Self::Iter(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Method(..) | Self::Function(_) => "function",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
        }
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number; `True` is 1.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(yes) => Some(i64::from(*yes)),
            _ => None,
        }
    }

    /// A number as a float, if it is a number at all.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => self.as_int().map(|number| number as f64),
        }
    }

    /// The elements of a list or tuple.
    pub fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Group(items) => Some(items),
            _ => None,
        }
    }

    pub fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(yes) => *yes,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Str(text) | Self::Markup(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => !items.is_empty(),
            Self::Dict(pairs) => !pairs.is_empty(),
            Self::Range(..) => range_length(self) > 0,
            _ => true,
        }
    }

    /// `len(value)`.
    pub fn length(&self) -> Fallible<usize> {
        Ok(match self {
            Self::Undefined(_) => 0,
            Self::Str(text) | Self::Markup(text) => {
                fuel::read(text.len())?;
                text.chars().count()
            }
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => items.len(),
            Self::Dict(pairs) => pairs.len(),
            Self::Range(..) => range_length(self),
            _ => return Err(format!("object of type `{}` has no length", self.kind())),
        })
    }

    /// All elements that a loop over it sees. An iterator is used up.
    pub fn elements_of(&self) -> Fallible<Vec<Self>> {
        let count = match self {
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => items.len(),
            Self::Dict(pairs) => pairs.len(),
            Self::Range(..) => range_length(self),
            _ => 0,
        };
        fuel::made(count * std::mem::size_of::<Self>());
        fuel::steps(1)?;
        Ok(match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) | Self::Markup(text) => {
                if text.len() > LARGEST_LIST {
                    return Err(format!("a text of {} bytes as a list of its characters", text.len()));
                }
                text.chars().map(|c| Self::from(c.to_string())).collect()
            }
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => items.to_vec(),
            Self::Dict(pairs) => pairs.iter().map(|(key, _)| key.clone()).collect(),
            Self::Range(start, _, step) => (0..range_length(self))
                .map(|i| Self::Int(start + step * i as i64))
                .collect(),
            Self::Iter(items) => items.borrow_mut().drain(..).collect(),
            _ => return Err(format!("`{}` object is not iterable", self.kind())),
        })
    }

    /// `self == other`.
    pub fn equals(&self, other: &Self) -> Fallible<bool> {
        fuel::steps(1)?;
        if let (Some(a), Some(b)) = (self.as_int(), other.as_int()) {
            return Ok(a == b);
        }
        if let (Some(a), Some(b)) = (self.as_float(), other.as_float()) {
            return Ok(a == b);
        }
        Ok(match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(a) | Self::Markup(a), Self::Str(b) | Self::Markup(b)) => {
                fuel::read(if a.len() == b.len() { a.len() } else { 0 })?;
                a == b
            }
            (Self::List(a), Self::List(b)) | (Self::Tuple(a) | Self::Group(a), Self::Tuple(b) | Self::Group(b)) => {
                same_elements(a, b)?
            }
            (Self::Range(..), Self::Range(..)) => same_elements(&self.elements_of()?, &other.elements_of()?)?,
            (Self::Dict(a), Self::Dict(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (key, value) in a.iter() {
                    match find(b, key)? {
                        Some(there) if there.equals(value)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Self::Namespace(a), Self::Namespace(b)) => Rc::ptr_eq(a, b),
            (Self::Macro(a), Self::Macro(b)) => Rc::ptr_eq(a, b),
            (Self::View(..), Self::View(..))
            | (Self::Iter(_), Self::Iter(_))
            | (Self::Method(..), Self::Method(..)) => {
                return Err(format!("comparing two `{}` objects is not supported", self.kind()));
            }
            _ => false,
        })
    }

    /// The order of two values.
    pub fn compare(&self, other: &Self) -> Fallible<Option<std::cmp::Ordering>> {
        fuel::steps(1)?;
        if let (Some(a), Some(b)) = (self.as_int(), other.as_int()) {
            return Ok(Some(a.cmp(&b)));
        }
        if let (Some(a), Some(b)) = (self.as_float(), other.as_float()) {
            return Ok(a.partial_cmp(&b));
        }
        match (self, other) {
            (Self::Str(a) | Self::Markup(a), Self::Str(b) | Self::Markup(b)) => {
                fuel::read(a.len().min(b.len()))?;
                Ok(Some(a.cmp(b)))
            }
            (Self::List(a), Self::List(b)) | (Self::Tuple(a) | Self::Group(a), Self::Tuple(b) | Self::Group(b)) => {
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b)? {
                        return a.compare(b);
                    }
                }
                Ok(Some(a.len().cmp(&b.len())))
            }
            (Self::Undefined(why), _) | (_, Self::Undefined(why)) => Err(why.to_string()),
            _ => Err(format!("`{}` and `{}` have no order", self.kind(), other.kind())),
        }
    }

    /// `needle in self`.
    pub fn contains(&self, needle: &Self) -> Fallible<bool> {
        match self {
            Self::Str(text) | Self::Markup(text) => match needle {
                Self::Str(part) | Self::Markup(part) => {
                    fuel::read(text.len())?;
                    Ok(text.contains(&**part))
                }
                Self::Undefined(why) => Err(why.to_string()),
                _ => Err(format!("`in` of a text needs a text, not `{}`", needle.kind())),
            },
            Self::Dict(pairs) => {
                hashable(needle)?;
                Ok(find(pairs, needle)?.is_some())
            }
            _ => {
                for item in self.elements_of()? {
                    if item.equals(needle)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// `self[index]`; None where Python raises a LookupError or TypeError.
    pub fn item(&self, index: &Self) -> Fallible<Option<Self>> {
        let place = |length: usize| {
            let index = index.as_int()?;
            let index = if index < 0 { index + length as i64 } else { index };
            usize::try_from(index).ok().filter(|&index| index < length)
        };
        Ok(match self {
            Self::Str(text) => {
                fuel::read(text.len())?;
                place(text.chars().count()).and_then(|at| text.chars().nth(at).map(|c| Self::from(c.to_string())))
            }
            Self::List(items) | Self::Tuple(items) | Self::Group(items) => {
                place(items.len()).and_then(|at| items.get(at).cloned())
            }
            Self::Range(start, _, step) => place(range_length(self)).map(|at| Self::Int(start + step * at as i64)),
            Self::Dict(pairs) if hashable(index).is_ok() => find(pairs, index)?.cloned(),
            Self::Undefined(why) => return Err(why.to_string()),
            Self::Markup(_) => return Err("subscripts of marked-up text are not supported".into()),
            _ => None,
        })
    }
}

impl Value {
    /// Bytes that reading it takes: those of a text, or of a container's own elements.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Str(text) | Self::Markup(text) => text.len(),
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => {
                std::mem::size_of_val(items.as_slice())
            }
            Self::Dict(pairs) => std::mem::size_of_val(pairs.as_slice()),
            _ => 0,
        }
    }
}

pub fn too_large() -> String {
    "the value is too large".into()
}

fn same_elements(a: &[Value], b: &[Value]) -> Fallible<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b) {
        if !a.equals(b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The value of a key.
pub fn find<'a>(pairs: &'a [(Value, Value)], key: &Value) -> Fallible<Option<&'a Value>> {
    for (there, value) in pairs {
        if there.equals(key)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Sets a key, in place if it is there.
pub fn insert(pairs: &mut Vec<(Value, Value)>, key: Value, value: Value) -> Fallible<()> {
    hashable(&key)?;
    for (there, old) in pairs.iter_mut() {
        if there.equals(&key)? {
            *old = value;
            return Ok(());
        }
    }
    pairs.push((key, value));
    Ok(())
}

/// Whether a value can be a dictionary's key.
pub fn hashable(value: &Value) -> Fallible<()> {
    match value {
        Value::Tuple(items) | Value::Group(items) => items.iter().try_for_each(hashable),
        Value::List(_) | Value::Dict(_) | Value::View(..) => Err(format!("`{}` cannot be a key", value.kind())),
        _ => Ok(()),
    }
}

/// Number of elements of a range.
pub fn range_length(range: &Value) -> usize {
    let Value::Range(start, stop, step) = *range else {
        return 0;
    };
    let (distance, step) = if step > 0 {
        (stop.saturating_sub(start), step)
    } else {
        (start.saturating_sub(stop), step.saturating_neg())
    };
    if distance <= 0 || step <= 0 {
        return 0;
    }
    ((distance - 1) / step + 1) as usize
}
