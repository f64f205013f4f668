//! Values that flags take, read strictly: what is not understood is refused by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use runtime::Ulimit;

use crate::report::Failure;

/// Bytes with an optional unit: `512m`, `1g`, `64KiB`, `1048576`. Units are powers of 1024.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is not a size such as 512m or 1g");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(refuse()),
    };
    match digits.split_once('.') {
        None => {
            let value: u64 = digits.parse().map_err(|_| refuse())?;
            value.checked_mul(1 << unit).ok_or_else(refuse)
        }
        Some(_) => {
            let value: f64 = digits.parse().map_err(|_| refuse())?;
            let bytes = value * (1u64 << unit) as f64;
            if bytes < 9e18 { Ok(bytes as u64) } else { Err(refuse()) }
        }
    }
}

/// A length of time as Go writes it: `30s`, `1m30s`, `500ms`; `0` without a unit.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    let read = text.parse::<jiff::SignedDuration>().ok();
    let read = read.filter(|_| !text.starts_with(['P', 'p']));
    let read = read.and_then(|duration| std::time::Duration::try_from(duration).ok());
    read.ok_or_else(|| format!("{text:?} is not a duration such as 30s or 5m"))
}

/// A moment in seconds since 1970: an RFC 3339 time, seconds, or an age such as `10m`.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn moment(text: &str) -> Result<f64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(seconds);
    }
    if let Ok(age) = duration(text) {
        return Ok(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0 - age.as_secs_f64());
    }
    let time = text.parse::<jiff::Timestamp>();
    time.map(|time| time.as_millisecond() as f64 / 1000.0)
        .map_err(|_| format!("{text:?} is not a time such as 2026-01-31T12:00:00Z or 10m"))
}

/// As [`size`], or `-1` for no limit.
///
/// # Errors
/// As [`size`].
pub(crate) fn size_or_unlimited(text: &str) -> Result<i64, String> {
    match text {
        "-1" => Ok(-1),
        text => i64::try_from(size(text)?).map_err(|_| format!("{text:?} is too large")),
    }
}

/// A truth value of a filter.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// `NAME=soft[:hard]`, with -1 for no limit.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let refuse = || format!("{text:?} is not a limit such as nofile=1024:2048");
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse().map_err(|_| refuse()),
    };
    let (name, value) = text.split_once('=').ok_or_else(refuse)?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(format!("{text:?} has a soft limit above its hard limit"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// Fields between commas, each optionally in quotes: `a,"b,c"` (RFC 4180).
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, String> {
    let fields = dockerfile::fields(text)?;
    Ok(fields.into_iter().map(|field| field.text).collect())
}

/// `NAME=value` lines of `--env` and the files of `--env-file`; a bare `NAME` takes its value from
/// our own environment and is left out if it has none there, as Docker does.
///
/// # Errors
/// An unreadable file, an empty name.
pub(crate) fn environment(files: &[PathBuf], lines: &[String]) -> Result<Vec<String>, Failure> {
    let mut out = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
        for line in env_lines(&text) {
            let read = assignment(line);
            out.extend(read.map_err(|failure| failure.context(file.display().to_string()))?);
        }
    }
    for line in lines {
        out.extend(assignment(line)?);
    }
    Ok(out)
}

/// The labels of the files of `--label-file`: one `KEY=VALUE` a line.
///
/// # Errors
/// An unreadable file.
pub(crate) fn label_files(files: &[PathBuf]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        labels.extend(lines.map(pair));
    }
    Ok(labels)
}

/// The lines of an environment file: without comments, a byte order mark, and the word `export`
/// that shells want before a name.
fn env_lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    })
}

fn assignment(line: &str) -> Result<Option<String>, Failure> {
    match line.split_once('=') {
        Some(("", _)) => Err(Failure::usage(format!("environment line {line:?} has no name"))),
        Some((name, _)) if name.contains(char::is_whitespace) => {
            Err(Failure::usage(format!("environment line {line:?}: the name has a blank in it")))
        }
        Some(_) => Ok(Some(line.to_owned())),
        None => Ok(std::env::var(line).ok().map(|value| format!("{line}={value}"))),
    }
}

/// `KEY=VALUE` pairs of `--label`, `--annotation`, `--build-arg`; a bare key has an empty value.
pub(crate) fn pair(text: &str) -> (String, String) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (text.to_owned(), String::new()),
    }
}

/// A signal by name (`TERM`, `SIGTERM`) or number.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn signal(text: &str) -> Result<runtime::Signal, String> {
    text.parse()
}

/// Keys of `--detach-keys`: `ctrl-p,ctrl-q`, single characters, or empty for none.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>, String> {
    let key = |part: &str| {
        let refuse = || format!("{part:?} is not a key such as a or ctrl-p");
        match part.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
            Some([sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(sign - b'@'),
            Some(_) => Err(refuse()),
            None => match part.as_bytes() {
                [byte] => Ok(*byte),
                _ => Err(refuse()),
            },
        }
    };
    text.split(',').filter(|part| !part.is_empty()).map(key).collect()
}

/// An age: a number and a unit.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is not an age such as 24h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| refuse())?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(refuse()),
    };
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        let good = [("0", 0), ("1024", 1024), ("1k", 1024), ("1.5m", 1_572_864), ("2GiB", 2 << 30)];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "99999999999t", "1e3", "nan"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn environment_files_may_begin_with_a_mark_and_export_names() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("env");
        std::fs::write(&file, "\u{feff}A=1\r\nexport B=2 3\n  export\tC=4\n# D=5\nexported=6\n")
            .unwrap();
        let lines = environment(std::slice::from_ref(&file), &["E=7".to_owned()]).unwrap();
        assert_eq!(lines, ["A=1", "B=2 3", "C=4", "exported=6", "E=7"]);
        std::fs::write(&file, "two words=1\n").unwrap();
        assert!(environment(&[file], &[]).is_err());
    }

    #[test]
    fn durations_are_gos() {
        let ms = |ms| Ok(std::time::Duration::from_millis(ms));
        let good =
            [("0", 0), ("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1h", 3_600_000)];
        for (text, expected) in good {
            assert_eq!(duration(text), ms(expected), "{text}");
        }
        for text in ["", "5", "-5s", "s", "PT5S", "5 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals_and_keys_have_names() {
        assert_eq!(signal("SIGTERM"), Ok(runtime::Signal::TERM));
        assert_eq!(signal("kill"), Ok(runtime::Signal::KILL));
        assert_eq!(signal("RTMIN+3"), Ok(runtime::Signal(37)));
        assert!(signal("0").is_err() && signal("FOO").is_err() && signal("65").is_err());
        assert_eq!(detach_keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(detach_keys(""), Ok(Vec::new()));
        assert!(detach_keys("ctrl-1").is_err());
        assert!(ulimit("nofile=5:4").is_err());
        assert_eq!(ulimit("core=-1").map(|limit| limit.soft), Ok(u64::MAX));
    }
}
