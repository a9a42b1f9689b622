//! Addresses without the user names and passwords in them.

/// The text with `scheme://user:password@host` as `scheme://host`, wherever it stands.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let authority = after.find(ends_authority).unwrap_or(after.len());
        let (host, tail) = after.split_at(authority);
        out.push_str(host.rsplit('@').next().unwrap_or(host));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Whether an address in the text has a user name or password in it.
pub fn has_credentials(text: &str) -> bool {
    redact(text) != text
}

/// User name and password of an address that has them.
pub fn credentials(address: &str) -> Option<(String, String)> {
    let (_, after) = address.split_once("://")?;
    let authority = after.split(ends_authority).next()?;
    let (user, _host) = authority.rsplit_once('@')?;
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    Some((decoded(name), decoded(password)))
}

fn ends_authority(c: char) -> bool {
    matches!(c, '/' | '?' | '#' | '"' | '\'' | '\\' | ',' | ']' | '}') || c.is_whitespace()
}

/// `%40` as `@`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        match (first, tail.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_leave_addresses_and_nothing_else_does() {
        for (text, shown) in [
            ("http://u:p@host:5000/x", "http://host:5000/x"),
            (
                "see http://u:p@a/b and s3://k:s@bucket",
                "see http://a/b and s3://bucket",
            ),
            ("http://host/path@1.0", "http://host/path@1.0"),
            ("a@b.c", "a@b.c"),
            ("http://u:p@ss@host", "http://host"),
            ("[\"http://u:p@h\",\"mail@x\"]", "[\"http://h\",\"mail@x\"]"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }

    #[test]
    fn credentials_are_read_as_they_were_meant() {
        let found = credentials("https://me:p%40ss@host:1/x");
        assert_eq!(found, Some(("me".into(), "p@ss".into())));
        assert_eq!(credentials("https://host/a@b"), None);
    }
}
