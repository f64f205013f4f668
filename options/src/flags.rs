//! Values that flags take, read strictly: what is not understood is refused by name.

use std::path::PathBuf;

pub use containers::syntax::{fields, pair, size};
pub use dockerfile::duration::parse as duration;
pub use task::span as age;
use task::{Fault, SyntaxError};

use crate::Failure;

/// A text that is not understood is wrong use.
pub fn wrong_use<E: Fault>(error: E) -> Failure {
    let usage = Failure::is_misread(&error);
    Failure { usage, ..Failure::from(error) }
}

/// The error of a value, called by its flag.
pub fn of_flag<E: Fault>(flag: &str, text: &str) -> impl Fn(E) -> Failure {
    let what = format!("{flag} {text:?}");
    move |error| {
        let mut failure = wrong_use(error);
        match failure.usage {
            true => failure.messages[0] = format!("{what}: {}", failure.messages[0]),
            false => failure.messages.insert(0, format!("reading {what}")),
        }
        failure
    }
}

/// What each text says.
///
/// # Errors
/// One is not understood: it is called by the flag.
pub fn each<T, E: Fault>(
    flag: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Failure> {
    texts.iter().map(|text| read(text).map_err(of_flag(flag, text))).collect()
}

/// A moment in seconds since 1970: an RFC 3339 time, seconds, or an age such as `10m`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn moment(text: &str) -> Result<f64, String> {
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

/// A truth value of a filter.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// `NAME=value` lines of files, then of the command line; a bare `NAME` takes its value from our own
/// environment and is left out if it has none there, as Docker does.
///
/// # Errors
/// An unreadable file, an empty name.
pub fn environment(files: &[PathBuf], lines: &[String]) -> Result<Vec<String>, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut out = containers::syntax::environment_files(files, &variable).map_err(wrong_use)?;
    out.extend(containers::syntax::environment(lines, &variable).map_err(wrong_use)?);
    Ok(out)
}

/// Keys that detach from a container, as a terminal sends them.
#[derive(Debug, Clone)]
pub struct Keys(pub Vec<u8>);

/// `ctrl-p,ctrl-q`: keys that detach.
///
/// # Errors
/// One is no key.
pub fn keys(text: &str) -> Result<Keys, SyntaxError> {
    containers::syntax::detach_keys(text).map(Keys)
}

/// A signal by name (`TERM`, `SIGTERM`) or number.
///
/// # Errors
/// A sentence that says what was expected.
pub fn signal(text: &str) -> Result<runtime::Signal, String> {
    text.parse()
}

/// `KEY=VALUE` pairs, each with a key.
///
/// # Errors
/// One has none.
pub fn annotations(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let read = |text: &String| match pair(text) {
        (key, _) if key.is_empty() || !text.contains('=') => {
            Err(Failure::usage(format!("--annotation {text:?}: expected KEY=VALUE")))
        }
        pair => Ok(pair),
    };
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        assert_eq!(signal("SIGTERM"), Ok(runtime::Signal::TERM));
        assert_eq!(signal("kill"), Ok(runtime::Signal::KILL));
        assert_eq!(signal("RTMIN+3"), Ok(runtime::Signal(37)));
        assert!(signal("0").is_err() && signal("FOO").is_err() && signal("65").is_err());
    }
}
