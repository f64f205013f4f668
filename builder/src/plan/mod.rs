//! The plan: what has to be done, as values, before anything is done.
//!
//! [`lower`](crate::lower::lower) is pure; a [`Plan`] prints the same for the same Dockerfile, arguments
//! and base images (invariant I11).

pub mod chmod;
pub(crate) mod encode;
pub mod environment;
pub mod key;
mod merge;
pub(crate) mod path;
mod print;

use std::collections::BTreeMap;

use dockerfile::Span;
use image::{Config, Image, Platform};
use serde::{Deserialize, Serialize};

pub use chmod::Chmod;
pub use dockerfile::CacheSharing;
pub use dockerfile::mount::Ownership;

/// Names a step of a plan: its place in [`Plan::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// Everything that has to be done, for one platform or several.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The steps; every step comes behind those it needs. Steps that are the same for several
    /// platforms are there once.
    pub steps: Vec<Step>,
    /// The results: one per platform, in the requested order.
    pub targets: Vec<Target>,
    /// What the user should know: one sentence each.
    pub warnings: Vec<String>,
}

/// The result for one platform.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it is for.
    pub platform: Platform,
    /// The step whose file system is the result; `None` for an empty one.
    pub step: Option<StepId>,
    /// Steps that must have worked although nothing is taken from them.
    pub also: Vec<StepId>,
    /// The image to make from it.
    pub image: ImagePlan,
}

/// One unit of work: it makes one file system out of others.
#[derive(Debug, Clone)]
pub struct Step {
    /// What the user sees: `[build 2/5] RUN make`.
    pub name: String,
    /// What messages call the file system it belongs to: `stage build`, `image debian`.
    pub place: String,
    /// What is done.
    pub op: Op,
    /// The step whose file system this one continues; `None` for an empty one.
    pub parent: Option<StepId>,
    /// Other steps whose file systems are read.
    pub reads: Vec<StepId>,
    /// The instruction, on one line.
    pub instruction: String,
    /// Where the instruction stands in the Dockerfile.
    pub span: Span,
    /// The cache is not asked.
    pub fresh: bool,
    /// The build arguments the instruction sees, by name; those that are never part of a key
    /// are not among them.
    pub args: BTreeMap<String, String>,
}

impl Step {
    /// Every step this one needs, the parent first.
    pub fn inputs(&self) -> impl Iterator<Item = StepId> + '_ {
        self.parent.iter().chain(&self.reads).copied()
    }

    /// Whether it reads files of a build context.
    pub fn reads_context(&self) -> bool {
        match &self.op {
            Op::Copy(op) => matches!(op.from, From::Context(_)),
            Op::Run(op) => op.mounts.iter().any(|mount| {
                matches!(&mount.kind, RunMountKind::Bind { from: From::Context(_), .. })
            }),
            Op::Image(_) | Op::Workdir(_) | Op::Graft => false,
        }
    }
}

/// What a step does. Which of it is part of the step's key is said in `encode.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Op {
    /// The file system of an image.
    Image(ImageKey),
    /// `RUN`.
    Run(Box<RunOp>),
    /// `COPY` and `ADD`.
    Copy(Box<CopyOp>),
    /// `WORKDIR`.
    Workdir(WorkdirOp),
    /// Puts a layer that was made alone on its parent: the file system of `COPY --link`.
    Graft,
}

/// An image by the name the Dockerfile gives it, and for what platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ImageKey {
    /// As written.
    pub name: String,
    /// What it must run on.
    pub platform: Platform,
}

/// Makes the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkdirOp {
    /// Absolute.
    pub path: String,
    /// Who owns it if it has to be made: `USER`'s value, empty for root.
    pub user: String,
}

/// Where files are taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    /// A build context by its name; the main one has the empty name.
    Context(String),
    /// The file system of the step with this place in [`Step::reads`].
    Read(usize),
    /// Nothing: the empty file system.
    Scratch,
}

/// One source of `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum CopySource {
    /// A path or pattern below the root of [`CopyOp::from`], without a leading slash.
    Path(String),
    /// A file with this content.
    Inline {
        /// Its name.
        name: String,
        /// Its content.
        content: String,
    },
    /// A file to be downloaded.
    Http {
        /// From where.
        url: String,
    },
    /// A commit of a git repository.
    Git {
        /// Its address, as [`crate::GitUrl`] reads it.
        url: String,
    },
}

/// Copies files into the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyOp {
    /// Whether this is `ADD`, which unpacks archives.
    pub add: bool,
    /// Where paths are looked up.
    pub from: From,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Absolute; with a slash at the end it is a directory.
    pub destination: String,
    /// `user[:group]`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// `--parents`.
    pub parents: bool,
    /// `--link`: what is below does not matter.
    pub link: bool,
    /// `--unpack`.
    pub unpack: Option<bool>,
    /// `--checksum`.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_git_dir: Option<bool>,
    /// Whether a pattern must match something, as buildah has it.
    #[serde(skip)]
    pub strict: bool,
}

impl CopyOp {
    /// Whether the layer does not depend on what it lies on: `--link`, and no owner that only the
    /// user database of the image can name.
    pub(crate) fn is_alone(&self) -> bool {
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        self.link && self.chown.as_ref().is_none_or(|owner| owner.split(':').all(number))
    }

    /// Copies all of a tree to the root.
    pub(crate) fn everything(from: From) -> CopyOp {
        CopyOp {
            add: false,
            from,
            sources: vec![CopySource::Path(String::new())],
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            parents: false,
            link: false,
            unpack: None,
            checksum: None,
            keep_git_dir: None,
            strict: false,
        }
    }
}

/// Runs a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOp {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// A script to be put at [`SCRIPTS`] under this name, and its content.
    pub script: Option<(String, String)>,
    /// `NAME=value`, sorted as declared; proxy variables are not among them.
    pub env: Vec<String>,
    /// Absolute.
    pub working_dir: String,
    /// `user[:group]`, empty for root.
    pub user: String,
    /// `default`, `none` or `host`.
    pub network: String,
    /// What it runs on.
    pub platform: Platform,
    /// In order.
    pub mounts: Vec<RunMount>,
    /// Whether it runs with all privileges.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Devices of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<RunDevice>,
}

/// A device of the machine that a command uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDevice {
    /// Absolute.
    pub path: String,
    /// Whether it must be there.
    pub required: bool,
}

/// Where scripts of here-documents are seen by the command.
pub const SCRIPTS: &str = "/dev/pipes";

/// One mount of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMount {
    /// Absolute; `None` for a secret that is only a variable.
    pub target: Option<String>,
    /// What is mounted.
    pub kind: RunMountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunMountKind {
    /// Files from elsewhere; writes are forgotten.
    Bind {
        /// From where.
        from: From,
        /// Path there, without a leading slash; empty for its root.
        source: String,
        /// Whether writing is allowed.
        writable: bool,
        /// Whether everything belongs to the command's user.
        chown: bool,
    },
    /// A directory kept between builds.
    Cache {
        /// Its name.
        id: String,
        /// What a new one starts with.
        from: From,
        /// Path there.
        source: String,
        /// Whether writing is refused.
        read_only: bool,
        /// What two builds do that want it at once.
        #[serde(skip)]
        sharing: CacheSharing,
        /// Permission bits of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Largest size in bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: Option<u32>,
        /// Whether it starts with what the directory has that it covers.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        copy_up: bool,
    },
    /// A secret.
    Secret {
        /// Its name.
        id: String,
        /// The variable that holds it.
        env: Option<String>,
        /// Whether it must be there.
        required: bool,
        /// Permission bits of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// The socket of an ssh agent.
    Ssh {
        /// Its name.
        id: String,
        /// Whether it must be there.
        required: bool,
        /// Permission bits of the socket.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Owner of the socket.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        /// Group of the socket.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
    },
}

/// The image to be made.
#[derive(Debug, Clone, Default)]
pub struct ImagePlan {
    /// The image below all layers of our own; `None` for `scratch`.
    pub base: Option<ImageKey>,
    /// The configuration, without time, layers and history.
    pub config: Config,
    /// What was done on top of the base, oldest first.
    pub history: Vec<HistoryItem>,
}

/// One line of history, and its layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// What was done.
    pub created_by: String,
    /// The step whose changes are the layer; `None` if it made none.
    pub layer: Option<StepId>,
}

/// The images a Dockerfile names, as far as they are known.
#[derive(Debug, Clone, Default)]
pub struct ResolvedImages {
    /// Documents only: no layer is fetched to plan.
    pub images: BTreeMap<ImageKey, Image>,
}
