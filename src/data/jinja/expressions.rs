//! The grammar of expressions.

use super::{
    ast::{Arguments, Comparison, Expr, Name, Operator},
    lexer::Token,
    parser::{Parsed, Parser, describe},
    value::Value,
};

impl Parser {
    pub fn ends_tuple(&self, ends: &[&str]) -> bool {
        match self.peek() {
            Token::VariableEnd | Token::BlockEnd | Token::Operator(")") => true,
            Token::Name(name) => ends.contains(&&**name),
            Token::Operator("=") => true,
            _ => false,
        }
    }

    /// An expression, or several with commas: a tuple.
    pub fn tuple(&mut self, conditional: bool, ends: &[&str]) -> Parsed<Expr> {
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

    pub fn expression(&mut self) -> Parsed<Expr> {
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

    pub fn or(&mut self) -> Parsed<Expr> {
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

    pub fn filter_name(&mut self) -> Parsed<(Name, Arguments)> {
        let name = self.name()?;
        let arguments = if self.is_operator("(") {
            self.arguments()?
        } else {
            Arguments::default()
        };
        Ok((name, arguments))
    }

    /// `|a|b(1)`.
    pub fn filters(&mut self) -> Parsed<Vec<(Name, Arguments)>> {
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
