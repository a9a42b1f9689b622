//! From tokens to statements, by the grammar of Jinja 3.1 without what needs other templates.

use super::{
    JinjaError,
    ast::{Arguments, Comparison, Expr, ForLoop, Kind, Macro, Name, Operator, Statement, Target},
    lexer::{Token, tokens},
    value::Value,
};
use std::rc::Rc;

/// Deepest nesting of statements and expressions.
const DEEPEST: usize = 100;

type Parsed<T> = Result<T, JinjaError>;

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

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    /// Loops that a `break` here would leave.
    loops: usize,
    /// For every macro being read, which of `varargs`, `kwargs` and `caller` it names.
    special: Vec<[bool; 3]>,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.ahead(0)
    }

    fn ahead(&self, distance: usize) -> &Token {
        self.tokens
            .get(self.at + distance)
            .map_or(&Token::End, |(_, token)| token)
    }

    fn line(&self) -> usize {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or(1, |(line, _)| *line)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn fail<T>(&self, problem: impl Into<String>) -> Parsed<T> {
        Err(JinjaError {
            line: self.line(),
            problem: problem.into(),
        })
    }

    fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if &**found == name)
    }

    fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        self.at += usize::from(found);
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    fn expect_operator(&mut self, operator: &str) -> Parsed<()> {
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

    fn name(&mut self) -> Parsed<Name> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            other => self.fail(format!("expected a name, found {}", describe(&other))),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
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

    fn ends_tuple(&self, ends: &[&str]) -> bool {
        match self.peek() {
            Token::VariableEnd | Token::BlockEnd | Token::Operator(")") => true,
            Token::Name(name) => ends.contains(&&**name),
            Token::Operator("=") => true,
            _ => false,
        }
    }

    /// An expression, or several with commas: a tuple.
    fn tuple(&mut self, conditional: bool, ends: &[&str]) -> Parsed<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if self.ends_tuple(ends) {
                break;
            }
            items.push(if conditional { self.expression()? } else { self.or()? });
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match (is_tuple, items.len()) {
            (false, 0) => self.fail(format!("expected an expression, found {}", describe(self.peek()))),
            (false, _) => Ok(items.swap_remove(0)),
            (true, _) => Ok(Expr::Tuple(items)),
        }
    }

    fn expression(&mut self) -> Parsed<Expr> {
        self.deeper(|parser| {
            let mut value = parser.or()?;
            while parser.skip_name("if") {
                let condition = parser.or()?;
                let otherwise = if parser.skip_name("else") {
                    Some(Box::new(parser.expression()?))
                } else {
                    None
                };
                value = Expr::Conditional(Box::new(condition), Box::new(value), otherwise);
            }
            Ok(value)
        })
    }

    fn or(&mut self) -> Parsed<Expr> {
        let mut left = self.and()?;
        while self.skip_name("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed<Expr> {
        if self.skip_name("not") {
            return self.deeper(|parser| Ok(Expr::Not(Box::new(parser.not()?))));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let first = self.sum()?;
        let mut others = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Operator("==") => Comparison::Equal,
                Token::Operator("!=") => Comparison::NotEqual,
                Token::Operator("<") => Comparison::Less,
                Token::Operator("<=") => Comparison::LessEqual,
                Token::Operator(">") => Comparison::Greater,
                Token::Operator(">=") => Comparison::GreaterEqual,
                Token::Name(name) if &**name == "in" => Comparison::In,
                Token::Name(name)
                    if &**name == "not" && matches!(self.ahead(1), Token::Name(name) if &**name == "in") =>
                {
                    self.at += 1;
                    Comparison::NotIn
                }
                _ => break,
            };
            self.at += 1;
            others.push((comparison, self.sum()?));
        }
        Ok(if others.is_empty() {
            first
        } else {
            Expr::Compare(Box::new(first), others)
        })
    }

    fn binary(&mut self, operators: &[(&str, Operator)], operand: fn(&mut Self) -> Parsed<Expr>) -> Parsed<Expr> {
        let mut left = operand(self)?;
        while let Some((_, operator)) = operators.iter().find(|(text, _)| self.is_operator(text)) {
            self.at += 1;
            left = Expr::Binary(*operator, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Parsed<Expr> {
        self.binary(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Parsed<Expr> {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Parsed<Expr> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Modulo),
        ];
        self.binary(&operators, Self::power)
    }

    fn power(&mut self) -> Parsed<Expr> {
        self.binary(&[("**", Operator::Power)], |parser| parser.unary(true))
    }

    fn unary(&mut self, filters: bool) -> Parsed<Expr> {
        let node = if self.skip_operator("-") {
            self.deeper(|parser| Ok(Expr::Negative(Box::new(parser.unary(false)?))))?
        } else if self.skip_operator("+") {
            self.deeper(|parser| Ok(Expr::Positive(Box::new(parser.unary(false)?))))?
        } else {
            self.primary()?
        };
        let node = self.postfix(node)?;
        if filters { self.filtered(node) } else { Ok(node) }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        self.deeper(|parser| {
            Ok(match parser.peek().clone() {
                Token::Name(name) => {
                    parser.at += 1;
                    match &*name {
                        "true" | "True" => Expr::Const(Value::Bool(true)),
                        "false" | "False" => Expr::Const(Value::Bool(false)),
                        "none" | "None" => Expr::Const(Value::None),
                        _ => {
                            for (used, special) in ["varargs", "kwargs", "caller"].iter().enumerate() {
                                if *special == &*name {
                                    // In a nested macro, too: it may be the outer one's.
                                    for uses in &mut parser.special {
                                        if let Some(uses) = uses.get_mut(used) {
                                            *uses = true;
                                        }
                                    }
                                }
                            }
                            Expr::Name(name)
                        }
                    }
                }
                Token::Str(_) => {
                    let mut text = String::new();
                    while let Token::Str(part) = parser.peek() {
                        text.push_str(part);
                        parser.at += 1;
                    }
                    Expr::Const(text.into())
                }
                Token::Int(number) => {
                    parser.at += 1;
                    Expr::Const(Value::Int(number))
                }
                Token::Float(number) => {
                    parser.at += 1;
                    Expr::Const(Value::Float(number))
                }
                Token::Operator("(") => {
                    parser.at += 1;
                    let inner = if parser.is_operator(")") {
                        Expr::Tuple(Vec::new())
                    } else {
                        parser.tuple(true, &[])?
                    };
                    parser.expect_operator(")")?;
                    inner
                }
                Token::Operator("[") => {
                    parser.at += 1;
                    let mut items = Vec::new();
                    while !parser.is_operator("]") {
                        items.push(parser.expression()?);
                        if !parser.skip_operator(",") {
                            break;
                        }
                    }
                    parser.expect_operator("]")?;
                    Expr::List(items)
                }
                Token::Operator("{") => {
                    parser.at += 1;
                    let mut items = Vec::new();
                    while !parser.is_operator("}") {
                        let key = parser.expression()?;
                        parser.expect_operator(":")?;
                        items.push((key, parser.expression()?));
                        if !parser.skip_operator(",") {
                            break;
                        }
                    }
                    parser.expect_operator("}")?;
                    Expr::Dict(items)
                }
                other => return parser.fail(format!("unexpected {}", describe(&other))),
            })
        })
    }

    fn postfix(&mut self, mut node: Expr) -> Parsed<Expr> {
        loop {
            if self.skip_operator(".") {
                node = match self.next() {
                    Token::Name(name) => Expr::Attribute(Box::new(node), name),
                    Token::Int(number) => Expr::Item(Box::new(node), Box::new(Expr::Const(Value::Int(number)))),
                    _ => {
                        self.at -= 1;
                        return self.fail("expected a name or a number after `.`");
                    }
                };
            } else if self.skip_operator("[") {
                node = self.subscript(node)?;
            } else if self.is_operator("(") {
                node = Expr::Call(Box::new(node), self.arguments()?);
            } else {
                return Ok(node);
            }
        }
    }

    fn subscript(&mut self, node: Expr) -> Parsed<Expr> {
        let mut bounds: [Option<Box<Expr>>; 3] = Default::default();
        let mut colons = 0;
        loop {
            if self.skip_operator(":") {
                colons += 1;
                if colons > 2 {
                    return self.fail("a slice has at most three parts");
                }
            } else if self.skip_operator("]") {
                break;
            } else if self.is_operator(",") {
                return self.fail("several subscripts in one pair of brackets are not supported");
            } else {
                let part = self.expression()?;
                match bounds.get_mut(colons) {
                    Some(bound) if bound.is_none() => *bound = Some(Box::new(part)),
                    _ => return self.fail("expected `]`"),
                }
            }
        }
        if colons > 0 {
            return Ok(Expr::Slice(Box::new(node), bounds));
        }
        let [index, ..] = bounds;
        match index {
            Some(index) => Ok(Expr::Item(Box::new(node), index)),
            None => self.fail("a subscript is empty"),
        }
    }

    fn arguments(&mut self) -> Parsed<Arguments> {
        let mut found = Arguments::default();
        self.expect_operator("(")?;
        while !self.is_operator(")") {
            if self.skip_operator("*") {
                found.more = Some(Box::new(self.expression()?));
            } else if self.skip_operator("**") {
                found.more_named = Some(Box::new(self.expression()?));
            } else if matches!(self.peek(), Token::Name(_)) && *self.ahead(1) == Token::Operator("=") {
                let name = self.name()?;
                self.at += 1;
                found.named.push((name, self.expression()?));
            } else {
                if !found.named.is_empty() || found.more.is_some() || found.more_named.is_some() {
                    return self.fail("a positional argument follows a named one");
                }
                found.positional.push(self.expression()?);
            }
            if !self.skip_operator(",") {
                break;
            }
        }
        self.expect_operator(")")?;
        Ok(found)
    }

    fn filter_name(&mut self) -> Parsed<(Name, Arguments)> {
        let name = self.name()?;
        let arguments = if self.is_operator("(") {
            self.arguments()?
        } else {
            Arguments::default()
        };
        Ok((name, arguments))
    }

    /// `|a|b(1)`.
    fn filters(&mut self) -> Parsed<Vec<(Name, Arguments)>> {
        let mut found = Vec::new();
        while self.skip_operator("|") {
            found.push(self.filter_name()?);
        }
        Ok(found)
    }

    /// Filters, tests and calls after an operand.
    fn filtered(&mut self, mut node: Expr) -> Parsed<Expr> {
        loop {
            if self.skip_operator("|") {
                let (name, arguments) = self.filter_name()?;
                node = Expr::Filter(Box::new(node), name, arguments);
            } else if self.skip_name("is") {
                node = self.test(node)?;
            } else if self.is_operator("(") {
                node = Expr::Call(Box::new(node), self.arguments()?);
            } else {
                return Ok(node);
            }
        }
    }

    fn test(&mut self, node: Expr) -> Parsed<Expr> {
        let negated = self.skip_name("not");
        let name = self.name()?;
        let arguments = match self.peek() {
            Token::Operator("(") => self.arguments()?,
            Token::Name(next) if ["else", "or", "and"].contains(&&**next) => Arguments::default(),
            Token::Name(next) if &**next == "is" => return self.fail("tests cannot be chained with `is`"),
            Token::Name(_) | Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => {
                let argument = self.primary()?;
                Arguments {
                    positional: vec![self.postfix(argument)?],
                    ..Arguments::default()
                }
            }
            _ => Arguments::default(),
        };
        let test = Expr::Test(Box::new(node), name, arguments);
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
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

fn describe(token: &Token) -> String {
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
