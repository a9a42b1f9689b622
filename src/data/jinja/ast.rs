//! The parts of a parsed template.

use super::value::Value;
use std::rc::Rc;

pub type Name = Rc<str>;

pub enum Expr {
    Const(Value),
    Name(Name),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Concat(Vec<Expr>),
    /// condition, value, else.
    Conditional(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
    Attribute(Box<Expr>, Name),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
    Call(Box<Expr>, Arguments),
    Filter(Box<Expr>, Name, Arguments),
    Test(Box<Expr>, Name, Arguments),
}

#[derive(Clone, Copy)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Clone, Copy)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Default)]
pub struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Name, Expr)>,
    /// `*args`.
    pub more: Option<Box<Expr>>,
    /// `**kwargs`.
    pub more_named: Option<Box<Expr>>,
}

/// What is assigned to.
pub enum Target {
    Name(Name),
    Attribute(Name, Name),
    Tuple(Vec<Target>),
}

pub struct Statement {
    pub line: usize,
    pub kind: Kind,
}

pub enum Kind {
    Text(Name),
    Print(Expr),
    For(Rc<ForLoop>),
    If(Vec<(Expr, Vec<Statement>)>, Vec<Statement>),
    Set(Target, Expr),
    /// A filter chain's name and arguments, innermost first.
    SetBlock(Target, Vec<(Name, Arguments)>, Vec<Statement>),
    FilterBlock(Vec<(Name, Arguments)>, Vec<Statement>),
    With(Vec<(Target, Expr)>, Vec<Statement>),
    Macro(Rc<Macro>),
    Call(Expr, Arguments, Rc<Macro>),
    /// `{% generation %}`, which only marks what an assistant wrote; with a scope of its own.
    Generation(Vec<Statement>),
    Break,
    Continue,
}

pub struct ForLoop {
    pub line: usize,
    pub target: Target,
    pub iterable: Expr,
    pub condition: Option<Expr>,
    pub recursive: bool,
    pub body: Vec<Statement>,
    pub otherwise: Vec<Statement>,
}

pub struct Macro {
    pub name: Name,
    /// With their defaults.
    pub parameters: Vec<(Name, Option<Expr>)>,
    pub body: Vec<Statement>,
    /// Which of `varargs`, `kwargs` and `caller` the body names.
    pub uses: [bool; 3],
}
