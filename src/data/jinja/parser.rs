//! From tokens to statements, by the grammar of Jinja 3.1 without what needs other templates.

use super::{
    JinjaError,
    ast::{Expr, ForLoop, Kind, Macro, Name, Statement, Target},
    lexer::{Token, tokens},
};
use std::rc::Rc;

/// Deepest nesting of statements and expressions.
const DEEPEST: usize = 100;

pub type Parsed<T> = Result<T, JinjaError>;

/// Parses a template.
pub fn parse(template: &str) -> Parsed<Vec<Statement>> {
    let mut parser = Parser {
        tokens: tokens(template)?,
        at: 0,
        depth: 0,
        loops: 0,
        special: Vec::new(),
    };
    let body = parser.statements(&[])?;
    Ok(body)
}

pub struct Parser {
    tokens: Vec<(usize, Token)>,
    pub at: usize,
    depth: usize,
    /// Loops that a `break` here would leave.
    loops: usize,
    /// For every macro being read, which of `varargs`, `kwargs` and `caller` it names.
    pub special: Vec<[bool; 3]>,
}

impl Parser {
    pub fn peek(&self) -> &Token {
        self.ahead(0)
    }

    pub fn ahead(&self, distance: usize) -> &Token {
        self.tokens
            .get(self.at + distance)
            .map_or(&Token::End, |(_, token)| token)
    }

    fn line(&self) -> usize {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or(1, |(line, _)| *line)
    }

    pub fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    pub fn fail<T>(&self, problem: impl Into<String>) -> Parsed<T> {
        Err(JinjaError {
            line: self.line(),
            problem: problem.into(),
        })
    }

    pub fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if &**found == name)
    }

    pub fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        self.at += usize::from(found);
        found
    }

    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub fn expect_operator(&mut self, operator: &str) -> Parsed<()> {
        if self.skip_operator(operator) {
            return Ok(());
        }
        self.fail(format!("expected `{operator}`, found {}", describe(self.peek())))
    }

    fn expect_name(&mut self, name: &str) -> Parsed<()> {
        if self.skip_name(name) {
            return Ok(());
        }
        self.fail(format!("expected `{name}`, found {}", describe(self.peek())))
    }

    pub fn name(&mut self) -> Parsed<Name> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            other => self.fail(format!("expected a name, found {}", describe(&other))),
        }
    }

    pub fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEEPEST {
            return self.fail(format!("more than {DEEPEST} levels of nesting"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Statements up to one of these tags, whose name is the next token; or to the template's end.
    fn statements(&mut self, ends: &[&str]) -> Parsed<Vec<Statement>> {
        self.deeper(|parser| {
            let mut body = Vec::new();
            loop {
                let line = parser.line();
                let kind = match parser.next() {
                    Token::Data(text) => Kind::Text(text),
                    Token::VariableBegin => {
                        let printed = parser.tuple(true, &[])?;
                        if parser.next() != Token::VariableEnd {
                            parser.at -= 1;
                            return parser.fail(format!("expected `}}}}`, found {}", describe(parser.peek())));
                        }
                        Kind::Print(printed)
                    }
                    Token::BlockBegin => {
                        let Token::Name(tag) = parser.peek().clone() else {
                            return parser.fail("a tag begins with its name");
                        };
                        if ends.contains(&&*tag) {
                            return Ok(body);
                        }
                        parser.at += 1;
                        let kind = parser.statement(&tag, line, ends)?;
                        parser.end_of_block()?;
                        match kind {
                            Some(kind) => kind,
                            None => continue,
                        }
                    }
                    Token::End if ends.is_empty() => return Ok(body),
                    _ => {
                        parser.at -= 1;
                        return parser.fail(format!("the template ends where `{}` is missing", ends.join("` or `")));
                    }
                };
                body.push(Statement { line, kind });
            }
        })
    }

    fn end_of_block(&mut self) -> Parsed<()> {
        if *self.peek() == Token::BlockEnd {
            self.at += 1;
            return Ok(());
        }
        self.fail(format!("expected `%}}`, found {}", describe(self.peek())))
    }

    /// `%}`, statements, and the tag's name at the end, which is skipped and returned.
    fn body(&mut self, ends: &[&str]) -> Parsed<(Vec<Statement>, Name)> {
        self.skip_operator(":");
        self.end_of_block()?;
        let body = self.statements(ends)?;
        Ok((body, self.name()?))
    }

    /// The same where a `break` does not reach the loop outside.
    fn enclosed(&mut self, end: &str) -> Parsed<Vec<Statement>> {
        let loops = std::mem::take(&mut self.loops);
        let body = self.body(&[end]);
        self.loops = loops;
        Ok(body?.0)
    }

    fn statement(&mut self, tag: &str, line: usize, ends: &[&str]) -> Parsed<Option<Kind>> {
        Ok(Some(match tag {
            "for" => self.for_loop(line)?,
            "if" => self.if_statement()?,
            "set" => self.set()?,
            "with" => self.with()?,
            "macro" => {
                let name = self.name()?;
                let parameters = self.signature()?;
                Kind::Macro(self.macro_body(name, parameters, "endmacro")?)
            }
            "call" => {
                let parameters = if self.is_operator("(") {
                    self.signature()?
                } else {
                    Vec::new()
                };
                let called = self.expression()?;
                let Expr::Call(function, arguments) = called else {
                    return self.fail("`call` needs a call such as `{% call macro() %}`");
                };
                let body = self.macro_body("caller".into(), parameters, "endcall")?;
                Kind::Call(*function, arguments, body)
            }
            "filter" => {
                let mut filters = vec![self.filter_name()?];
                filters.extend(self.filters()?);
                Kind::FilterBlock(filters, self.enclosed("endfilter")?)
            }
            "generation" => Kind::Generation(self.enclosed("endgeneration")?),
            "break" | "continue" if self.loops == 0 => {
                return self.fail(format!("`{tag}` is not inside a loop"));
            }
            "break" => Kind::Break,
            "continue" => Kind::Continue,
            "print" => {
                let mut printed = Vec::new();
                while *self.peek() != Token::BlockEnd {
                    if !printed.is_empty() {
                        self.expect_operator(",")?;
                    }
                    printed.push(self.expression()?);
                }
                Kind::Print(Expr::Concat(printed))
            }
            "block" | "extends" | "include" | "import" | "from" | "autoescape" => {
                return self.fail(format!("`{tag}` is not supported in a chat template"));
            }
            _ if ends.is_empty() => return self.fail(format!("unknown tag `{tag}`")),
            _ => {
                return self.fail(format!(
                    "unknown tag `{tag}` where `{}` is expected",
                    ends.join("` or `")
                ));
            }
        }))
    }

    fn for_loop(&mut self, line: usize) -> Parsed<Kind> {
        let target = self.target(false, &["in"])?;
        if names(&target).any(|name| &**name == "loop") {
            return self.fail("`loop` cannot be the variable of a loop");
        }
        self.expect_name("in")?;
        let iterable = self.tuple(false, &["recursive"])?;
        let condition = if self.skip_name("if") {
            Some(self.expression()?)
        } else {
            None
        };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let read = self.body(&["endfor", "else"]);
        self.loops -= 1;
        let (body, end) = read?;
        let otherwise = if &*end == "else" {
            self.body(&["endfor"])?.0
        } else {
            Vec::new()
        };
        Ok(Kind::For(Rc::new(ForLoop {
            line,
            target,
            iterable,
            condition,
            recursive,
            body,
            otherwise,
        })))
    }

    fn if_statement(&mut self) -> Parsed<Kind> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false, &[])?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match &*end {
                "elif" => {}
                "else" => return Ok(Kind::If(branches, self.body(&["endif"])?.0)),
                _ => return Ok(Kind::If(branches, Vec::new())),
            }
        }
    }

    fn set(&mut self) -> Parsed<Kind> {
        let target = self.target(true, &[])?;
        if self.skip_operator("=") {
            return Ok(Kind::Set(target, self.tuple(true, &[])?));
        }
        let filters = self.filters()?;
        Ok(Kind::SetBlock(target, filters, self.enclosed("endset")?))
    }

    fn with(&mut self) -> Parsed<Kind> {
        let mut assigned = Vec::new();
        while *self.peek() != Token::BlockEnd {
            if !assigned.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target(false, &[])?;
            self.expect_operator("=")?;
            assigned.push((target, self.expression()?));
        }
        Ok(Kind::With(assigned, self.body(&["endwith"])?.0))
    }

    fn macro_body(&mut self, name: Name, parameters: Vec<(Name, Option<Expr>)>, end: &str) -> Parsed<Rc<Macro>> {
        self.special.push([false; 3]);
        let body = self.enclosed(end);
        let uses = self.special.pop().unwrap_or_default();
        Ok(Rc::new(Macro {
            name,
            parameters,
            body: body?,
            uses,
        }))
    }

    fn signature(&mut self) -> Parsed<Vec<(Name, Option<Expr>)>> {
        let mut parameters: Vec<(Name, Option<Expr>)> = Vec::new();
        self.expect_operator("(")?;
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.name()?;
            if self.skip_operator("=") {
                parameters.push((name, Some(self.expression()?)));
            } else if parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("a parameter without a default follows one with a default");
            } else {
                parameters.push((name, None));
            }
        }
        self.expect_operator(")")?;
        Ok(parameters)
    }

    /// What is assigned to: names, tuples of them, and `namespace.attribute`.
    fn target(&mut self, attributes: bool, ends: &[&str]) -> Parsed<Target> {
        self.deeper(|parser| {
            let mut targets = Vec::new();
            let mut is_tuple = false;
            loop {
                if !targets.is_empty() && parser.ends_tuple(ends) {
                    break;
                }
                targets.push(parser.one_target(attributes)?);
                if !parser.skip_operator(",") {
                    break;
                }
                is_tuple = true;
            }
            Ok(match (is_tuple, targets.len()) {
                (false, 1) => targets.swap_remove(0),
                _ => Target::Tuple(targets),
            })
        })
    }

    fn one_target(&mut self, attributes: bool) -> Parsed<Target> {
        if self.skip_operator("(") {
            let target = self.target(attributes, &[])?;
            self.expect_operator(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&&*name) {
            return self.fail(format!("`{name}` cannot be assigned to"));
        }
        if attributes && self.skip_operator(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }
}

/// The names that a target assigns to.
fn names(target: &Target) -> Box<dyn Iterator<Item = &Name> + '_> {
    match target {
        Target::Name(name) => Box::new(std::iter::once(name)),
        Target::Attribute(..) => Box::new(std::iter::empty()),
        Target::Tuple(targets) => Box::new(targets.iter().flat_map(names)),
    }
}

pub fn describe(token: &Token) -> String {
    match token {
        Token::Data(_) => "text".into(),
        Token::VariableBegin => "`{{`".into(),
        Token::VariableEnd => "`}}`".into(),
        Token::BlockBegin => "`{%`".into(),
        Token::BlockEnd => "`%}`".into(),
        Token::Name(name) => format!("`{name}`"),
        Token::Str(text) => format!("the text `{}`", text.chars().take(40).collect::<String>()),
        Token::Int(number) => format!("`{number}`"),
        Token::Float(number) => format!("`{number}`"),
        Token::Operator(operator) => format!("`{operator}`"),
        Token::End => "the end of the template".into(),
    }
}
