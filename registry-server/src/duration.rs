//! Spans of time as configuration writes them: `90s`, `15m`, `12h`, `30d`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// Reads a span of time: a number and `s`, `m`, `h`, `d` or `w`.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is not a number with s, m, h, d or w");
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

pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

pub(crate) fn read_some<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    read(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "h", "-5h", "5 h", "5y", "1.5h", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration("99999999999999999w").is_err());
    }
}
