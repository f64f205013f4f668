//! A Dockerfile becomes a plan of steps, the plan is solved, the result is an image.
//!
//! The flow is strictly plan → solve → assemble → publish: [`plan`] says what has to be done and
//! is pure, [`solve`] decides when each step runs, an executor asks the cache and does the work,
//! and the image is put together from the layers the steps made. Nothing later calls anything
//! earlier.
//!
//! ```
//! use std::path::PathBuf;
//! use std::sync::Arc;
//! use std::time::SystemTime;
//!
//! use builder::{Context, Env, Error, Places, Request, SourceFile};
//! use store::{Options, Store};
//! use task::{Cause, Task};
//! use transport::at::LayoutImage;
//! use transport::{Location, Open, Sink, Source};
//!
//! /// Images come from OCI layouts; another program has a registry client here.
//! struct Layouts;
//!
//! impl Places for Layouts {
//!     fn source(&self, location: &Location) -> Result<Box<dyn Source>, Cause> {
//!         match location {
//!             Location::Layout(path, name) => Ok(Box::new(LayoutImage::new(path, name.clone()))),
//!             other => Err(Error::NotThere { what: "place", name: other.to_string() }.into()),
//!         }
//!     }
//!     fn sink(&self, location: &Location) -> Result<Box<dyn Sink>, Cause> {
//!         Err(Error::NotThere { what: "place", name: location.to_string() }.into())
//!     }
//! }
//!
//! let directory = tempfile::tempdir()?;
//! let task = Arc::new(Task::silent());
//! let (boot_id, clock) = (String::new(), SystemTime::now);
//! let options = Options { user_xattr: false, boot_id, clock, task: Arc::clone(&task) };
//! let env = Env {
//!     store: Store::open(directory.path(), options)?,
//!     places: Arc::new(Layouts),
//!     gate: Arc::new(Open),
//!     clock: SystemTime::now,
//!     user_namespace: false,
//!     guard: Arc::new(Open),
//!     single_id: false,
//!     resolv_conf: PathBuf::from("/etc/resolv.conf"),
//!     threads: 2,
//! };
//! let text = "FROM scratch\nENV GREETING=hello\nCMD [\"/hello\"]\n".to_owned();
//! let dockerfile = SourceFile { name: "Dockerfile".to_owned(), text };
//! let mut request = Request::new(dockerfile, Context::Empty);
//! request.tags.push("localhost/greeting:1".parse()?);
//! // A request is a value: it can be kept, sent and read again.
//! let document = serde_json::to_string(&request)?;
//! let request: Request = serde_json::from_str(&document)?;
//!
//! let build = builder::build(request, &env, &task);
//! let built = tokio::runtime::Runtime::new()?.block_on(build)?;
//! assert_eq!(built.names, ["localhost/greeting:1"]);
//! assert!(env.store.resolve("localhost/greeting:1")?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod allow;
pub mod answer;
mod assemble;
mod attest;
mod attestation;
mod build;
mod cache;
mod cache_filter;
mod check;
mod container_file;
mod contents;
mod context;
pub mod debug;
mod document;
mod engine;
mod env;
mod error;
mod every;
mod grant;
mod guard;
mod history;
mod ids;
mod image_options;
mod images;
mod input;
mod inputs;
mod job;
mod layer;
mod limit;
mod lock;
mod lock_error;
pub mod lower;
mod metadata;
mod options;
mod output;
pub mod plan;
mod provenance;
mod pulled;
mod rebuild;
mod recipe;
mod redact;
mod remote_document;
mod request;
mod secret;
pub mod solve;
mod source_file;
mod source_policy;
mod sources;
mod squash;
mod ssh;
mod stages;
mod step;
pub mod syntax;
mod traffic;
mod users;
mod why;
pub mod working;

pub use allow::Allow;
pub use attestation::{ABOUT, Attest, Provenance, SPDX, STATEMENT_V1};
pub use build::{build, plan_only, resolve_inputs};
pub use cache::{
    CacheForm, CacheFrom, CachePlace, CacheRequest, CacheTo, ForecastOutcome, Mode, StepForecast,
    Surroundings, forecast,
};
pub use cache_filter::{CacheFilter, unused_for};
pub use check::{CheckReport, check};
pub use contents::{OpenLayer, inventory, open_stored};
pub use context::complete;
pub use context::dockerfile::{find_dockerfile, read_dockerfile};
pub use context::git::GitUrl;
pub use document::{image_document, working_document};
pub use env::{Env, Places};
pub use error::{Error, Result};
pub use grant::{Grant, grants};
pub use guard::{Leaks, SecretGuard, Warn};
pub use history::{BuildRecord, BuildStatus, History, RunningBuild};
pub use image_options::{Annotation, ImageOptions, Inherit, Level, Squash};
pub use input::{Input, InputKind};
pub use inputs::InputRules;
pub use lock::{Drift, EnforcedLock, Lock};
pub use lock_error::LockError;
pub use options::RunOptions;
pub use provenance::{BUILD_TYPE, SLSA_V1};
pub use pulled::{RecordingGate, origin, permit_stored, remember_pulled};
pub use rebuild::{Deviation, Deviations, RebuildReport, compare_rebuilt, deviations};
pub use recipe::{Choices, ExplicitChoices, Recipe};
pub use recorder::Exchange;
pub use remote_document::{remote_document, remote_text};
pub use request::{
    BuildResult, BuiltImage, Context, Dialect, FilesOutput, Format, Network, Output, Pull, Request,
    TimeOf,
};
pub use secret::Secret;
pub use source_file::SourceFile;
pub use source_policy::PolicyRules;
pub use sources::{DockerfileAt, HttpUrl, Sources, Stream};
pub use ssh::{Agent, KeyError, Keys};
pub use stages::{OtherStage, other_stages};
pub use traffic::Traffic;
pub use why::{Explanation, Reason, ReasonKind};

/// Parsers of what comes from elsewhere, for `fuzz/`.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads bytes as the documents of a cache.
    pub fn cache(bytes: &[u8]) {
        crate::cache::read_any(bytes);
    }

    /// Reads a text as the address of a repository or a download.
    pub fn addresses(text: &str) {
        if crate::GitUrl::is_git(text) {
            let _ = crate::GitUrl::parse(text);
        }
    }
}
