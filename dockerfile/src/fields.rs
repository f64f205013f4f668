//! Lists of fields between commas, as `RUN --mount` and many flags have them: RFC 4180, of which
//! only one line is read.

use std::ops::Range;

/// One field of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its text, without the quotes.
    pub text: String,
    /// Where it stands in the list, in bytes.
    pub range: Range<usize>,
}

/// Splits at commas outside double quotes. The quotes go; in quotes, `""` is a quote.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn fields(list: &str) -> Result<Vec<Field>, String> {
    if list.contains(['\n', '\r']) {
        return Err("it has more than one line".to_owned());
    }
    let mut fields = Vec::new();
    let mut text = String::new();
    let (mut start, mut quoted) = (0, false);
    let mut chars = list.char_indices().peekable();
    while let Some((at, ch)) = chars.next() {
        match ch {
            '"' if quoted && chars.next_if(|(_, next)| *next == '"').is_some() => text.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => {
                fields.push(Field { text: std::mem::take(&mut text), range: start..at });
                start = at + 1;
            }
            _ => text.push(ch),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    fields.push(Field { text, range: start..list.len() });
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_do_not_split() {
        let texts = |list: &str| -> Vec<String> {
            fields(list).unwrap().into_iter().map(|field| field.text).collect()
        };
        for (list, expected) in [
            ("", &[""][..]),
            ("a=1,b=2", &["a=1", "b=2"]),
            ("\"src=/a,b\",dst=/x", &["src=/a,b", "dst=/x"]),
            ("src=\"/a,b\",dst=/x", &["src=/a,b", "dst=/x"]),
            ("\"a=say \"\"hi\"\"\",b", &["a=say \"hi\"", "b"]),
            ("a,,b,", &["a", "", "b", ""]),
        ] {
            assert_eq!(texts(list), expected, "{list}");
        }
        assert_eq!(fields("a,\"b\"").unwrap()[1].range, 2..5);
        assert!(fields("\"a,b").is_err() && fields("a\nb").is_err());
    }
}
