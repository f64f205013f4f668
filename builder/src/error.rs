use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::image::{Digest, Platform};
use dockerfile::{Diagnostic, LineIndex, Severity};
use task::{Cause, Fault, Kind};

use crate::SourceFile;
use crate::lock_error::LockError;
use crate::syntax::SyntaxError;

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Dockerfile says something that cannot be built. The diagnostics hold the places.
    #[error("{} cannot be built: {}", .file.name, first(.diagnostics))]
    Dockerfile {
        /// The file the spans of the diagnostics are in.
        file: Arc<SourceFile>,
        /// What is wrong; at least one is of severity error.
        diagnostics: Vec<Diagnostic>,
    },
    /// A step failed for a reason of its own.
    #[error("{place}: {instruction}")]
    Step {
        /// `file:line`.
        place: String,
        /// The instruction as written, on one line.
        instruction: String,
        /// The file the diagnostic's span is in.
        file: Arc<SourceFile>,
        /// Where, and what is wrong.
        diagnostic: Box<Diagnostic>,
        /// The reason.
        #[source]
        source: Cause,
    },
    /// The command of a `RUN` did not end with 0.
    #[error("{place}: {command} {status}")]
    Command {
        /// `file:line`.
        place: String,
        /// The command.
        command: String,
        /// How it ended: `exited with code 2`, `was killed by signal 9`.
        status: String,
        /// Its exit code; 128 + the number of a signal.
        code: u8,
        /// The id of what the command left, if that was kept.
        kept: Option<String>,
        /// The store, if its disk was full when the command failed.
        full: Option<PathBuf>,
        /// The file the diagnostic's span is in.
        file: Arc<SourceFile>,
        /// Where.
        diagnostic: Box<Diagnostic>,
    },
    /// A pattern of `copy` or `add` matches no file.
    #[error("{pattern:?} matched nothing in {place}")]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Where the files are looked up.
        place: String,
    },
    /// A change that `commit` is to make to the configuration cannot be made.
    #[error("changing the configuration by {change:?}: {reason}")]
    Change {
        /// The instruction, or what the document is.
        change: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image that the build reads cannot be had.
    #[error("reading image {name}")]
    Image {
        /// The image as the Dockerfile names it.
        name: String,
        /// The reason.
        #[source]
        source: Cause,
    },
    /// An image is for another platform than the one that was asked for.
    #[error("image {name} is for {found}, not for {wanted}")]
    Platform {
        /// The image as the Dockerfile names it.
        name: String,
        /// What it is for.
        found: Box<Platform>,
        /// What was asked for.
        wanted: Box<Platform>,
    },
    /// An image is not there and may not be fetched.
    #[error("{name}: image not known, and it must not be pulled")]
    NotPulled {
        /// The image as the Dockerfile names it.
        name: String,
    },
    /// An id or digest alone names no image of the store.
    #[error("{name}: image not known")]
    Unknown {
        /// The id or digest.
        name: String,
    },
    /// A source policy or a lock forbids an input.
    #[error("{identifier} must not be used: {reason}")]
    Denied {
        /// Its identifier.
        identifier: String,
        /// Why.
        reason: String,
    },
    /// A command is for another machine than this one, and nothing here runs it.
    #[error("running a program for {platform} on {host}: {}", foreign(.emulator.as_deref()))]
    Foreign {
        /// What it is for.
        platform: Box<Platform>,
        /// What this machine is.
        host: Box<Platform>,
        /// The emulator that is registered but cannot be used in containers.
        emulator: Option<String>,
    },
    /// Another crate failed.
    #[error("{action}")]
    Part {
        /// What was being done: gerund and object.
        action: String,
        /// The reason.
        #[source]
        source: Cause,
    },
    /// A file of the build context cannot be read.
    #[error("{action} {}", .path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A source of `COPY`, `ADD` or a mount is not there.
    #[error("{path:?} is not in {place}{}", .ignored.as_ref().map(|by| format!(": {by} excludes it")).unwrap_or_default())]
    Missing {
        /// The path as written.
        path: String,
        /// Where it was looked for: `the build context`, `stage "build"`.
        place: String,
        /// What excludes it, if it would be there otherwise: `line 3 of .dockerignore`.
        ignored: Option<String>,
        /// What is there and has nearly this name.
        near: Option<String>,
    },
    /// A JSON document cannot be read or written.
    #[error("{action}")]
    Document {
        /// What was being done: gerund and object.
        action: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// A value, or a document that is no JSON of ours, breaks its format.
    #[error("reading {what}: {reason}")]
    Malformed {
        /// Which one.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing has this name.
    #[error("there is no {what} {name:?}")]
    NotThere {
        /// What sort of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Several things have a name or id that begins so.
    #[error("several {what} begin with {prefix:?}")]
    Ambiguous {
        /// What sort of things, in the plural.
        what: &'static str,
        /// The beginning.
        prefix: String,
    },
    /// The lock file is not one.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Something was removed while it was needed.
    #[error("{what} is gone")]
    Gone {
        /// Which one.
        what: String,
    },
    /// It is in use.
    #[error("{name} is in use by {by}")]
    InUse {
        /// Which one.
        name: String,
        /// By whom.
        by: &'static str,
    },
    /// A layer is another one than its image or cache says.
    #[error("layer {layer} unpacks to {found}, not to {expected} as {witness} says")]
    DiffId {
        /// The blob.
        layer: Digest,
        /// What it unpacks to.
        found: Digest,
        /// What it should unpack to.
        expected: Digest,
        /// Who says so.
        witness: &'static str,
    },
    /// Something is larger than it may be.
    #[error("{what} is larger than {limit}")]
    Exceeds {
        /// Which one.
        what: String,
        /// How large it may be.
        limit: &'static str,
    },
    /// A directory is needed.
    #[error("{path} is not a directory")]
    NotDirectory {
        /// What is none.
        path: String,
    },
    /// A path leads back to itself.
    #[error("{} is a loop of links", .path.display())]
    Loop {
        /// The path.
        path: PathBuf,
    },
    /// The image does not know a user or group.
    #[error(transparent)]
    User(runtime::Error),
    /// A kept failure is of another build than this one.
    #[error("{id} does not match: an earlier step has changed since")]
    Stale {
        /// Its id.
        id: String,
    },
    /// The base images do not say what to build for.
    #[error("building for all platforms: {reason}")]
    NoCommonPlatform {
        /// Why.
        reason: String,
    },
    /// A `RUN` needs a secret or an ssh agent that the request does not have.
    #[error("{what} {id:?} is required but missing")]
    Required {
        /// `secret` or `ssh agent`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// A `RUN` needs a device that this machine does not have.
    #[error("device {path} is required and not on this machine")]
    NoDevice {
        /// The device.
        path: String,
    },
    /// The kernel is too old.
    #[error("this needs Linux {needs}")]
    Kernel {
        /// The version that can do it.
        needs: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A recording has no answer to something that a command asked.
    #[error("{}: {}", if *.replayed { "replaying the network" } else { "recording the network" }, .requests.join("; "))]
    Unanswered {
        /// Whether it was replayed, not made.
        replayed: bool,
        /// The requests, each with what is wrong.
        requests: Vec<String>,
    },
    /// A download has no name, and the destination is a directory.
    #[error("the URL names no file")]
    Nameless,
    /// A pipe can be read once.
    #[error("{what} was already read: it is a pipe")]
    Consumed {
        /// Which one.
        what: String,
    },
    /// An address and its instruction name different checksums.
    #[error("checksum {checksum} and the one in {url} differ")]
    Checksums {
        /// The address.
        url: String,
        /// The other checksum.
        checksum: String,
    },
    /// A file to be downloaded did not come.
    #[error("downloading {url}")]
    Download {
        /// From where, without credentials.
        url: String,
        /// Whether it may work later.
        kind: Kind,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something does not fit into what registries take.
    #[error("it is too large")]
    TooLarge,
    /// A step would have to run, and was not to.
    #[error("{step} is not cached: {}", .reasons.join("; "))]
    NotCached {
        /// The step as the user sees it.
        step: String,
        /// Why it would run.
        reasons: Vec<String>,
    },
    /// The build context changed while it was copied.
    #[error("{place} changed while it was being copied")]
    Changed {
        /// Which context.
        place: String,
    },
    /// The user stopped the build.
    #[error(transparent)]
    Cancelled(#[from] task::Cancelled),
    /// A text does not describe what it should.
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    /// The build context is no directory.
    #[error("the build context {} is not a directory", .path.display())]
    NoContext {
        /// As it was named, from the root.
        path: PathBuf,
    },
    /// A build context has no Dockerfile.
    #[error("there is no Containerfile or Dockerfile in {}", .context.display())]
    NoDockerfile {
        /// The context.
        context: PathBuf,
    },
    /// A build made no image.
    #[error("nothing was built")]
    NothingBuilt,
    /// A bug: something that always holds does not.
    #[error("internal error: it does not hold that {invariant}; please report this")]
    Internal {
        /// What always holds.
        invariant: &'static str,
    },
}

fn foreign(emulator: Option<&str>) -> String {
    match emulator {
        Some(emulator) => {
            format!("the emulator {emulator} is registered without flag F: containers lack it")
        }
        None => "no emulator is registered with binfmt_misc".to_owned(),
    }
}

fn first(diagnostics: &[Diagnostic]) -> String {
    let error = diagnostics.iter().find(|d| d.severity == Severity::Error);
    error.or(diagnostics.first()).map(|d| d.message.clone()).unwrap_or_default()
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Another crate's fault, and what was being done.
    pub(crate) fn part(action: impl Into<String>) -> impl FnOnce(Cause) -> Error {
        let action = action.into();
        move |source| Error::Part { action, source }
    }

    /// What always holds, and does not.
    pub(crate) fn internal(invariant: &'static str) -> Error {
        Error::Internal { invariant }
    }

    /// What breaks its format, and how.
    pub(crate) fn malformed(what: impl Into<String>, reason: String) -> Error {
        Error::Malformed { what: what.into(), reason }
    }

    /// A file that is not the JSON it should be.
    pub(crate) fn document(path: &Path) -> impl FnOnce(serde_json::Error) -> Error {
        let action = format!("reading {}", path.display());
        move |source| Error::Document { action, source }
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { action, path, source }
    }

    /// The file and the findings in it that an excerpt can be drawn of
    /// (see [`dockerfile::render`]).
    pub fn excerpts(&self) -> Option<(&SourceFile, &[Diagnostic])> {
        match self {
            Error::Dockerfile { file, diagnostics } => Some((file, diagnostics)),
            Error::Step { file, diagnostic, .. } | Error::Command { file, diagnostic, .. } => {
                Some((file, std::slice::from_ref(diagnostic)))
            }
            _ => None,
        }
    }

    /// The exit code of the command that failed, if that is what happened.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Error::Command { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// `file:line` of a byte offset.
pub(crate) fn place(file: &SourceFile, offset: usize) -> String {
    format!("{}:{}", file.name, LineIndex::new(&file.text).position(offset).line)
}

/// Gives any fault the action during which it happened.
pub(crate) trait ErrorContext<T> {
    /// Names what was being done.
    fn during(self, action: impl Into<String>) -> Result<T>;
}

impl<T, F: Fault> ErrorContext<T> for Result<T, F> {
    fn during(self, action: impl Into<String>) -> Result<T> {
        self.map_err(|fault| Error::part(action)(Cause::new(fault)))
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Dockerfile { .. }
            | Error::TooLarge
            | Error::Document { .. }
            | Error::Malformed { .. }
            | Error::DiffId { .. }
            | Error::Exceeds { .. }
            | Error::NotDirectory { .. }
            | Error::Loop { .. }
            | Error::User(_)
            | Error::Stale { .. }
            | Error::NoCommonPlatform { .. }
            | Error::Nameless
            | Error::Consumed { .. }
            | Error::NoMatch { .. }
            | Error::Change { .. }
            | Error::Syntax(_)
            | Error::Lock(_)
            | Error::Ambiguous { .. }
            | Error::NothingBuilt
            | Error::Checksums { .. } => Kind::Invalid,
            Error::InUse { .. } => Kind::Unavailable,
            Error::Step { source, .. }
            | Error::Image { source, .. }
            | Error::Part { source, .. } => source.kind(),
            Error::Command { .. } => Kind::Command,
            Error::Platform { .. }
            | Error::Denied { .. }
            | Error::Foreign { .. }
            | Error::NotCached { .. } => Kind::Refused,
            Error::NotPulled { .. }
            | Error::Unknown { .. }
            | Error::Missing { .. }
            | Error::NotThere { .. }
            | Error::NoContext { .. }
            | Error::NoDockerfile { .. }
            | Error::Gone { .. }
            | Error::Required { .. }
            | Error::NoDevice { .. } => Kind::NotFound,
            Error::Unanswered { replayed: true, .. } => Kind::NotFound,
            Error::Unanswered { replayed: false, .. } => Kind::Unavailable,
            Error::File { source, .. } => Kind::of_io(source),
            Error::Download { kind, .. } => *kind,
            Error::Changed { .. } => Kind::Unavailable,
            Error::Cancelled(_) => Kind::Cancelled,
            Error::Kernel { .. } | Error::Internal { .. } => Kind::System,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Step { source, .. }
            | Error::Image { source, .. }
            | Error::Part { source, .. } => source.hint(),
            Error::Foreign { platform, .. } => Some(format!(
                "install qemu-user-static, which registers an emulator for {} (Debian, Ubuntu: \
                 apt install qemu-user-static binfmt-support), or build that stage FROM \
                 --platform=$BUILDPLATFORM",
                platform.architecture
            )),
            Error::Syntax(error) => error.hint(),
            Error::Lock(error) => error.hint(),
            Error::Missing { ignored: Some(_), path, .. } => {
                Some(format!("add an exception to the end of that file: !{path}"))
            }
            Error::Missing { near: Some(near), .. } => Some(format!("did you mean {near:?}?")),
            Error::Unanswered { replayed: true, .. } => {
                Some("record the build again where it has a network".to_owned())
            }
            Error::Nameless => Some("give the destination a file name".to_owned()),
            Error::Changed { .. } => Some("build again when nothing writes there".to_owned()),
            _ => None,
        }
    }
}
