//! The step cache beyond this machine and this moment: what it would answer, where else it is
//! looked for, and who is given it.

mod arrive;
mod ask;
mod bucket;
mod buildkit;
mod chunk;
mod dry;
mod export;
mod fields;
mod import;
mod mounts;
mod place;
mod record;
mod request;

use std::sync::Arc;

use task::Task;

pub(crate) use dry::CacheOnlyExecutor;
pub use dry::{ForecastOutcome, StepForecast, forecast};
pub use fields::Surroundings;
pub(crate) use import::Imports;
pub(crate) use record::{INLINE, Inline, Remote};
pub use request::{CacheForm, CacheFrom, CachePlace, CacheRequest, CacheTo, Mode};

use crate::error::ErrorContext;
use crate::job::Build;
use crate::layer::LayerForm;
use crate::plan::Target;
use crate::{Error, Result};

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

/// What the config of an image lists of its steps; `None` if that was not requested.
pub(crate) fn inline(build: &Build, target: &Target) -> Option<Inline> {
    if !build.request.cache.inline {
        return None;
    }
    let own = target.image.history.iter().filter_map(|item| item.layer);
    let step = |id| Some((build.origin_of(id)?.0, build.made(id)?.created));
    let steps: Option<Vec<_>> = own.map(step).collect();
    Some(Inline { form: LayerForm::of(&build.request).to_string(), steps: steps? })
}

/// Reads bytes as each document a cache consists of.
#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let _ = serde_json::from_slice::<record::Listing>(bytes);
    let _ = serde_json::from_slice::<Vec<(crate::why::Trace, crate::why::Facts)>>(bytes);
}
