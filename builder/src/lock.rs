//! The lock file: every remote input of a build, each pinned to one content.
//!
//! ```toml
//! version = 1
//!
//! [[input]]
//! source = "docker-image://docker.io/library/debian:12"
//! digest = "sha256:…"
//! platforms = { "linux/amd64" = "sha256:…" }
//!
//! [[input]]
//! source = "git://example.org/tool.git#v1"
//! commit = "…"
//! ```
//!
//! A build that was recorded (`bud --record`) adds its time, and each answer that its commands got
//! over HTTP as an `[[exchange]]`.
//!
//! Sources are the identifiers of [`crate::Input`]; the order is theirs, so that two people who
//! lock the same build write the same bytes.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use image::Digest;
use recorder::Exchange;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::input::{Input, InputKind, Pin};
use crate::lock_error::LockError;
use crate::{Error, Result};

/// The version of the file that is read and written.
const VERSION: i64 = 1;
/// The version of a file that has what was recorded besides.
const RECORDED: i64 = 2;
/// No lock file is larger.
const MAX_LOCK: u64 = 64 << 20;

/// What is done when a lock file cannot be read.
const READING: &str = "reading the lock file";

const HEADER: &str = "\
# Every remote input of a build, pinned to one content. Made by `rbuild lock`.
# Build with it: `rbuild bud --locked`. Renew it: `rbuild lock update [NAME…]`.
";

/// What a lock file says. As a value it is the text of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lock {
    pins: BTreeMap<String, LockedInput>,
    /// What commands asked over HTTP and were answered, if that was recorded.
    pub exchanges: Vec<Exchange>,
    /// The time of everything in the recorded image, seconds since 1970.
    pub time: Option<i64>,
}

/// The entry of one input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct LockedInput {
    content: String,
    /// Which manifest of an index each platform got; nothing is decided by it.
    platforms: BTreeMap<String, String>,
}

/// One difference between a lock and what is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// The build uses it, the lock does not have it.
    Added {
        /// Its identifier.
        source: String,
        /// Its content now.
        now: String,
        /// Where the build names it.
        place: Option<String>,
    },
    /// It has another content than the lock says.
    Changed {
        /// Its identifier.
        source: String,
        /// What the lock says.
        locked: String,
        /// Its content now.
        now: String,
        /// Where the build names it.
        place: Option<String>,
    },
    /// The lock has it, the build does not use it.
    Removed {
        /// Its identifier.
        source: String,
        /// What the lock says.
        locked: String,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |place: &Option<String>| match place {
            Some(place) => format!(" ({place})"),
            None => String::new(),
        };
        match self {
            Drift::Added { source, now, place } => write!(f, "+ {source} {now}{}", at(place)),
            Drift::Changed { source, locked, now, place } => {
                write!(f, "~ {source} {locked} -> {now}{}", at(place))
            }
            Drift::Removed { source, locked } => write!(f, "- {source} {locked}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Spanned<i64>,
    time: Option<i64>,
    #[serde(default)]
    input: Vec<Spanned<LockEntry>>,
    #[serde(default)]
    exchange: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockEntry {
    source: String,
    digest: Option<String>,
    commit: Option<String>,
    #[serde(default)]
    platforms: BTreeMap<String, String>,
}

/// A commit's name, of either length that git has.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Lock {
    /// A lock of what a build used.
    pub fn of(inputs: &[Input]) -> Lock {
        let mut lock = Lock::default();
        lock.add(inputs);
        lock
    }

    /// With what a build recorded, and the time of everything in its image.
    pub fn recorded(self, exchanges: Vec<Exchange>, time: Option<i64>) -> Lock {
        Lock { exchanges, time, ..self }
    }

    /// Pins what a build used, beside or in place of what is pinned.
    pub fn add(&mut self, inputs: &[Input]) {
        for input in inputs.iter().filter(|input| input.kind != InputKind::Local) {
            let locked = self.pins.entry(input.identifier.clone()).or_default();
            if locked.content != input.resolved {
                *locked = LockedInput { content: input.resolved.clone(), ..LockedInput::default() };
            }
            if let (Some(platform), Some(manifest)) = (&input.platform, input.manifest) {
                locked.platforms.insert(platform.to_string(), manifest.to_string());
            }
        }
    }

    /// Pins one source, which must not have another content yet.
    ///
    /// # Errors
    /// The content is neither a digest nor a commit, or there are two of them.
    pub fn pin(&mut self, source: &str, content: &str) -> Result<(), String> {
        if source.is_empty() {
            return Err("it has no name".to_owned());
        }
        if !is_commit(content)
            && let Err(error) = content.parse::<Digest>()
        {
            return Err(error.to_string());
        }
        let locked = self.pins.entry(source.to_owned()).or_default();
        if !locked.content.is_empty() && locked.content != content {
            return Err(format!("it has two different digests, {} and {content}", locked.content));
        }
        content.clone_into(&mut locked.content);
        Ok(())
    }

    /// Forgets the pins of some sources: those with this identifier, or whose identifier ends
    /// with this name. Gives the number of pins that are gone.
    pub fn forget(&mut self, name: &str) -> usize {
        let before = self.pins.len();
        self.pins.retain(|source, _| !is_named(source, name));
        before - self.pins.len()
    }

    /// The identifiers, sorted.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.pins.keys().map(String::as_str)
    }

    /// Where the lock of a build with this context is: `rbuild.lock` in a directory, or else here.
    pub fn default_file(context: &str) -> PathBuf {
        let directory = Path::new(context);
        match directory.is_dir() {
            true => directory.join("rbuild.lock"),
            false => PathBuf::from("rbuild.lock"),
        }
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// It cannot be read; it is not a lock file.
    pub fn read(path: &Path) -> Result<Lock> {
        let failed = |error| Error::file(READING, path)(error);
        let file = File::open(path).map_err(failed)?;
        let mut text = String::new();
        file.take(MAX_LOCK + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_LOCK {
            let what = format!("lock file {}", path.display());
            return Err(Error::Exceeds { what, limit: "64 MiB" });
        }
        Ok(Lock::parse(&text, &path.display().to_string())?)
    }

    /// Reads the text of a lock file; `file` is what messages call it.
    ///
    /// # Errors
    /// The text is not a lock file, or has another version.
    pub fn parse(text: &str, file: &str) -> Result<Lock, LockError> {
        let fail = |at: usize, reason: String| {
            let before = text.get(..at.min(text.len())).unwrap_or_default();
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            LockError { file: file.to_owned(), line, reason }
        };
        let document: Document = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            fail(at, error.message().replace('\n', ": "))
        })?;
        if !(VERSION..=RECORDED).contains(document.version.get_ref()) {
            let reason = format!(
                "its version is {}, this program supports {VERSION} and {RECORDED}",
                document.version.get_ref()
            );
            return Err(fail(document.version.span().start, reason));
        }
        let Document { time, exchange: exchanges, .. } = document;
        let mut lock = Lock { time, exchanges, ..Lock::default() };
        for entry in document.input {
            let at = entry.span().start;
            let LockEntry { source, digest, commit, platforms } = entry.into_inner();
            let content = match (digest, commit) {
                (Some(digest), None) => {
                    let parsed = digest.parse::<Digest>();
                    parsed.map_err(|error| fail(at, format!("digest of {source}: {error}")))?;
                    digest
                }
                (None, Some(commit)) if is_commit(&commit) => commit,
                (None, Some(commit)) => {
                    return Err(fail(at, format!("{commit:?} of {source} is not a commit")));
                }
                _ => return Err(fail(at, format!("{source} needs a digest or a commit"))),
            };
            if lock.pins.insert(source.clone(), LockedInput { content, platforms }).is_some() {
                return Err(fail(at, format!("{source} is there twice")));
            }
        }
        Ok(lock)
    }

    /// Compares with what a build uses now; sorted by identifier.
    pub fn compare(&self, now: &Lock, inputs: &[Input]) -> Vec<Drift> {
        let place = |source: &str| {
            let input = inputs.iter().find(|input| input.identifier == source);
            input.and_then(|input| input.place.clone())
        };
        let mut drift = Vec::new();
        for (source, found) in &now.pins {
            let (source, now) = (source.clone(), found.content.clone());
            match self.pins.get(&source) {
                None => drift.push(Drift::Added { place: place(&source), source, now }),
                Some(locked) if locked.content != now => {
                    let locked = locked.content.clone();
                    drift.push(Drift::Changed { place: place(&source), source, locked, now });
                }
                Some(_) => {}
            }
        }
        for (source, locked) in &self.pins {
            if !now.pins.contains_key(source) {
                let (source, locked) = (source.clone(), locked.content.clone());
                drift.push(Drift::Removed { source, locked });
            }
        }
        drift.sort_by(|a, b| a.source().cmp(b.source()));
        drift
    }
}

impl Drift {
    /// The identifier of the input.
    pub fn source(&self) -> &str {
        match self {
            Drift::Added { source, .. }
            | Drift::Changed { source, .. }
            | Drift::Removed { source, .. } => source,
        }
    }
}

/// Whether a person who says `name` means this source: all of it, it without its scheme, or its
/// last parts (`debian:12` of `docker-image://docker.io/library/debian:12`; the tag may be left
/// out).
fn is_named(source: &str, name: &str) -> bool {
    let plain = source.split_once("://").map_or(source, |(_, rest)| rest);
    let untagged = plain.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    let ends = |text: &str| {
        text == name || text.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'))
    };
    source == name || ends(plain) || untagged.is_some_and(|(text, _)| ends(text))
}

impl TryFrom<String> for Lock {
    type Error = LockError;

    fn try_from(text: String) -> Result<Lock, LockError> {
        Lock::parse(&text, "the lock of a request")
    }
}

impl From<Lock> for String {
    fn from(lock: Lock) -> String {
        lock.to_string()
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let recorded = self.time.is_some() || !self.exchanges.is_empty();
        let version = if recorded { RECORDED } else { VERSION };
        let mut out = format!("{HEADER}version = {version}\n");
        if let Some(time) = self.time {
            writeln!(out, "time = {time}")?;
        }
        for (source, locked) in &self.pins {
            let field = if is_commit(&locked.content) { "commit" } else { "digest" };
            writeln!(out, "\n[[input]]\nsource = {}", quote(source))?;
            writeln!(out, "{field} = {}", quote(&locked.content))?;
            if !locked.platforms.is_empty() {
                let platforms: Vec<_> = locked
                    .platforms
                    .iter()
                    .map(|(platform, digest)| format!("{} = {}", quote(platform), quote(digest)))
                    .collect();
                writeln!(out, "platforms = {{ {} }}", platforms.join(", "))?;
            }
        }
        for exchange in &self.exchanges {
            let text = toml::to_string(exchange).map_err(|_| fmt::Error)?;
            // A table in a table of a list is named by the list as well.
            let text = text.replace("\n[headers]\n", "\n[exchange.headers]\n");
            write!(out, "\n[[exchange]]\n{text}")?;
        }
        f.write_str(&out)
    }
}

/// A lock that a build obeys: nothing is used that it does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnforcedLock {
    /// What the file says.
    pub lock: Lock,
    /// What messages call it.
    pub file: String,
    /// Whether what it does not have may be used with any content: to renew a part of it.
    pub partial: bool,
}

impl EnforcedLock {
    /// The pin of an input, by its identifier after the policies' conversions.
    pub(crate) fn pin(&self, kind: InputKind, identifier: &str) -> Pin {
        if kind == InputKind::Local {
            return Pin::Free;
        }
        match self.lock.pins.get(identifier) {
            Some(locked) => Pin::To(locked.content.clone()),
            None if self.partial => Pin::Free,
            None => {
                Pin::Refused(format!("it is not in {}; `rbuild lock update` adds it", self.file))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input(identifier: &str, resolved: &str) -> Input {
        Input {
            kind: InputKind::Image,
            name: identifier.to_owned(),
            identifier: identifier.to_owned(),
            resolved: resolved.to_owned(),
            platform: Some("linux/amd64".parse().unwrap()),
            manifest: Some(Digest::of(b"m")),
            place: Some("Dockerfile:1".to_owned()),
        }
    }

    #[test]
    fn what_was_recorded_is_written_and_read_again() {
        let exchange = |url: &str, headers: &[(&str, &str)]| Exchange {
            step: "RUN a \"b\"\\".to_owned(),
            method: "GET".to_owned(),
            url: url.to_owned(),
            sent: Some(Digest::of(b"sent")),
            range: None,
            status: 200,
            digest: Digest::of(b"x"),
            headers: headers.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        };
        let lock = Lock {
            exchanges: vec![
                exchange("http://a/", &[("etag", "\"1\"")]),
                exchange("http://b/", &[]),
            ],
            time: Some(1),
            ..Lock::of(&[input(DEBIAN, &Digest::of(b"a").to_string())])
        };
        let text = lock.to_string();
        assert!(text.contains("\nversion = 2\ntime = 1\n"), "{text}");
        assert_eq!(Lock::parse(&text, "f").unwrap(), lock, "{text}");
    }

    const DEBIAN: &str = "docker-image://docker.io/library/debian:12";

    #[test]
    fn what_is_written_is_read_again_and_in_one_order() {
        let (a, b) = (Digest::of(b"a").to_string(), "0123456789".repeat(4));
        let inputs = [input(DEBIAN, &a), input("git://x/\"y\".git#v1", &b)];
        let text = Lock::of(&inputs).to_string();
        let mut turned = inputs.clone();
        turned.reverse();
        assert_eq!(Lock::of(&turned).to_string(), text);
        assert_eq!(Lock::parse(&text, "f").unwrap(), Lock::of(&inputs));
        assert!(text.starts_with("# ") && text.contains(&format!("commit = \"{b}\"")), "{text}");
        assert!(text.contains("platforms = { \"linux/amd64\" = \"sha256:"), "{text}");
    }

    #[test]
    fn differences_are_one_line_each() {
        let (a, b) = (Digest::of(b"a").to_string(), Digest::of(b"b").to_string());
        let lock = Lock::of(&[input(DEBIAN, &a), input("x", &a)]);
        let now = [input(DEBIAN, &b), input("y", &a)];
        let drift = lock.compare(&Lock::of(&now), &now);
        let lines: Vec<_> = drift.iter().map(ToString::to_string).collect();
        let expected = [
            format!("~ {DEBIAN} {a} -> {b} (Dockerfile:1)"),
            format!("- x {a}"),
            format!("+ y {a} (Dockerfile:1)"),
        ];
        assert_eq!(lines, expected);
        assert!(lock.compare(&lock, &[]).is_empty());
    }

    #[test]
    fn names_mean_what_people_mean_by_them() {
        for name in [DEBIAN, "debian", "debian:12", "library/debian", "docker.io/library/debian:12"]
        {
            assert!(is_named(DEBIAN, name), "{name}");
        }
        for name in ["ebian", "debian:1", "12", "", "alpine"] {
            assert!(!is_named(DEBIAN, name), "{name}");
        }
    }

    #[test]
    fn wrong_files_are_told_with_their_line() {
        let digest = Digest::of(b"a");
        let cases = [
            ("", 1, "version"),
            ("version = 3\n", 1, "version is 3"),
            ("version = 1\n\n[[input]]\nsource = \"x\"\n", 3, "needs a digest"),
            ("version = 1\n[[input]]\nsource = \"x\"\ndigest = \"sha256:1\"\n", 2, "digest of x"),
            ("version = 1\n[[input]]\nsource = \"x\"\ncommit = \"-x\"\n", 2, "not a commit"),
            ("version = 1\nfoo = 3\n", 2, "foo"),
            ("version = 1\nx x\n", 2, ""),
        ];
        for (text, line, word) in cases {
            let error = Lock::parse(text, "rbuild.lock").unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.reason.contains(word), "{text:?}: {error}");
        }
        let twice = format!("[[input]]\nsource = \"x\"\ndigest = \"{digest}\"\n");
        let error = Lock::parse(&format!("version = 1\n{twice}{twice}"), "f").unwrap_err();
        assert_eq!((error.line, error.reason.as_str()), (5, "x is there twice"));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,200}") {
            let _ = Lock::parse(&text, "f");
            let _ = Lock::parse(&format!("version = 1\n[[input]]\nsource = \"{text}\"\n"), "f");
        }

        #[test]
        fn any_source_comes_back(source in "\\PC{1,80}") {
            let lock = Lock::of(&[input(&source, &Digest::of(b"a").to_string())]);
            prop_assert_eq!(Lock::parse(&lock.to_string(), "f").unwrap(), lock);
        }
    }
}
