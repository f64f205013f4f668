//! Single values for people.

use std::fmt::Write;

/// An RFC 3339 time as its distance to `now`, in seconds since 1970: `3 minutes ago`.
pub fn ago(time: &str, now: i64) -> String {
    let Ok(then) = time.parse::<jiff::Timestamp>() else { return "-".to_owned() };
    let seconds = now - then.as_second();
    let (number, unit) = match seconds {
        ..0 => return "in the future".to_owned(),
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        86_400..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}

/// A text whose control characters are shown as `\u001b` (which JSON reads back): all but line
/// breaks and tabs, and those that change the direction of text.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                // Writing to a string does not fail.
                let _ = write!(shown, "\\u{:04x}", u32::from(c));
            }
            other => shown.push(other),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_shown_what_would_move_its_cursor() {
        for (text, shown) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("a\u{1b}[2Jb\u{7}\r", "a\\u001b[2Jb\\u0007\\u000d"),
            ("\u{9b}31m\u{7f}", "\\u009b31m\\u007f"),
            ("\u{202e}gnp.exe", "\\u202egnp.exe"),
            ("größe · 大", "größe · 大"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn times_are_told_by_their_age() {
        assert_eq!(ago("1970-01-01T00:00:00Z", 90), "1 minute ago");
        assert_eq!(ago("1970-01-01T00:00:00Z", 7_200), "2 hours ago");
        assert_eq!(ago("1970-01-01T01:00:00Z", 0), "in the future");
        assert_eq!(ago("", 0), "-");
    }

    #[test]
    fn what_is_shown_of_a_document_reads_back() {
        let document = serde_json::json!({"a": "\u{9b}\u{1b}\u{202e}"});
        let read: serde_json::Value =
            serde_json::from_str(&visible(&document.to_string())).unwrap();
        assert_eq!(read, document);
    }
}
