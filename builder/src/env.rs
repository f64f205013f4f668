use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use image::Reference;
use store::Store;
use task::Cause;
use transport::{Gate, Location, Sink, Source};

/// Opens places images are read from and written to; who starts the build knows credentials,
/// mirrors and proxies.
pub trait Places: Send + Sync {
    /// A place to read from.
    ///
    /// # Errors
    /// Whatever is in the way.
    fn source(&self, location: &Location) -> Result<Box<dyn Source>, Cause>;
    /// A place to write to.
    ///
    /// # Errors
    /// Whatever is in the way.
    fn sink(&self, location: &Location) -> Result<Box<dyn Sink>, Cause>;
    /// The images on registries that a name may mean, best first and at least one; the first that
    /// there is counts. A name without a registry is Docker Hub's unless a configuration has
    /// aliases and registries to search.
    ///
    /// # Errors
    /// The name is invalid or ambiguous.
    fn meanings(&self, name: &str) -> Result<Vec<Reference>, Cause> {
        Ok(vec![name.parse::<Reference>()?.or_latest()])
    }
}

/// What a build works with. Nothing of it is part of an image or a cache key.
#[derive(Clone)]
pub struct Env {
    /// Where images, layers and the cache are.
    pub store: Store,
    /// How other places are reached; never asked for [`Location::Store`].
    pub places: Arc<dyn Places>,
    /// Decides which images may be used.
    pub gate: Arc<dyn Gate>,
    /// Decides which results may be written to registries.
    pub guard: Arc<dyn Gate>,
    /// The wall clock.
    pub clock: fn() -> SystemTime,
    /// Whether this process is outside the initial user namespace.
    pub user_namespace: bool,
    /// Whether only one user id exists, so that commands run as root and the owners of files are
    /// kept beside them.
    pub single_id: bool,
    /// The `resolv.conf` that commands with a network see; normally `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// How many threads compress and hash; the result does not depend on it.
    pub threads: usize,
}

impl Env {
    /// The time, in seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        let now = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("store", &self.store).finish_non_exhaustive()
    }
}
