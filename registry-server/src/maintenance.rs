//! What a registry does beside answering: expiry, retention, collection, counting.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::TryStreamExt;

use crate::content::Content;
use crate::content::collection::Garbage;
use crate::content::protocol::CollectionReport;
use crate::content::scrub::ScrubReport;
use crate::inner::{RegistryInner, storage};
use crate::retention::{self, ExpiredTag};
use crate::rules::{Renewal, take};
use crate::{Options, Result, keys};

/// When a server that was started tidies up for the first time, and counts what there is.
const FIRST: Duration = Duration::from_secs(60);

/// How often the configuration is checked for changes.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes over what changes in the configuration, until dropped.
pub(crate) async fn follow(shared: Arc<RegistryInner>) {
    let Some(Renewal(ask)) = shared.options.renewal.clone() else { return };
    loop {
        tokio::time::sleep(PAUSE).await;
        let ask = Arc::clone(&ask);
        let asked = tokio::task::spawn_blocking(move || ask()).await;
        let taken = match asked.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(None) => continue,
            Ok(Some(options)) => take(&shared.rules, &options, shared.options.clock),
            Err(reason) => Err(reason),
        };
        match taken {
            Ok(()) => {
                shared.notices.send_to(&shared.rules().webhooks);
                tracing::info!("the changed configuration applies");
            }
            Err(reason) => {
                tracing::error!(
                    "the changed configuration cannot be used, the previous one applies: {reason}"
                );
            }
        }
    }
}

/// Tidies up now and then, until dropped.
pub(crate) async fn tidy(shared: Arc<RegistryInner>) {
    let Some(every) = shared.options.tidying else { return };
    let mut pause = every.min(FIRST);
    loop {
        tokio::time::sleep(std::mem::replace(&mut pause, every)).await;
        if let Err(error) = once(&shared).await {
            tracing::error!(%error, "tidying up");
        }
    }
}

async fn once(shared: &RegistryInner) -> std::io::Result<()> {
    let (content, metrics) = (&shared.content, &shared.metrics);
    let idle = shared.rules().limits.idle_upload;
    let expired = content.expire_uploads(idle).await?;
    metrics.expired.fetch_add(expired, Relaxed);
    let retired = retention::apply(content, &shared.rules().retention, false).await?;
    metrics.retired.fetch_add(retired.len() as u64, Relaxed);
    for gone in &retired {
        tracing::info!(repository = gone.repository, tag = gone.tag, "retention deleted a tag");
    }
    if let Some(done) = content.collect().await? {
        metrics.collections.fetch_add(1, Relaxed);
        metrics.erased.fetch_add(done.erased, Relaxed);
        tracing::info!(?done, "collected");
    }
    let (mut blobs, mut bytes) = (0, 0);
    let mut walk = content.storage.walk(keys::BLOBS).await?;
    while let Some(stat) = walk.try_next().await? {
        (blobs, bytes) = (blobs + 1, bytes + stat.size);
    }
    metrics.blobs.store(blobs, Relaxed);
    metrics.stored.store(bytes, Relaxed);
    Ok(())
}

/// A registry's storage without a server, beside those that may be serving it.
pub struct Admin {
    content: Content,
    options: Options,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({})", self.content.storage.name())
    }
}

impl Admin {
    /// Opens a registry's storage.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(options: Options) -> Result<Admin> {
        let rules = options.retention.clone();
        let content = Content::new(storage(&options)?, options.limits.grace)
            .tidied(move |name| retention::tidies(&rules, name));
        Ok(Admin { content, options })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> crate::Error {
        let name = self.content.storage.name();
        move |source| crate::Error::Storage { action, name, source }
    }

    /// Collects what nothing needs; `None` if a server is collecting now.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn collect(&self) -> Result<Option<CollectionReport>> {
        let failed = |e| self.failed("collecting garbage in")(e);
        self.content.expire_uploads(self.options.limits.idle_upload).await.map_err(failed)?;
        self.content.collect().await.map_err(failed)
    }

    /// What would be collected first.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn garbage(&self) -> Result<Garbage> {
        self.content.garbage().await.map_err(self.failed("looking for garbage in"))
    }

    /// Reads and hashes everything; with `repair`, removes what is broken.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn scrub(&self, repair: bool) -> Result<ScrubReport> {
        let mut found = self.content.scrub(repair).await.map_err(self.failed("scrubbing"))?;
        // What was not asked for yet is not missing in a cache.
        let cached = |name: &str| {
            self.options.upstreams.iter().any(|upstream| {
                name.strip_prefix(&upstream.prefix).is_some_and(|rest| rest.starts_with('/'))
            })
        };
        found.missing.retain(|(name, _, _)| !cached(name));
        Ok(found)
    }

    /// Applies the retention rules; with `dry`, only says what would go.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn retire(&self, dry: bool) -> Result<Vec<ExpiredTag>> {
        let applied = retention::apply(&self.content, &self.options.retention, dry).await;
        applied.map_err(self.failed("applying retention to"))
    }

    /// How long `collect` spares what nothing needs.
    pub fn grace(&self) -> Duration {
        self.options.limits.grace
    }
}
