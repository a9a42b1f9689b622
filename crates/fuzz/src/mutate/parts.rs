//! Inputs that are several files, or several answers of a server.

/// What a part begins with; its name follows, up to the end of the line.
const MARK: &[u8] = b"%% ";

/// Names and contents. Bytes before the first mark are no part.
pub fn split(input: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some(begin) = mark(rest) {
        rest = rest.get(begin + MARK.len()..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (name, content) = rest.split_at(end);
        let content = content.get(1..).unwrap_or_default();
        let length = mark(content).unwrap_or(content.len());
        let (own, after) = content.split_at(length);
        let own = own.strip_suffix(b"\n").unwrap_or(own);
        parts.push((String::from_utf8_lossy(name).into_owned(), own.to_vec()));
        rest = after;
    }
    parts
}

/// Where the next mark is, at the beginning of a line.
fn mark(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(MARK) {
        return Some(0);
    }
    let next = bytes.windows(MARK.len() + 1).position(|window| window == b"\n%% ")?;
    Some(next + 1)
}

/// The input of these parts.
pub fn join(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut input = Vec::new();
    for (name, content) in parts {
        input.extend(MARK);
        input.extend(name.bytes());
        input.push(b'\n');
        input.extend(content);
        input.push(b'\n');
    }
    input
}

/// The same of borrowed parts.
pub fn named(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let parts: Vec<(String, Vec<u8>)> = parts
        .iter()
        .map(|(name, content)| ((*name).to_owned(), content.to_vec()))
        .collect();
    join(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let parts = [
            ("a.json", &b"{}"[..]),
            ("empty", b""),
            ("bytes", b"\x00\n%\n\xff\n"),
            ("last", b"x %% y"),
        ];
        let input = named(&parts);
        assert!(input.starts_with(b"%% a.json\n{}\n%% empty\n\n%% bytes\n"));
        let back = split(&input);
        let names: Vec<&str> = back.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.json", "empty", "bytes", "last"]);
        let contents: Vec<&[u8]> = back.iter().map(|(_, content)| content.as_slice()).collect();
        assert_eq!(contents, parts.map(|(_, content)| content));
        assert_eq!(split(b"no part"), []);
    }
}
