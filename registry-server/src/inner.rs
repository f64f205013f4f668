//! What everything a server does works with.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use image::Digest;

use crate::access::passwords::PasswordCache;
use crate::access::token::Token;
use crate::content::Content;
use crate::http::answer::{Refusal, error};
#[cfg(feature = "testing")]
use crate::http::script::Script;
use crate::lock::Lock;
use crate::metrics::Metrics;
use crate::notify::Notices;
use crate::quota::{Claim, Counts};
use crate::rules::{CurrentRules, Rules};
use crate::storage::{Directory, Memory, Storage};
use crate::upstream::Upstreams;
use crate::{Error, Options, Result, keys};

/// One registry.
pub(crate) struct RegistryInner {
    /// As they were at the start; see [`RegistryInner::rules`].
    pub(crate) options: Options,
    pub(crate) rules: CurrentRules,
    pub(crate) quotas: Counts,
    pub(crate) content: Content,
    pub(crate) upstreams: Upstreams,
    pub(crate) tokens: Lock<HashMap<String, Token>>,
    pub(crate) passwords: PasswordCache,
    #[cfg(feature = "testing")]
    pub(crate) script: Script,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) notices: Notices,
    pub(crate) limiter: crate::limit::Limiter,
    /// When a pull of a tag was last written down.
    pub(crate) pulls: Lock<HashMap<String, Instant>>,
}

/// The place of a registry.
pub(crate) fn storage(options: &Options) -> Result<Arc<dyn Storage>> {
    let failed = |name: String| move |source| Error::Storage { action: "opening", name, source };
    Ok(match (&options.directory, &options.bucket) {
        (_, Some(bucket)) => {
            let open = crate::storage::open_bucket(bucket);
            open.map_err(failed(format!("the bucket {:?}", bucket.bucket)))?
        }
        (Some(directory), None) => {
            let open = Directory::open(directory)
                .and_then(|open| open.tidy(options.limits.idle_upload).map(|()| open));
            Arc::new(open.map_err(failed(directory.display().to_string()))?)
        }
        (None, None) => Arc::new(Memory::default()),
    })
}

impl RegistryInner {
    pub(crate) fn new(options: Options) -> Result<RegistryInner> {
        let storage = storage(&options)?;
        let rules = CurrentRules::new(Rules::of(&options, options.clock)?);
        let held = rules.clone();
        let content = Content::new(storage, options.limits.grace)
            .tidied(move |name| crate::retention::tidies(&held.get().retention, name));
        let metrics = Arc::new(Metrics::default());
        let counted = Arc::clone(&metrics);
        let upstreams = Upstreams::new(&options, rules.clone(), content.clone(), counted)?;
        let notices = Notices::start(&options.webhooks, options.clock);
        Ok(RegistryInner {
            options,
            rules,
            quotas: Counts::default(),
            content,
            upstreams,
            tokens: Lock::default(),
            passwords: PasswordCache::default(),
            #[cfg(feature = "testing")]
            script: Script::default(),
            metrics,
            notices,
            limiter: crate::limit::Limiter::default(),
            pulls: Lock::default(),
        })
    }

    /// Whether a tag stays what it is once it is set.
    pub(crate) fn immutable(&self, name: &str, tag: &str) -> bool {
        self.rules().immutable.iter().any(|rule| rule.fits(name, tag))
    }

    /// Refuses to delete content that an immutable tag refers to or contains.
    pub(crate) async fn unheld(&self, name: &str, digest: Digest) -> Result<(), Refusal> {
        let rules = self.rules();
        let here: Vec<_> = rules.immutable.iter().filter(|rule| rule.concerns(name)).collect();
        if here.is_empty() {
            return Ok(());
        }
        let tags = self.content.storage.names(&keys::tags(name), None, usize::MAX).await?;
        let tags = tags.into_iter().filter(|tag| here.iter().any(|rule| rule.fits(name, tag)));
        match self.content.holder(name, tags.collect(), digest).await? {
            None => Ok(()),
            Some(tag) => {
                let message = format!("the tag {tag} is immutable and needs {digest}");
                Err(error(405, "UNSUPPORTED", &message).into())
            }
        }
    }

    /// Who may do what now, and what else may change while the server runs.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.get()
    }

    /// Counts content for the quotas of a repository; see [`Counts::admit`].
    pub(crate) async fn room(&self, name: &str, claim: Claim<'_>) -> Result<(), Refusal> {
        let rules = self.rules();
        match self.quotas.admit(&self.content, &rules.quotas, name, claim).await? {
            Ok(()) => Ok(()),
            Err(full) => Err(error(403, "DENIED", &full.to_string()).into()),
        }
    }

    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let name = self.content.storage.name();
        move |source| Error::Storage { action, name, source }
    }
}
