//! What becomes of a container: restarts, health checks, its log, messages to the service manager.

use std::time::Duration;

use runtime::{ImageVolumes, LogLimits, Notify, OnFailure, Restart};

use super::SyntaxError;
use super::limit::size;

/// No check is due within a life.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A restart policy: `no`, `on-failure[:TIMES]`, `always` or `unless-stopped`.
///
/// # Errors
/// It is none.
pub fn restart(text: &str) -> Result<Restart, SyntaxError> {
    let refuse = || {
        let known = "no, on-failure[:TIMES], always, unless-stopped";
        SyntaxError::new(format!("{text:?} is not one of {known}"))
    };
    match text.split_once(':').unwrap_or((text, "")) {
        ("no", "") => Ok(Restart::No),
        ("on-failure", "") => Ok(Restart::OnFailure(0)),
        ("on-failure", times) => times.parse().map(Restart::OnFailure).map_err(|_| refuse()),
        ("always", "") => Ok(Restart::Always),
        ("unless-stopped", "") => Ok(Restart::UnlessStopped),
        _ => Err(refuse()),
    }
}

/// The time between two health checks: `30s`; `disable` for no check.
///
/// # Errors
/// It is no duration.
pub fn health_interval(text: &str) -> Result<Duration, SyntaxError> {
    match text {
        "disable" => Ok(NEVER),
        text => dockerfile::duration::parse(text).map_err(SyntaxError::new),
    }
}

/// A health check: a command line for a shell; or, as JSON, program and arguments.
///
/// # Errors
/// The JSON is no list of words, or an empty one.
pub fn health_test(text: &str) -> Result<Vec<String>, SyntaxError> {
    if !text.starts_with('[') {
        return Ok(vec!["CMD-SHELL".to_owned(), text.to_owned()]);
    }
    let words: Vec<String> =
        serde_json::from_str(text).map_err(|error| SyntaxError::new(error.to_string()))?;
    let known = |word: &String| ["CMD", "CMD-SHELL", "NONE"].contains(&word.as_str());
    match words.first() {
        None => Err(SyntaxError::new("there is no command")),
        Some(first) if known(first) => Ok(words),
        Some(_) => Ok([vec!["CMD".to_owned()], words].concat()),
    }
}

/// What happens to an unhealthy container.
///
/// # Errors
/// It is none of `none`, `kill`, `restart` and `stop`.
pub fn on_failure(text: &str) -> Result<OnFailure, SyntaxError> {
    match text {
        "none" => Ok(OnFailure::None),
        "kill" => Ok(OnFailure::Kill),
        "restart" => Ok(OnFailure::Restart),
        "stop" => Ok(OnFailure::Stop),
        other => Err(SyntaxError::new(format!("{other:?} is not none, kill, restart or stop"))),
    }
}

/// What becomes of the volumes of an image: `anonymous`, `bind` (the same), `tmpfs` or `ignore`.
///
/// # Errors
/// It is none of these.
pub fn image_volumes(text: &str) -> Result<ImageVolumes, SyntaxError> {
    match text {
        "anonymous" | "bind" => Ok(ImageVolumes::Anonymous),
        "tmpfs" => Ok(ImageVolumes::Tmpfs),
        "ignore" => Ok(ImageVolumes::Ignore),
        other => {
            let reason = format!("{other:?} is none of anonymous, bind, tmpfs and ignore");
            Err(SyntaxError::new(reason))
        }
    }
}

/// Whether a log driver keeps anything.
///
/// # Errors
/// It is not supported.
pub fn log_driver(text: &str) -> Result<bool, SyntaxError> {
    match text {
        "json-file" | "local" | "k8s-file" => Ok(true),
        "none" => Ok(false),
        other => Err(SyntaxError::new(format!(
            "{other:?} is not supported: the log is a file of JSON lines (json-file), or there is \
             none; `rbuild logs -f` in a unit writes to the journal"
        ))),
    }
}

/// An option of the log: `max-size=SIZE` (-1 for no limit) or `max-file=NUMBER`.
///
/// # Errors
/// It is not supported; its value is none.
pub fn log_option(text: &str, log: &mut LogLimits) -> Result<(), SyntaxError> {
    match text.split_once('=') {
        Some(("max-size", "-1")) => log.max_size = Some(u64::MAX),
        Some(("max-size", text)) => log.max_size = Some(size(text)?),
        Some(("max-file", number)) => {
            let number = number.parse().ok().filter(|number| *number > 0);
            let refuse = || SyntaxError::new("it is not a number above 0");
            log.max_files = Some(number.ok_or_else(refuse)?);
        }
        _ => {
            let refused = SyntaxError::new("it is not supported");
            return Err(refused.hinting("max-size= and max-file= are supported"));
        }
    }
    Ok(())
}

/// Who says to the service manager that the container is ready.
///
/// # Errors
/// It is none of `container`, `conmon`, `healthy` and `ignore`.
pub fn notify(text: &str) -> Result<Notify, SyntaxError> {
    match text {
        "container" | "true" => Ok(Notify::Container),
        "conmon" => Ok(Notify::Conmon),
        "healthy" => Ok(Notify::Healthy),
        "ignore" | "false" => Ok(Notify::Ignore),
        other => {
            let known = "container, conmon, healthy, ignore";
            Err(SyntaxError::new(format!("{other:?} is not one of {known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_are_lines_or_lists() {
        assert_eq!(health_test("test -e /x"), Ok(vec!["CMD-SHELL".into(), "test -e /x".into()]));
        assert_eq!(health_test("[\"a\"]"), Ok(vec!["CMD".into(), "a".into()]));
        assert_eq!(health_test("[\"NONE\"]"), Ok(vec!["NONE".into()]));
        assert!(health_test("[]").is_err() && health_test("[1]").is_err());
        assert_eq!(health_interval("disable"), Ok(NEVER));
        assert!(health_interval("5 parsecs").is_err());
    }

    #[test]
    fn policies_are_those_of_docker() {
        assert_eq!(restart("on-failure:3"), Ok(Restart::OnFailure(3)));
        assert_eq!(restart("unless-stopped"), Ok(Restart::UnlessStopped));
        assert!(restart("always:1").is_err() && restart("on-failure:x").is_err());
        let mut log = LogLimits::default();
        log_option("max-size=1k", &mut log).unwrap();
        log_option("max-file=3", &mut log).unwrap();
        assert_eq!((log.max_size, log.max_files), (Some(1024), Some(3)));
        assert!(log_option("tag=x", &mut log).is_err());
        assert!(log_option("max-file=0", &mut log).is_err());
        assert!(log_driver("journald").is_err() && notify("me").is_err());
        assert!(on_failure("dance").is_err());
    }
}
