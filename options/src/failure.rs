use std::error::Error;
use std::path::{Path, PathBuf};

use task::{Cause, Fault, Kind, SyntaxError};

/// Why a command failed, ready to be shown.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code and the default hint.
    pub kind: Kind,
    /// Outermost first.
    pub messages: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The error of a library that this is. The program may know what to do about it.
    pub cause: Option<Cause>,
    /// Text to show above the messages as it is: an excerpt of a Dockerfile.
    pub excerpt: Option<String>,
    /// The exit code where the program and the kind do not decide it.
    pub code: Option<u8>,
    /// Whether the command line is wrong.
    pub usage: bool,
}

impl Failure {
    /// A failure of the command line's own.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        let messages = vec![message.into()];
        Failure { kind, messages, hint: None, cause: None, excerpt: None, code: None, usage: false }
    }

    /// Wrong use.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { usage: true, ..Failure::new(Kind::Invalid, message) }
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done in front.
    pub fn context(mut self, message: impl Into<String>) -> Failure {
        self.messages.insert(0, message.into());
        self
    }

    /// A failed system call on a named thing.
    pub fn io(doing: impl std::fmt::Display, error: &std::io::Error) -> Failure {
        Failure::new(Kind::of_io(error), format!("{doing}")).caused_by(plain(error.to_string()))
    }

    fn caused_by(mut self, message: String) -> Failure {
        self.messages.push(message);
        self
    }

    /// Where a disk is full, says which one and what to do. `store` is the usual place.
    pub fn full_disk(self, store: impl FnOnce() -> Option<PathBuf>) -> Failure {
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
            None => full_disk(&store),
        };
        self.hint(hint)
    }

    /// Whether a file of this machine is missing, and no image.
    pub fn lacks_file(&self) -> bool {
        let last = self.messages.last();
        last.is_some_and(|message| message.ends_with("no such file or directory"))
    }

    /// What is behind the first message. The first message stands for the excerpt, if there is one:
    /// it says where in the Dockerfile; and what the excerpt says is not said again.
    pub fn causes(&self) -> impl Iterator<Item = &String> {
        let excerpt = self.excerpt.as_deref().unwrap_or_default();
        self.messages.iter().skip(1).filter(move |message| !excerpt.contains(message.as_str()))
    }
}

/// Every fault of the libraries is a failure with its whole chain of causes.
impl<F: Fault> From<F> for Failure {
    fn from(fault: F) -> Failure {
        let (kind, messages) = (Kind::of(&fault), distinct(&fault));
        Failure { messages, cause: Some(Cause::new(fault)), ..Failure::new(kind, "") }
    }
}

impl Failure {
    /// A boxed fault.
    pub fn of(cause: Cause) -> Failure {
        let (kind, messages) = (Kind::of_cause(&cause), distinct(&cause));
        Failure { messages, cause: Some(cause), ..Failure::new(kind, "") }
    }

    /// Whether the error is a text that is not understood.
    pub(crate) fn is_misread(error: &(dyn Error + 'static)) -> bool {
        let is = |error: &(dyn Error + 'static)| error.is::<SyntaxError>();
        is(error) || error.source().is_some_and(is)
    }
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

/// What to do when the disk with this store is full.
pub fn full_disk(directory: &Path) -> String {
    format!(
        "the file system of {} is full: free space there (`rbuild prune -a` removes the build cache, \
         `rbuild rmi` images), or keep the store on another one with --root",
        directory.display()
    )
}

/// What the system says of a failed call, as tools of containers print it: in lower case, without
/// the number.
fn plain(message: String) -> String {
    let Some((said, _)) = message.rsplit_once(" (os error ") else { return message };
    let at = said.rfind(": ").map_or(0, |at| at + 2);
    let mut said = said.to_owned();
    if let Some(first) = said.get_mut(at..=at) {
        first.make_ascii_lowercase();
    }
    said
}

/// A message that ends with a later one has said it, and what stands between.
fn distinct(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut messages: Vec<String> = task::chain(error).into_iter().map(plain).collect();
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
    struct OuterError(#[source] InnerError);

    #[derive(Debug, thiserror::Error)]
    #[error("no route")]
    struct InnerError;

    impl Fault for OuterError {
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
        let os = "no space left on device";
        let lines = ["D:2: COPY big /", "copying to /big", os];
        assert!(told(Kind::NoSpace, &lines).contains("of /var/store is full"));
        assert!(told(Kind::NoSpace, &["x"]).contains("rbuild prune"));
        assert!(told(Kind::NoSpace, &["writing /usr/lib/x", os]).contains("of /usr/lib is full"));
        // The words of the system do not decide it.
        assert_eq!(told(Kind::System, &lines), "");
    }

    #[test]
    fn the_words_of_the_system_are_plain() {
        let failure =
            |code: i32| Failure::io("opening a", &std::io::Error::from_raw_os_error(code));
        assert_eq!(failure(2).messages, ["opening a", "no such file or directory"]);
        assert!(failure(2).lacks_file() && !failure(13).lacks_file());
        assert_eq!(
            plain("opening /É: Is a directory (os error 21)".into()),
            "opening /É: is a directory"
        );
        assert_eq!(plain("É (os error 1)".into()), "É");
    }

    #[test]
    fn the_place_of_a_source_is_not_taken_for_the_full_disk() {
        let messages = ["unpacking /usr/lib/x.tar", "writing ./a"].map(str::to_owned).into();
        let failure = Failure { messages, ..Failure::new(Kind::NoSpace, "") };
        let hint = failure.full_disk(|| Some(PathBuf::from("/var/store"))).hint;
        assert!(hint.is_some_and(|hint| hint.contains("of /var/store is full")));
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
    struct FarError(#[source] MiddleError);

    #[derive(Debug, thiserror::Error)]
    #[error("sending a request")]
    struct MiddleError(#[source] InnerError);

    impl Fault for FarError {
        fn kind(&self) -> Kind {
            Kind::Unavailable
        }
    }

    #[test]
    fn a_message_that_ends_with_the_last_cause_has_said_all() {
        assert_eq!(
            Failure::from(FarError(MiddleError(InnerError))).messages,
            ["connecting: no route"]
        );
    }

    #[test]
    fn a_cause_is_told_once() {
        let failure = Failure::from(OuterError(InnerError));
        assert_eq!(failure.messages, ["pushing app: no route"]);
        assert!(!failure.usage && Failure::usage("x").usage);
    }
}
