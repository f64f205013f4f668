//! Durations as Go writes them: `1h30m`, `1.5s`, `100ms`.

use std::time::Duration;

/// Reads a Go duration; the error says what is wrong. Negative ones are refused.
pub fn parse(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("μs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    let invalid = || format!("{text:?} is not a duration such as 30s or 1m30s");
    if text.starts_with('-') {
        return Err(format!("{text:?} is negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos = 0.0f64;
    while !rest.is_empty() {
        let digits = rest.find(|ch: char| !ch.is_ascii_digit() && ch != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let length = tail.find(|ch: char| ch.is_ascii_digit() || ch == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(length);
        if !number.bytes().any(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit {
                "" => format!("{text:?} lacks a unit, write {text}s for seconds"),
                _ => format!("{text:?} has the unknown unit {unit:?}"),
            });
        };
        nanos += number * scale;
        rest = tail;
    }
    #[expect(clippy::cast_precision_loss)]
    if nanos >= i64::MAX as f64 {
        return Err(format!("{text:?} is too long"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(Duration::from_nanos(nanos.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("1ns", Some(1)),
            ("1us", Some(1_000)),
            ("1µs", Some(1_000)),
            ("1.5ms", Some(1_500_000)),
            ("30s", Some(30_000_000_000)),
            ("+1m30s", Some(90_000_000_000)),
            ("1h2m3.5s", Some(3_723_500_000_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("1x", None),
            ("1 s", None),
            ("99999999999h", None),
        ] {
            let found = parse(text).ok().map(|length| length.as_nanos());
            assert_eq!(found, nanos, "{text}");
        }
    }
}
