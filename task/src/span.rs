use std::time::Duration;

/// Reads a span of time as options and configuration write it: a whole number and `s`, `m`, `h`, `d`
/// or `w`.
///
/// # Errors
/// What is wrong with the text.
pub fn span(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is not a span of time such as 90s, 24h or 7d");
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
    let count: u64 = text[..at].parse().map_err(|_| refuse())?;
    let unit = match &text[at..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(refuse()),
    };
    count.checked_mul(unit).map(Duration::from_secs).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_number_and_one_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "h", "-5h", "5 h", "5y", "1.5h", "1h30m", "99999999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(span("99999999999999999w").is_err());
    }
}
