//! How a failure is reported: what failed, why, and what to do, once, at the end.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use task::{Cause, Fault, Kind};

use crate::hints;

/// Why a command failed, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Decides the exit code and the default hint.
    pub kind: Kind,
    /// Outermost first.
    pub messages: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Text to show above the messages as it is: an excerpt of a Dockerfile.
    pub excerpt: Option<String>,
    /// The exit code where the program and the kind do not decide it.
    pub code: Option<u8>,
    /// Whether the command line is wrong.
    pub usage: bool,
}

impl Failure {
    /// A failure of the command line's own.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Failure {
        let messages = vec![message.into()];
        Failure { kind, messages, hint: None, excerpt: None, code: None, usage: false }
    }

    /// Wrong use.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { usage: true, ..Failure::new(Kind::Invalid, message) }
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done in front.
    pub(crate) fn context(mut self, message: impl Into<String>) -> Failure {
        self.messages.insert(0, message.into());
        self
    }

    /// A failed system call on a named thing.
    pub(crate) fn io(doing: impl std::fmt::Display, error: &std::io::Error) -> Failure {
        Failure::new(Kind::of_io(error), format!("{doing}")).caused_by(error.to_string())
    }

    fn caused_by(mut self, message: String) -> Failure {
        self.messages.push(message);
        self
    }

    /// Where a disk is full, says which one and what to do. `store` is the usual place.
    pub(crate) fn full_disk(self, store: impl FnOnce() -> Option<PathBuf>) -> Failure {
        if self.kind != Kind::NoSpace {
            return self;
        }
        let Some(store) = store() else { return self };
        let elsewhere = self.messages.iter().rev().find_map(|message| elsewhere(message, &store));
        let hint = match elsewhere {
            Some(directory) => format!(
                "the file system of {} is full: make room there, or write elsewhere",
                directory.display()
            ),
            None => hints::full_disk(&store),
        };
        self.hint(hint)
    }

    /// Whether a file of this machine is missing, and no image.
    pub(crate) fn lacks_file(&self) -> bool {
        let last = self.messages.last();
        last.is_some_and(|message| message.ends_with("No such file or directory (os error 2)"))
    }

    /// 2 for wrong use and 1 for all else, for tests that tell them apart.
    #[cfg(test)]
    pub(crate) fn exit_code(&self) -> u8 {
        self.code.unwrap_or(1 + u8::from(self.usage))
    }

    /// Shows the failure on standard error.
    pub(crate) fn print(&self) {
        let mut err = std::io::stderr().lock();
        let colour = std::io::stderr().is_terminal();
        let paint = |code: &str, text: &str| match colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        // Messages quote images and registries.
        let shown = |text: &str| match colour {
            true => ::format::visible(text),
            false => text.to_owned(),
        };
        if self.kind == Kind::Cancelled {
            let _ = writeln!(err, "{}", paint("33", "cancelled"));
            return;
        }
        match &self.excerpt {
            Some(excerpt) => {
                let _ = writeln!(err, "{}", shown(excerpt.trim_end()));
            }
            None => {
                let first = self.messages.first().map_or("", String::as_str);
                let _ = writeln!(err, "{} {}", paint("1;31", "error:"), shown(first));
            }
        }
        for message in self.causes() {
            let _ = writeln!(err, "  {} {}", paint("2", "caused by:"), shown(message));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(err, "{} {}", paint("1;36", "hint:"), shown(hint));
        }
    }

    /// What is behind the first message. The first message stands for the excerpt, if there is one:
    /// it says where in the Dockerfile; and what the excerpt says is not said again.
    fn causes(&self) -> impl Iterator<Item = &String> {
        let excerpt = self.excerpt.as_deref().unwrap_or_default();
        self.messages.iter().skip(1).filter(move |message| !excerpt.contains(message.as_str()))
    }

    /// Shows the failure as one JSON object on standard error.
    pub(crate) fn print_json(&self) {
        let (message, causes) = match self.messages.split_first() {
            Some((first, rest)) => (first.as_str(), rest),
            None => ("", &[][..]),
        };
        let kind = if self.usage { "usage" } else { self.kind.as_str() };
        let line = json!({
            "event": "error", "kind": kind, "message": message,
            "causes": causes, "hint": self.hint,
        });
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// Every fault of the libraries is a failure with its whole chain of causes.
impl<F: Fault> From<F> for Failure {
    fn from(fault: F) -> Failure {
        let (kind, hint) = (Kind::of(&fault), hints::of(&fault).or_else(|| fault.hint()));
        Failure { hint, messages: distinct(&fault), ..Failure::new(kind, "") }
    }
}

/// Tells a boxed cause.
pub(crate) fn cause(cause: &Cause) -> Failure {
    let (kind, hint) = (Kind::of_cause(cause), hints::of(cause).or_else(|| cause.hint()));
    Failure { hint, messages: distinct(cause), ..Failure::new(kind, "") }
}

/// The directory outside of the store in which a message says a file of this machine is written.
fn elsewhere(message: &str, store: &Path) -> Option<PathBuf> {
    // These name where the content comes from.
    if message.starts_with("reading ") || message.starts_with("unpacking ") {
        return None;
    }
    let path = message.split_whitespace().last().map(Path::new)?;
    let directory = path.parent().filter(|parent| parent.parent().is_some())?;
    let here = path.is_absolute() && directory.is_dir() && !directory.starts_with(store);
    here.then(|| directory.to_owned())
}

/// A message that ends with a later one has said it, and what stands between.
fn distinct(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut messages = task::chain(error);
    let mut at = 0;
    while at < messages.len() {
        let said = |later: &usize| messages[at].ends_with(&messages[*later]);
        if let Some(last) = (at + 1..messages.len()).rev().find(said) {
            messages.drain(at + 1..=last);
        }
        at += 1;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("pushing app: {0}")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("no route")]
    struct Inner;

    impl Fault for Outer {
        fn kind(&self) -> Kind {
            Kind::Unavailable
        }
    }

    #[test]
    fn a_full_disk_is_named() {
        let store = || Some(PathBuf::from("/var/store"));
        let told = |kind: Kind, messages: &[&str]| {
            let messages = messages.iter().map(|text| (*text).to_owned()).collect();
            let failure = Failure { messages, ..Failure::new(kind, "") };
            failure.full_disk(store).hint.unwrap_or_default()
        };
        let os = "No space left on device (os error 28)";
        let lines = ["D:2: COPY big /", "copying to /big", os];
        assert!(told(Kind::NoSpace, &lines).contains("of /var/store is full"));
        assert!(told(Kind::NoSpace, &["x"]).contains("rbuild prune"));
        assert!(told(Kind::NoSpace, &["writing /usr/lib/x", os]).contains("of /usr/lib is full"));
        // The words of the system do not decide it.
        assert_eq!(told(Kind::System, &lines), "");
    }

    #[test]
    fn the_place_of_a_source_is_not_taken_for_the_full_disk() {
        let messages = ["unpacking /usr/lib/x.tar", "writing ./a"].map(str::to_owned).into();
        let failure = Failure { messages, ..Failure::new(Kind::NoSpace, "") };
        let hint = failure.full_disk(|| Some(PathBuf::from("/var/store"))).hint;
        assert!(hint.is_some_and(|hint| hint.contains("of /var/store is full")));
    }

    #[test]
    fn a_full_disk_is_found_below_everything_that_failed_because_of_it() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let inner = builder::Error::File { action: "writing", path: "x".into(), source: full };
        let part = |source| builder::Error::Part { action: "copying".into(), source };
        let outer = part(Cause::new(part(Cause::new(inner))));
        assert_eq!(Failure::from(outer).kind, Kind::NoSpace);
        assert_eq!(Failure::from(builder::Error::TooLarge).kind, Kind::Invalid);
    }

    #[test]
    fn an_error_of_a_library_gets_the_flag_that_helps() {
        let needed = builder::Error::Required { what: "secret", id: "key".to_owned() };
        let nested = builder::Error::Part { action: "x".into(), source: Cause::new(needed) };
        let hint = Failure::from(nested).hint;
        assert_eq!(hint.as_deref(), Some("use --secret id=key,src=FILE"));
    }

    #[test]
    fn what_the_excerpt_says_is_not_said_again() {
        let messages = ["D:2: COPY a /", "\"a\" is missing", "no such file"].map(str::to_owned);
        let excerpt = Some("error: \"a\" is missing\n --> D:2:1".to_owned());
        let failure =
            Failure { messages: messages.into(), excerpt, ..Failure::new(Kind::Invalid, "") };
        assert_eq!(failure.causes().collect::<Vec<_>>(), ["no such file"]);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("connecting: no route")]
    struct Far(#[source] Between);

    #[derive(Debug, thiserror::Error)]
    #[error("sending a request")]
    struct Between(#[source] Inner);

    impl Fault for Far {
        fn kind(&self) -> Kind {
            Kind::Unavailable
        }
    }

    #[test]
    fn a_message_that_ends_with_the_last_cause_has_said_all() {
        assert_eq!(Failure::from(Far(Between(Inner))).messages, ["connecting: no route"]);
    }

    #[test]
    fn a_cause_is_told_once() {
        let failure = Failure::from(Outer(Inner));
        assert_eq!(failure.messages, ["pushing app: no route"]);
        assert!(!failure.usage && Failure::usage("x").usage);
    }
}
