//! Mirroring: many images of many repositories, again and again.
//!
//! A mirror is a list of [`Set`]s, each a repository (or a directory) and the rules for its tags.
//! [`mirror`] brings the destination to the source's state with as few questions as can be: a tag
//! that was copied before costs one HEAD of its source, a tag that never changes costs none, and
//! images that are copied at the same time send a blob they share once.
//!
//! Several workers can share a mirror without knowing of each other ([`Shard`]): what they have in
//! common is the destination alone, where content is named by its digest and a name is written by
//! exactly one of them.
//!
//! ```no_run
//! use image::Reference;
//! use registry_client::{Client, Options as ClientOptions};
//! use task::Task;
//! use transport::sync::{MirrorSource, MirrorOptions, Set, Shard, MirrorState, Tags, MirrorDestination, mirror};
//! use transport::{CopyOptions, Open};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let set = Set {
//!     from: MirrorSource::Repository {
//!         client: Client::new(ClientOptions::default())?,
//!         repository: "registry.example/team/app".parse::<Reference>()?.repository,
//!         tags: Tags::versions(">= 1.2, < 2")?,
//!         digests: Vec::new(),
//!     },
//!     to: MirrorDestination::Directories("/srv/mirror/app".into()),
//!     copy: CopyOptions::default(),
//!     suffix: String::new(),
//!     missing_only: false,
//!     immutable: None,
//! };
//! let options = MirrorOptions {
//!     parallel: 4,
//!     shard: Shard::default(),
//!     keep_going: true,
//!     dry_run: false,
//!     delete: None,
//!     now: 1_790_000_000,
//!     recheck: 3600,
//!     gate: &Open,
//! };
//! let report = mirror(&[set], &mut MirrorState::default(), &options, &Task::silent()).await;
//! for line in &report.lines {
//!     println!("{} {}", line.outcome.as_str(), line.target);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod delete;
mod directories;
mod ends;
mod list;
mod referrers;
mod run;
mod shard;
mod state;
mod tags;
mod versions;

use std::path::PathBuf;

use image::{Digest, Repository, Tag};
use regex::Regex;
use registry_client::Client;

pub use directories::{MirroredDirectory, directories};
pub use list::{ListedRegistry, ListedRepository, MAX_LIST, read_list};
pub use run::mirror;
pub use shard::Shard;
pub use state::MirrorState;
pub use tags::{Tags, regex};
pub use versions::Versions;

use crate::{CopyOptions, Error, Gate};

/// Where the images of a set are.
pub enum MirrorSource {
    /// A repository on a registry.
    Repository {
        /// The client that reaches it.
        client: Client,
        /// The repository.
        repository: Repository,
        /// Which of its tags.
        tags: Tags,
        /// Images without a tag, by digest.
        digests: Vec<Digest>,
    },
    /// A directory as `dir:` writes it.
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the image is called.
        name: Name,
    },
}

/// What an image is called in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A tag.
    Tag(Tag),
    /// Its digest.
    Digest(Digest),
}

/// Where the images of a set go.
pub enum MirrorDestination {
    /// A repository on a registry.
    Repository {
        /// The client that reaches it.
        client: Client,
        /// The repository.
        repository: Repository,
    },
    /// Directories as `dir:` writes them: this path with `:TAG` or `@DIGEST` behind it.
    Directories(PathBuf),
    /// An OCI layout, with the tags as names and with what refers to the images.
    Layout(PathBuf),
}

/// Some images that are mirrored alike.
pub struct Set {
    /// Where they are.
    pub from: MirrorSource,
    /// Where they go.
    pub to: MirrorDestination,
    /// How each is copied.
    pub copy: CopyOptions,
    /// What is added to each tag at the destination.
    pub suffix: String,
    /// Tags the destination has are left as they are.
    pub missing_only: bool,
    /// Tags whose name matches never change: they are not asked about once the destination has
    /// them.
    pub immutable: Option<Regex>,
}

/// How to mirror.
pub struct MirrorOptions<'a> {
    /// Images at a time; at least 1.
    pub parallel: usize,
    /// The part of the work that is this worker's.
    pub shard: Shard,
    /// Continue with the other images if one fails.
    pub keep_going: bool,
    /// Change nothing; say what would be done.
    pub dry_run: bool,
    /// Delete what the source has no more, unless that is more than so many percent of the
    /// destination's tags.
    pub delete: Option<u8>,
    /// Seconds since 1970.
    pub now: i64,
    /// For how many seconds the state of an earlier run is trusted.
    pub recheck: i64,
    /// What decides whether an image may be copied.
    pub gate: &'a dyn Gate,
}

/// What became of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was copied.
    Copied,
    /// It is as it should be.
    Unchanged,
    /// It was deleted at the destination.
    Deleted,
    /// A dry run: it would be copied.
    WouldCopy,
    /// A dry run: it would be deleted.
    WouldDelete,
    /// It could not be brought to the source's state.
    Failed,
    /// The run was stopped before it was done.
    Cancelled,
}

impl Outcome {
    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Copied => "copied",
            Outcome::Unchanged => "unchanged",
            Outcome::Deleted => "deleted",
            Outcome::WouldCopy => "would copy",
            Outcome::WouldDelete => "would delete",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// What became of one name, and why.
#[derive(Debug)]
pub struct Line {
    /// The name at the source; `None` for what is deleted.
    pub source: Option<String>,
    /// The name at the destination.
    pub target: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What the destination's name points at, where that is known.
    pub digest: Option<Digest>,
    /// Why it failed.
    pub error: Option<Error>,
}

/// What a run of a mirror did.
#[derive(Debug, Default)]
pub struct Report {
    /// Every name, in the order in which they were finished.
    pub lines: Vec<Line>,
    /// Whether the run ended before it came to every name.
    pub stopped: bool,
}

impl Report {
    /// How many names had this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.lines.iter().filter(|line| line.outcome == outcome).count()
    }

    /// `synced 12 names: 3 copied, 9 unchanged`.
    pub fn summary(&self) -> String {
        let all = [
            Outcome::Copied,
            Outcome::WouldCopy,
            Outcome::Unchanged,
            Outcome::Deleted,
            Outcome::WouldDelete,
            Outcome::Failed,
            Outcome::Cancelled,
        ];
        let counts = all.map(|outcome| (self.count(outcome), outcome.as_str()));
        let told: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, outcome)| format!("{count} {outcome}"))
            .collect();
        let names = match self.lines.len() {
            1 => "1 name".to_owned(),
            n => format!("{n} names"),
        };
        match told.is_empty() {
            true => "synced nothing: there is no such tag".to_owned(),
            false => format!("synced {names}: {}", told.join(", ")),
        }
    }

    /// Every name with its outcome as JSON.
    pub fn json(&self) -> serde_json::Value {
        let lines = self.lines.iter().map(|line| {
            let error = line.error.as_ref().map(|error| task::chain(error).join(": "));
            serde_json::json!({
                "source": line.source, "destination": line.target,
                "outcome": line.outcome.as_str(), "digest": line.digest, "error": error,
            })
        });
        let names = lines.collect::<Vec<_>>();
        serde_json::json!({ "names": names, "stopped": self.stopped })
    }

    /// The first failure, with the name it is about.
    pub fn failure(&self) -> Option<(&str, &Error)> {
        self.lines.iter().find_map(|line| Some((line.target.as_str(), line.error.as_ref()?)))
    }
}
