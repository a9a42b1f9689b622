//! Whether a program's output is the expected one: token by token, numbers nearly.

/// Numbers may differ by this much, absolutely or relative to the expected one.
const TOLERANCE: f64 = 1e-5;

/// Compares two outputs by their tokens, what white space separates.
///
/// Tokens are equal if their texts are, letter case included. Else both have to be numbers. Two
/// integers (digits with a sign, however many) have to be the same: `1000000000` is a wrong answer
/// for `1000000007`. If at least one has a fraction or an exponent, they may differ by 1e-5,
/// absolutely or, where the expected one is larger than 1, relative to it: statements allow answers
/// "with absolute or relative error", and a relative error alone would ask for an exact 0.
pub fn same_output(output: &str, expected: &str) -> bool {
    let (mut ours, mut theirs) = (output.split_ascii_whitespace(), expected.split_ascii_whitespace());
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(token), Some(expected)) if same_token(token, expected) => {}
            _ => return false,
        }
    }
}

fn same_token(token: &str, expected: &str) -> bool {
    if token == expected {
        return true;
    }
    match (integer(token), integer(expected)) {
        (Some(token), Some(expected)) => token == expected,
        _ => match (number(token), number(expected)) {
            (Some(token), Some(expected)) => (token - expected).abs() <= TOLERANCE * expected.abs().max(1.0),
            _ => false,
        },
    }
}

/// Sign and digits without leading zeros; None for anything but an integer.
fn integer(token: &str) -> Option<(bool, &str)> {
    let digits = token.strip_prefix(['+', '-']).unwrap_or(token);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    Some((token.starts_with('-') && !digits.is_empty(), digits))
}

/// A finite decimal number. Rust's names of infinities and NaN are no output of a program.
fn number(token: &str) -> Option<f64> {
    let numeric = token
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let value: f64 = token.parse().ok().filter(|_| numeric)?;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_does_not_matter_and_letter_case_does() {
        assert!(same_output("1 2\n3\n", "1\n2 3"));
        assert!(same_output("", " \n"));
        assert!(same_output("YES\r\n", "YES\n"));
        assert!(!same_output("Yes", "YES"));
        assert!(!same_output("1 2", "1 2 3") && !same_output("1 2 3", "1 2"));
        assert!(!same_output("12", "1 2"));
    }

    #[test]
    fn integers_are_exact_however_long() {
        assert!(!same_output("1000000000", "1000000007"));
        assert!(!same_output(
            "123456789012345678901234567890",
            "123456789012345678901234567891"
        ));
        assert!(same_output("007 +5 -0", "7 5 0"));
        assert!(!same_output("-5", "5"));
    }

    #[test]
    fn fractions_may_be_off_by_the_tolerance_absolutely_or_relatively() {
        assert!(same_output("0.333333", "0.33333333333"));
        assert!(same_output("0.000009", "0.0"));
        assert!(!same_output("0.00002", "0.0"));
        assert!(same_output("1000001.0", "1000000.0"));
        assert!(!same_output("1000011.0", "1000000.0"));
        assert!(same_output("3.0", "3") && same_output("1e3", "1000"));
        assert!(!same_output("3.1", "3"));
    }

    #[test]
    fn words_are_no_numbers() {
        for (token, expected) in [
            ("nan", "0.5"),
            ("inf", "1e9"),
            ("x", "y"),
            ("0x10", "16"),
            ("1_0", "10"),
            ("infinity", "inf"),
        ] {
            assert!(!same_output(token, expected), "{token} {expected}");
        }
        assert!(same_output("nan", "nan"));
    }
}
