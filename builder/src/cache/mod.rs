//! The step cache beyond this machine and this moment: what it would answer, where else it is
//! looked for, and who is given it.

mod arrive;
mod ask;
mod chunk;
mod dry;
mod export;
mod import;
mod mounts;
mod record;

use std::sync::Arc;
use std::time::Duration;

use layers::Compression;
use task::Task;
use transport::Location;

pub(crate) use dry::Strict;
pub use dry::{Forecast, Outlook, forecast};
pub(crate) use import::Imports;
pub(crate) use record::{INLINE, Inline, Remote};

use crate::engine::Build;
use crate::error::During;
use crate::layer::Form;
use crate::plan::Target;
use crate::{Error, Result};

/// What the cache is asked and what it is given.
#[derive(Debug, Clone, Default)]
pub struct CacheRequest {
    /// `--cache-ttl`: results older than this are made again.
    pub ttl: Option<Duration>,
    /// `--fail-if-not-cached`: nothing is run; a step that would have to be is an error.
    pub must_hit: bool,
    /// `--cache-from`: asked in this order after the cache of this machine.
    pub from: Vec<CacheFrom>,
    /// `--cache-to`: given the steps once the image is made.
    pub to: Vec<CacheTo>,
    /// Whether the image's configuration tells of its steps, so that the image is a cache.
    pub inline: bool,
}

impl CacheRequest {
    /// Whether steps are given away.
    pub(crate) fn exports(&self) -> bool {
        self.inline || !self.to.is_empty()
    }
}

/// A cache to ask.
#[derive(Debug, Clone)]
pub struct CacheFrom {
    /// What the user calls it.
    pub name: String,
    /// Where it may be; all that are there are asked.
    pub places: Vec<Location>,
}

/// Which steps are given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Those that the image has a layer of.
    Min,
    /// All, those of earlier stages too.
    #[default]
    Max,
}

/// The document that a cache is listed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheForm {
    /// An OCI image manifest: every registry takes it.
    #[default]
    Manifest,
    /// An OCI index of layers, as BuildKit writes with `image-manifest=false`.
    Index,
    /// Docker's manifest list of layers with Docker's media types.
    DockerList,
}

/// A place to write the cache to.
#[derive(Debug, Clone)]
pub struct CacheTo {
    /// What the user calls it.
    pub name: String,
    /// Where it is.
    pub place: Location,
    /// Which steps.
    pub mode: Mode,
    /// Which document lists them.
    pub form: CacheForm,
    /// How layers are compressed that are not there in the image's form; as the image's without.
    pub compression: Option<Compression>,
    /// Whether all layers are.
    pub force: bool,
    /// Whether cache mounts go along.
    pub mounts: bool,
    /// Whether the build works although this fails.
    pub ignore_error: bool,
}

/// Gives the steps of a build away as the request says. The image is there already, whatever
/// happens here.
pub(crate) async fn give(build: &Arc<Build>, task: &Task) -> Result<()> {
    for to in &build.request.cache.to {
        let child = Arc::new(task.child(format!("exporting the cache to {}", to.name)));
        match export::export(build, to, &to.place, &child).await {
            Ok(()) => {
                if let Some(child) = Arc::into_inner(child) {
                    child.done();
                }
            }
            Err(error) if to.ignore_error && !matches!(error, Error::Cancelled(_)) => {
                let why = task::chain(&error).join(": ");
                child.warn(format!("the cache {} was not written: {why}", to.name));
            }
            error => return error.during(format!("exporting the cache to {}", to.name)),
        }
    }
    Ok(())
}

/// What the configuration of an image says of its steps; `None` where that was not asked for.
pub(crate) fn inline(build: &Build, target: &Target) -> Option<Inline> {
    if !build.request.cache.inline {
        return None;
    }
    let own = target.image.history.iter().filter_map(|item| item.layer);
    let step = |id| Some((build.origin_of(id)?.0, build.made(id)?.created));
    let steps: Option<Vec<_>> = own.map(step).collect();
    Some(Inline { form: Form::of(&build.request).to_string(), steps: steps? })
}

/// Reads bytes as each document a cache consists of.
#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let _ = serde_json::from_slice::<record::Listing>(bytes);
    let _ = serde_json::from_slice::<Vec<(crate::why::Trace, crate::why::Facts)>>(bytes);
}
