//! Width of texts, and line breaking: the font is the SVG viewer's, so widths are estimated.

/// Width of a text in pixels in a wide sans-serif font (DejaVu Sans): an upper bound for narrower fonts.
pub fn text_width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '\'' => 0.28,
        ' ' | '.' | ',' | ':' | ';' | '/' | '|' | '!' | '-' | 'f' | 'r' | 't' | '(' | ')' | '[' | ']' => 0.4,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '\u{2026}' => 1.0,
        '+' | '=' | '\u{2212}' | '<' | '>' | '~' | '\u{b1}' => 0.84,
        'A'..='Z' => 0.75,
        c if c.is_ascii() => 0.64,
        // Wide scripts fill a whole em.
        _ => 1.0,
    };
    text.chars().map(em).sum::<f64>() * size
}

/// The text in lines of at most `width` pixels, broken at spaces, or within words that are too long.
pub fn wrapped(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let joined = if line.is_empty() {
            word.to_owned()
        } else {
            format!("{line} {word}")
        };
        if text_width(&joined, size) <= width {
            line = joined;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            if !line.is_empty() && text_width(&line, size) + text_width(&c.to_string(), size) > width {
                // Break after the line's last hyphen, if it has one.
                let end = line.rfind(['-', '_', '/', ',']).map_or(line.len(), |at| at + 1);
                let rest = line.split_off(end);
                lines.push(std::mem::replace(&mut line, rest));
            }
            line.push(c);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_lose_nothing() {
        let text = "mbpp, 500 problems, temperature 0.2, 1 sample each, few-shot";
        let lines = wrapped(text, 12.0, 170.0);
        assert!(
            lines.len() > 1 && lines.iter().all(|line| text_width(line, 12.0) <= 170.0),
            "{lines:?}"
        );
        assert_eq!(lines.join(" "), text);
        assert_eq!(wrapped("short", 12.0, 170.0), ["short"]);
        assert!(wrapped(" ", 12.0, 170.0).is_empty());
    }

    #[test]
    fn a_word_that_is_too_long_is_broken() {
        let word = "x".repeat(50);
        let lines = wrapped(&word, 12.0, 100.0);
        assert!(lines.len() >= 4 && lines.concat() == word, "{lines:?}");
    }
}
