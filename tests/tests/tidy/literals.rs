//! The string literals of a source text, found without a parser.

/// Every string literal as it is written, without its quotes; comments are left out.
pub(crate) fn of(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        at = match &bytes[at..] {
            [b'/', b'/', ..] => end(text, at, "\n"),
            [b'/', b'*', ..] => end(text, at, "*/"),
            [b'\'', ..] => character(bytes, at),
            [b'"', ..] => {
                let close = quoted(bytes, at + 1);
                found.push(&text[at + 1..close]);
                close + 1
            }
            [b'r', rest @ ..] if !is_word(bytes, at) => match raw(text, at, rest) {
                Some((literal, next)) => {
                    found.push(literal);
                    next
                }
                None => at + 1,
            },
            _ => at + 1,
        };
    }
    found
}

fn end(text: &str, at: usize, mark: &str) -> usize {
    text[at..].find(mark).map_or(text.len(), |found| at + found + mark.len())
}

/// Whether what stands at a place continues a word.
fn is_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

/// Behind a character literal or a lifetime.
fn character(bytes: &[u8], at: usize) -> usize {
    match &bytes[at + 1..] {
        [b'\\', _, rest @ ..] => {
            let close = rest.iter().position(|byte| *byte == b'\'');
            at + 4 + close.unwrap_or(0)
        }
        [_, b'\'', ..] => at + 3,
        _ => at + 1,
    }
}

/// Where the string that begins here is closed.
fn quoted(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

/// A raw string, `r"…"` or `r#"…"#`, and what is behind it.
fn raw<'a>(text: &'a str, at: usize, rest: &[u8]) -> Option<(&'a str, usize)> {
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let (begin, close) = (at + hashes + 2, format!("\"{}", "#".repeat(hashes)));
    let length = text[begin..].find(&close)?;
    Some((&text[begin..begin + length], begin + length + close.len()))
}

mod tests {
    #[test]
    fn literals_are_told_from_what_looks_like_them() {
        let text = r####"
            let a = "one \" two"; // "no"
            let b = '"'; let c = '\''; let d: &'static str = "three";
            let e = r"fo\ur"; let f = r#"fi"ve"#; let for_r = b"six"; /* "no" */
        "####;
        assert_eq!(super::of(text), ["one \\\" two", "three", "fo\\ur", "fi\"ve", "six"]);
    }
}
