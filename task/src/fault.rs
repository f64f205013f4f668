use std::error::Error;
use std::{fmt, io};

/// What sort of failure an error is; this alone decides retry, exit code and hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The named thing does not exist.
    NotFound,
    /// Credentials or permissions are missing.
    Denied,
    /// A policy, or the peer, says no.
    Refused,
    /// The input is wrong: a broken file, a digest that does not match, a bad flag.
    Invalid,
    /// It may work later: network trouble, an overloaded peer.
    Unavailable,
    /// A command run for the user failed with its own exit code.
    Command,
    /// The user stopped the work.
    Cancelled,
    /// A disk or a quota of this machine is full.
    NoSpace,
    /// This machine: disk, kernel, memory, permissions of local files.
    System,
}

impl Kind {
    /// The kind of a failed system call, or of the fault that an error of a stream carries.
    pub fn of_io(error: &io::Error) -> Kind {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Cause>());
        if let Some(cause) = inner {
            return cause.kind();
        }
        match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
            _ => Kind::System,
        }
    }

    /// The kind of a fault: its own, or [`Kind::NoSpace`] where a full disk is what caused it,
    /// however deep.
    pub fn of(fault: &dyn Fault) -> Kind {
        if no_space(fault.source()) { Kind::NoSpace } else { fault.kind() }
    }

    /// As [`Kind::of`].
    pub fn of_cause(cause: &Cause) -> Kind {
        Kind::of(&*cause.0)
    }

    /// The word used in machine-readable errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::NotFound => "not-found",
            Kind::Denied => "denied",
            Kind::Refused => "refused",
            Kind::Invalid => "invalid",
            Kind::Unavailable => "unavailable",
            Kind::Command => "command",
            Kind::Cancelled => "cancelled",
            Kind::NoSpace => "no-space",
            Kind::System => "system",
        }
    }
}

/// An error of one of our crates.
pub trait Fault: Error + Send + Sync + 'static {
    /// What sort of failure this is.
    fn kind(&self) -> Kind;
    /// What the user can do about it, where the error itself knows.
    fn hint(&self) -> Option<String> {
        None
    }
    /// Whether a retry may help; `false` if the reporter has tried that.
    fn again(&self) -> bool {
        self.kind() == Kind::Unavailable
    }
}

/// Another crate's fault on its way up: the kind and the message chain stay intact.
pub struct Cause(Box<dyn Fault>);

impl Cause {
    /// Boxes a fault.
    pub fn new(fault: impl Fault) -> Self {
        Cause(Box::new(fault))
    }

    /// Looks for the concrete error inside.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        let error: &(dyn Error + 'static) = &*self.0;
        error.downcast_ref::<E>()
    }
}

impl<F: Fault> From<F> for Cause {
    fn from(fault: F) -> Self {
        Cause::new(fault)
    }
}

impl Cause {
    /// What sort of failure the cause is.
    pub fn kind(&self) -> Kind {
        self.0.kind()
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        self.0.hint()
    }

    /// Whether doing the same once more may help.
    pub fn again(&self) -> bool {
        self.0.again()
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Whether a full disk is among these causes.
fn no_space(mut next: Option<&(dyn Error + 'static)>) -> bool {
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>().map(Kind::of_io);
        let cause = error.downcast_ref::<Cause>().map(Cause::kind);
        if [io, cause].contains(&Some(Kind::NoSpace)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The messages of an error and of everything that caused it, outermost first, repeats left out.
pub fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        match messages.last_mut() {
            Some(outer) if says_more(&message, outer) => *outer = message,
            _ => messages.push(message),
        }
        next = error.source();
    }
    messages
}

/// Whether a message says what the one around it says, and perhaps more. At which end of a copy it
/// was is clear from the place it names.
fn says_more(inner: &str, outer: &str) -> bool {
    let end = outer.strip_suffix(" at the source").or(outer.strip_suffix(" at the destination"));
    let rest = inner.strip_prefix(end.unwrap_or(outer));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ':', ',']))
}

#[cfg(test)]
mod tests {
    use super::says_more;

    #[test]
    fn what_a_cause_says_again_is_said_once() {
        for (outer, inner, repeats) in [
            ("reading x", "reading x", true),
            ("reading x at the source", "reading x of team/app: no such blob", true),
            ("reading x at the destination", "reading x", true),
            ("reading x", "reading xy", false),
            ("reading x at the source", "the connection failed", false),
            ("reading x of y", "reading x", false),
        ] {
            assert_eq!(says_more(inner, outer), repeats, "{outer:?} {inner:?}");
        }
    }
}
