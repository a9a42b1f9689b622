//! What the methods of texts do.

use super::{
    arguments::needed,
    text::{bounded, is_space},
    value::{Fallible, LARGEST_LIST, LARGEST_TEXT, Value, too_large},
};

/// `strip`, `lstrip` and `rstrip`.
pub fn strip<'t>(text: &'t str, method: &str, chars: &Option<Value>) -> Fallible<&'t str> {
    let set: Option<Vec<char>> = match chars {
        None | Some(Value::None) => None,
        chars => Some(needed(chars, method)?.chars().collect()),
    };
    let stripped = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
    Ok(match method {
        "lstrip" => text.trim_start_matches(stripped),
        "rstrip" => text.trim_end_matches(stripped),
        _ => text.trim_matches(stripped),
    })
}

/// Fails where a text has more parts than a list may have elements.
pub fn few_parts(separators: usize) -> Fallible<()> {
    if separators >= LARGEST_LIST {
        return Err(too_large());
    }
    Ok(())
}

pub fn split_space(text: &str, most: Option<usize>, from_right: bool) -> Fallible<Vec<&str>> {
    few_parts(text.chars().filter(|c| is_space(*c)).count())?;
    let Some(most) = most else {
        return Ok(text.split(is_space).filter(|part| !part.is_empty()).collect());
    };
    let mut parts = Vec::new();
    if from_right {
        let mut rest = text.trim_end_matches(is_space);
        while parts.len() < most
            && let Some(at) = rest.trim_end_matches(is_space).rfind(is_space)
        {
            let width = rest
                .get(at..)
                .and_then(|rest| rest.chars().next())
                .map_or(1, char::len_utf8);
            parts.push(rest.get(at + width..).unwrap_or_default());
            rest = rest.get(..at).unwrap_or_default().trim_end_matches(is_space);
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() {
            parts.push(rest);
        }
        parts.reverse();
        return Ok(parts);
    }
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        parts.push(part);
        rest = tail.trim_start_matches(is_space);
    }
    Ok(parts)
}

/// `splitlines`.
pub fn split_lines(text: &str, keep: bool) -> Fallible<Vec<&str>> {
    let mut lines = Vec::new();
    let mut rest = text;
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    few_parts(text.chars().filter(|c| ends(*c)).count())?;
    while let Some((at, end)) = rest.char_indices().find(|(_, c)| ends(*c)) {
        let width = if rest.get(at..).is_some_and(|rest| rest.starts_with("\r\n")) {
            2
        } else {
            end.len_utf8()
        };
        lines.push(rest.get(..if keep { at + width } else { at }).unwrap_or_default());
        rest = rest.get(at + width..).unwrap_or_default();
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    Ok(lines)
}

/// `replace`, at most `count` times.
pub fn replace(text: &str, old: &str, new: &str, count: Option<usize>) -> Fallible<String> {
    let times = if old.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(old).count()
    };
    let times = times.min(count.unwrap_or(usize::MAX));
    if new.len().checked_mul(times).is_none_or(|bytes| bytes > LARGEST_TEXT) {
        return Err(too_large());
    }
    Ok(text.replacen(old, new, times))
}

/// The titlecase letters of Unicode that are neither upper nor lower case, and their relatives.
fn has_own_titlecase(c: char) -> bool {
    c.to_uppercase().count() > 1
        || matches!(c, '\u{1c4}'..='\u{1cc}' | '\u{1f1}'..='\u{1f3}' | '\u{1f80}'..='\u{1fff}' | '\u{10d0}'..='\u{10ff}')
}

/// Changes of case.
pub fn cased(text: &str, method: &str) -> Fallible<String> {
    let unsure = || format!("`{method}` of this text outside ASCII is not supported");
    Ok(match method {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "capitalize" => {
            let mut chars = text.chars();
            match chars.next() {
                Some(first) if has_own_titlecase(first) => return Err(unsure()),
                Some(first) => {
                    // Lower case as a whole: a final sigma depends on what comes before it.
                    let lower = text.to_lowercase();
                    let width = first.to_lowercase().map(char::len_utf8).sum();
                    first.to_uppercase().collect::<String>() + lower.get(width..).unwrap_or_default()
                }
                None => String::new(),
            }
        }
        _ if !text.is_ascii() => return Err(unsure()),
        "casefold" => text.to_ascii_lowercase(),
        "swapcase" => text
            .chars()
            .map(|c| {
                if c.is_ascii_lowercase() {
                    c.to_ascii_uppercase()
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect(),
        _ => {
            let mut after_letter = false;
            text.chars()
                .map(|c| {
                    let c = if after_letter {
                        c.to_ascii_lowercase()
                    } else {
                        c.to_ascii_uppercase()
                    };
                    after_letter = c.is_ascii_alphabetic();
                    c
                })
                .collect()
        }
    })
}

pub fn padded(text: &str, method: &str, width: i64, fill: Option<Value>) -> Fallible<String> {
    let fill = match fill {
        None => {
            if method == "zfill" {
                '0'
            } else {
                ' '
            }
        }
        Some(Value::Str(fill)) if fill.chars().count() == 1 && method != "zfill" => fill.chars().next().unwrap_or(' '),
        _ => return Err(format!("`{method}` fills with one character")),
    };
    let length = text.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    if width > LARGEST_TEXT / 4 {
        return Err(too_large());
    }
    let room = width.saturating_sub(length);
    let fill = fill.to_string();
    Ok(match method {
        "ljust" => text.to_owned() + &fill.repeat(room),
        "rjust" => fill.repeat(room) + text,
        "zfill" => {
            let sign = text.chars().next().filter(|c| matches!(c, '+' | '-'));
            let digits = text.get(sign.map_or(0, char::len_utf8)..).unwrap_or_default();
            sign.map(String::from).unwrap_or_default() + &fill.repeat(room) + digits
        }
        _ => {
            let left = room / 2 + (room & width & 1);
            fill.repeat(left) + text + &fill.repeat(room - left)
        }
    })
}

pub fn expand_tabs(text: &str, size: i64) -> Fallible<String> {
    let size = usize::try_from(size).unwrap_or(0);
    if size > 1 << 10 {
        return Err(too_large());
    }
    let mut out = String::new();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let width = if size == 0 { 0 } else { size - column % size };
                out.push_str(&" ".repeat(width));
                column += width;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            _ => {
                out.push(c);
                column += 1;
            }
        }
    }
    bounded(out)
}

/// `isdigit` and its like. Where Rust's classes of characters and Python's may differ, an error.
pub fn is(text: &str, method: &str) -> Fallible<bool> {
    let unsure = || format!("`{method}` of this text outside ASCII is not supported");
    let all = |ascii: fn(&char) -> bool, other: fn(char) -> Option<bool>| -> Fallible<bool> {
        for c in text.chars() {
            let is = if c.is_ascii() {
                ascii(&c)
            } else {
                other(c).ok_or_else(unsure)?
            };
            if !is {
                return Ok(false);
            }
        }
        Ok(!text.is_empty())
    };
    // No digit of any kind is outside Rust's numeric characters, but for ideographs.
    let digit = |c: char| if c.is_numeric() { None } else { Some(false) };
    let letter = |c: char| match c {
        '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{24f}' => Some(true),
        '\u{391}'..='\u{3a1}' | '\u{3a3}'..='\u{3ce}' | '\u{400}'..='\u{481}' => Some(true),
        '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{4e00}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7a3}' => {
            Some(true)
        }
        _ if c.is_alphanumeric() => None,
        _ => Some(false),
    };
    match method {
        "isascii" => Ok(text.is_ascii()),
        "isspace" => Ok(!text.is_empty() && text.chars().all(is_space)),
        "isdigit" | "isdecimal" => all(char::is_ascii_digit, digit),
        "isnumeric" => all(char::is_ascii_digit, |c| {
            if c.is_alphanumeric() { None } else { Some(false) }
        }),
        "isalpha" => all(char::is_ascii_alphabetic, letter),
        "isalnum" => all(char::is_ascii_alphanumeric, letter),
        "islower" | "isupper" => {
            let lower = |c: char| c.is_lowercase();
            let upper = |c: char| c.is_uppercase();
            let (has_lower, has_upper) = (text.chars().any(lower), text.chars().any(upper));
            if text.chars().any(|c| !c.is_ascii() && has_own_titlecase(c)) {
                return Err(unsure());
            }
            Ok(match method {
                "islower" => has_lower && !has_upper,
                _ => has_upper && !has_lower,
            })
        }
        _ if !text.is_ascii() => Err(unsure()),
        "isidentifier" => Ok(text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')),
        "isprintable" => Ok(text.chars().all(|c| (' '..='~').contains(&c))),
        "istitle" => {
            let (mut after_letter, mut any) = (false, false);
            for c in text.chars() {
                if c.is_ascii_alphabetic() {
                    if c.is_ascii_uppercase() == after_letter {
                        return Ok(false);
                    }
                    any = true;
                }
                after_letter = c.is_ascii_alphabetic();
            }
            Ok(any)
        }
        other => Err(format!("the method `str.{other}` is not supported")),
    }
}
