//! JSON arrays of strings: the exec form.

use std::ops::Range;

/// Values nest this deep before the text counts as no JSON at all.
const MAX_DEPTH: usize = 100;

/// What a text is when read as a JSON array of strings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Array {
    /// Its strings and where each stands, quotes included.
    Strings(Vec<(String, Range<usize>)>),
    /// JSON, but this value is not a string.
    NotStrings(Range<usize>),
    /// Not JSON; what is wrong and where.
    Malformed(&'static str, usize),
    /// It does not begin with `[`.
    None,
}

/// Reads a JSON array that is the whole of `text`.
pub(crate) fn array(text: &str) -> Array {
    let mut reader = Reader { text, at: 0 };
    reader.blanks();
    if reader.peek() != Some(b'[') {
        return Array::None;
    }
    match reader.strings() {
        Ok(found) => found,
        Err(message) => Array::Malformed(message, reader.at.min(text.len())),
    }
}

/// A number as JSON writes it: no leading zero, no bare point.
fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let whole = digits.find(|ch: char| !ch.is_ascii_digit()).unwrap_or(digits.len());
    let behind = &digits[whole..];
    let point = behind
        .strip_prefix('.')
        .is_none_or(|rest| rest.starts_with(|ch: char| ch.is_ascii_digit()));
    let leading_zero = whole > 1 && digits.starts_with('0');
    whole > 0 && !leading_zero && point && word.parse::<f64>().is_ok()
}

/// True when a text that is not valid JSON was plainly meant to be: `["a", 'b']`, `["a"`, but not
/// the shell's `[ "$a" = b ]`.
pub(crate) fn looks_meant(text: &str) -> bool {
    let Some(rest) = text.trim_start().strip_prefix('[') else { return false };
    let inner = rest.trim_start();
    // Text processors make typographic quotes of plain ones.
    if inner.starts_with(['“', '”', '‘', '’']) {
        return true;
    }
    let Some(quote) = inner.chars().next().filter(|ch| matches!(ch, '"' | '\'')) else {
        return false;
    };
    let behind = inner[1..].split_once(quote).map_or("", |(_, behind)| behind.trim_start());
    rest.len() == inner.len() || behind.is_empty() || behind.starts_with([',', ']'])
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn strings(&mut self) -> Result<Array, &'static str> {
        let mut strings = Vec::new();
        let mut other = None;
        self.eat(b'[');
        self.blanks();
        let mut more = !self.eat(b']');
        while more {
            self.blanks();
            let start = self.at;
            match self.value(0)? {
                Some(text) => strings.push((text, start..self.at)),
                None => other = other.or(Some(start..self.at)),
            }
            self.blanks();
            more = self.separator(b']')?;
        }
        self.blanks();
        if self.at < self.text.len() {
            return Err("there is text behind the closing bracket");
        }
        Ok(other.map_or(Array::Strings(strings), Array::NotStrings))
    }

    /// True for a comma, false for the closing bracket.
    fn separator(&mut self, close: u8) -> Result<bool, &'static str> {
        if self.eat(b',') {
            return Ok(true);
        }
        match self.eat(close) {
            true => Ok(false),
            false if self.peek().is_none() => Err("the closing bracket is missing"),
            false => Err("a comma is missing"),
        }
    }

    /// Reads any value; strings are returned.
    fn value(&mut self, depth: usize) -> Result<Option<String>, &'static str> {
        if depth > MAX_DEPTH {
            return Err("values are nested too deeply");
        }
        match self.peek() {
            Some(b'"') => return self.string().map(Some),
            Some(b'\'') => return Err("strings need double quotes"),
            Some(b'[') => {
                self.at += 1;
                self.blanks();
                let mut more = !self.eat(b']');
                while more {
                    self.blanks();
                    self.value(depth + 1)?;
                    self.blanks();
                    more = self.separator(b']')?;
                }
            }
            Some(b'{') => self.object(depth)?,
            Some(b']') => return Err("a value is missing behind the comma"),
            None => return Err("the closing bracket is missing"),
            Some(_) => self.scalar()?,
        }
        Ok(None)
    }

    fn object(&mut self, depth: usize) -> Result<(), &'static str> {
        self.at += 1;
        self.blanks();
        let mut more = !self.eat(b'}');
        while more {
            self.blanks();
            self.string()?;
            self.blanks();
            if !self.eat(b':') {
                return Err("a colon is missing");
            }
            self.blanks();
            self.value(depth + 1)?;
            self.blanks();
            more = self.separator(b'}')?;
        }
        Ok(())
    }

    /// `true`, `false`, `null` or a number.
    fn scalar(&mut self) -> Result<(), &'static str> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|ch: char| !(ch.is_ascii_alphanumeric() || matches!(ch, '+' | '-' | '.')))
            .unwrap_or(rest.len());
        let word = &rest[..end];
        let number = is_number(word);
        if !number && !matches!(word, "true" | "false" | "null") {
            return Err("strings need double quotes");
        }
        self.at += end;
        Ok(())
    }

    fn string(&mut self) -> Result<String, &'static str> {
        if !self.eat(b'"') {
            return Err("strings need double quotes");
        }
        let mut text = String::new();
        loop {
            let Some(ch) = self.text[self.at..].chars().next() else {
                return Err("the closing quote is missing");
            };
            match ch {
                '"' => {
                    self.at += 1;
                    return Ok(text);
                }
                '\\' => text.push(self.escape()?),
                '\0'..='\u{1f}' => return Err("control characters must be escaped"),
                _ => {
                    self.at += ch.len_utf8();
                    text.push(ch);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, &'static str> {
        const UNKNOWN: &str = "unknown escape in a string; write \\\\ for a backslash";
        let ch = match self.text.as_bytes().get(self.at + 1) {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
            Some(b'u') => return self.unicode().ok_or(UNKNOWN),
            _ => return Err(UNKNOWN),
        };
        self.at += 2;
        Ok(ch)
    }

    /// `\u1234`, or two of them for a character outside the basic plane.
    fn unicode(&mut self) -> Option<char> {
        let first = self.unit(self.at)?;
        self.at += 6;
        if let 0xd800..=0xdbff = first
            && let Some(second @ 0xdc00..=0xdfff) = self.unit(self.at)
        {
            self.at += 6;
            return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
        }
        Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
        let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex { u32::from_str_radix(digits, 16).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &str) -> Option<Vec<String>> {
        match array(text) {
            Array::Strings(found) => Some(found.into_iter().map(|(text, _)| text).collect()),
            _ => None,
        }
    }

    #[test]
    fn arrays_of_strings() {
        for (text, expected) in [
            ("[]", &[][..]),
            (r#" ["a" , "b c"] "#, &["a", "b c"]),
            (r#"["\"\\\/\n\t\u00e9\ud83d\ude00"]"#, &["\"\\/\n\té😀"]),
            (r#"["\ud83d"]"#, &["\u{fffd}"]),
        ] {
            let expected: Vec<String> = expected.iter().map(|&s| s.to_owned()).collect();
            assert_eq!(strings(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_texts() {
        assert_eq!(array("echo"), Array::None);
        for text in [r#"["a", 1]"#, r#"[["a"]]"#, "[true]", r#"[{"a": [1, null]}]"#, "[-1.5e3]"] {
            assert!(matches!(array(text), Array::NotStrings(_)), "{text}");
        }
        let deep = "[".repeat(100_000);
        for text in
            [r#"["a""#, "['a']", r#"["a" "b"]"#, r#"["a",]"#, r#"["\x"]"#, "[ -f x ]", &deep]
        {
            assert!(matches!(array(text), Array::Malformed(..)), "{text:.20}");
        }
    }

    #[test]
    fn meant_as_json() {
        for (text, meant) in [
            (r#"["a", 'b']"#, true),
            ("['a', 'b']", true),
            (r#"["a" "b"]"#, true),
            (r#"[ "a", b ]"#, true),
            (r#"["a"#, true),
            ("[“a”]", true),
            (r#"[ "$a" = b ] && c"#, false),
            ("[ -f x ] || y", false),
            ("[[ a ]]", false),
            ("echo", false),
        ] {
            assert_eq!(looks_meant(text), meant, "{text}");
        }
    }
}
