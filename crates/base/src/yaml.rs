//! YAML that may be anything: how deep it is nested, before a reader that calls itself for each level reads it.

use saphyr_parser::{Event, Parser};

/// Settings, cards and configurations have far fewer levels.
const DEEPEST: usize = 100;

/// The line, from 1, where a text is nested more than 100 levels deep. A text that is no YAML is not judged.
pub fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for event in Parser::new_from_str(text) {
        match event.ok()? {
            (Event::SequenceStart(..) | Event::MappingStart(..), span) => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(span.start.line());
                }
            }
            (Event::SequenceEnd | Event::MappingEnd, _) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_without_calling_oneself() {
        for unit in ["- ", "? "] {
            assert_eq!(
                too_deep(&format!("x: 1\ny:\n  {}", unit.repeat(20_000))),
                Some(3),
                "{unit}"
            );
        }
        assert_eq!(too_deep(&format!("{}1{}", "[".repeat(101), "]".repeat(101))), Some(1));
        assert_eq!(too_deep(&format!("{}1{}", "[".repeat(100), "]".repeat(100))), None);
        assert_eq!(too_deep("a: [1, {b: 2}]\n- not YAML"), None);
    }
}
