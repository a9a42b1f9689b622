//! Values of the tasks' programs, as Python has them.

/// A value: what a program takes, handles and returns. Comparing two values of one type orders them as Python
/// does; programs of this crate compare no values of different types.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `None`.
    None,
    /// An `int`; all are far below 2⁶³ here.
    Int(i64),
    /// A `str` of ASCII letters, digits, spaces and separators.
    Str(String),
    /// A `list` of values of one type.
    List(Vec<Value>),
}

impl Value {
    /// The Python literal.
    pub fn python(&self) -> String {
        match self {
            Self::None => "None".to_owned(),
            Self::Int(number) => number.to_string(),
            Self::Str(text) => format!("\"{text}\""),
            Self::List(values) => {
                let values: Vec<String> = values.iter().map(Self::python).collect();
                format!("[{}]", values.join(", "))
            }
        }
    }

    /// What a `for` loop over the value goes through: a list's values, a string's characters.
    pub fn elements(&self) -> Vec<Value> {
        match self {
            Self::List(values) => values.clone(),
            Self::Str(text) => text.chars().map(|c| Self::Str(c.to_string())).collect(),
            Self::None | Self::Int(_) => Vec::new(),
        }
    }

    /// `len(value) == 0`, and so for `None`.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Int(_) => false,
            Self::Str(text) => text.is_empty(),
            Self::List(values) => values.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_pythons() {
        let list = Value::List(vec![Value::Int(-3), Value::Int(0)]);
        assert_eq!(list.python(), "[-3, 0]");
        assert_eq!(Value::Str("a B".into()).python(), "\"a B\"");
        assert_eq!(Value::None.python(), "None");
        assert_eq!(Value::List(Vec::new()).python(), "[]");
    }

    #[test]
    fn strings_compare_by_code_point() {
        let text = |text: &str| Value::Str(text.into());
        assert!(text("Z") < text("a") && text(" ") < text("0") && text("9") < text("A") && text("aa") > text("a"));
    }
}
