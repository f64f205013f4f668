//! How much the repositories below a prefix may hold.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use image::Digest;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::content::Content;
use crate::keys;
use crate::lock::Lock;

/// What was counted counts so long: other servers add and delete, too.
const FRESH: Duration = Duration::from_secs(60);
/// Before something is refused it is counted anew, but not more often than this.
const AGAIN: Duration = Duration::from_secs(2);
/// Requests to the storage at once.
const AT_ONCE: usize = 16;

/// How much the repositories below a prefix may hold together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Quota {
    /// A repository, or what the names of several begin with, up to a slash.
    pub prefix: String,
    /// Bytes; what several of the repositories have counts once.
    pub bytes: u64,
}

impl Quota {
    /// Whether a repository counts.
    pub fn fits(&self, repository: &str) -> bool {
        let rest = repository.strip_prefix(self.prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A quota that has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Full {
    quota: Quota,
    used: u64,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Full { quota: Quota { prefix, bytes }, used } = self;
        write!(f, "the quota of {prefix} has no room for this: {used} of {bytes} bytes are used")
    }
}

/// What the repositories below one prefix have.
#[derive(Default)]
struct Count {
    at: Option<Instant>,
    has: HashMap<Digest, u64>,
    used: u64,
}

impl Count {
    fn older(&self, span: Duration) -> bool {
        self.at.is_none_or(|at| at.elapsed() >= span)
    }

    /// Counts what links there are. What was counted before has the size it had.
    async fn renew(&mut self, content: &Content, quota: &Quota) -> io::Result<()> {
        let at = Instant::now();
        let storage = content.storage.as_ref();
        let mut has = HashMap::new();
        let mut below = storage.walk(&format!("{}{}/", keys::REPOSITORIES, quota.prefix)).await?;
        while let Some(stat) = below.try_next().await? {
            if let Some((_, "_blobs", part)) = keys::of_repository(&stat.key) {
                has.extend(keys::digest(part).map(|digest| (digest, ())));
            }
        }
        drop(below);
        let known = std::mem::take(&mut self.has);
        let sizes = stream::iter(has.into_keys().map(|digest| {
            let known = known.get(&digest).copied();
            async move {
                let size = match known {
                    Some(size) => Some(size),
                    None => storage.stat(&keys::blob(digest)).await?.map(|stat| stat.size),
                };
                Ok::<_, io::Error>(size.map(|size| (digest, size)))
            }
        }));
        let sizes = sizes.buffer_unordered(AT_ONCE).try_filter_map(|size| async move { Ok(size) });
        self.has = sizes.try_collect().await?;
        self.used = self.has.values().sum();
        self.at = Some(at);
        Ok(())
    }
}

/// What all quotas of a server have counted.
#[derive(Default)]
pub(crate) struct Counts(Lock<HashMap<String, Arc<Mutex<Count>>>>);

impl Counts {
    /// Takes content into the count of every quota that a repository is of, if all have room.
    /// Without a digest nothing is taken: it is asked whether there is room for so many bytes.
    pub(crate) async fn admit(
        &self,
        content: &Content,
        quotas: &[Quota],
        repository: &str,
        (digest, size): (Option<Digest>, u64),
    ) -> io::Result<Result<(), Full>> {
        let mut held = Vec::new();
        for quota in quotas.iter().filter(|quota| quota.fits(repository)) {
            let count = Arc::clone(self.0.lock().entry(quota.prefix.clone()).or_default());
            let mut count = count.lock_owned().await;
            if count.older(FRESH) {
                count.renew(content, quota).await?;
            }
            let fits = |count: &Count| {
                digest.is_some_and(|digest| count.has.contains_key(&digest))
                    || count.used.saturating_add(size) <= quota.bytes
            };
            if !fits(&count) && count.older(AGAIN) {
                count.renew(content, quota).await?;
            }
            if !fits(&count) {
                return Ok(Err(Full { quota: quota.clone(), used: count.used }));
            }
            held.push(count);
        }
        if let Some(digest) = digest {
            for mut count in held {
                if count.has.insert(digest, size).is_none() {
                    count.used += size;
                }
            }
        }
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Memory;
    use bytes::Bytes;

    #[tokio::test]
    async fn prefixes_count_what_they_have_once() {
        let content = Content::new(Arc::new(Memory::default()), Duration::from_secs(60));
        let quota = |prefix: &str, bytes| Quota { prefix: prefix.to_owned(), bytes };
        let quotas = [quota("team", 10), quota("team/app", 6)];
        let counts = Counts::default();
        let blob = |text: &str| (Some(Digest::of(text.as_bytes())), text.len() as u64);
        let ask =
            async |name: &str, what| counts.admit(&content, &quotas, name, what).await.unwrap();
        assert_eq!(ask("team/app", blob("12345")).await, Ok(()));
        // Again, and elsewhere below the prefix: nothing more.
        assert_eq!(ask("team/app", blob("12345")).await, Ok(()));
        assert_eq!(ask("team/other", blob("12345")).await, Ok(()));
        let full = ask("team/app", blob("ab")).await.unwrap_err();
        let said = "the quota of team/app has no room for this: 5 of 6 bytes are used";
        assert_eq!(full.to_string(), said);
        assert_eq!(ask("team/other", blob("abcde")).await, Ok(()));
        assert!(
            ask("team/third", blob("x")).await.unwrap_err().to_string().contains("of team has")
        );
        assert_eq!(ask("team/third", (None, 0)).await, Ok(()));
        assert!(ask("team/third", (None, 1)).await.is_err());
        assert_eq!(ask("teams", blob("a long text")).await, Ok(()));
    }

    #[tokio::test]
    async fn a_count_is_what_is_linked() {
        let content = Content::new(Arc::new(Memory::default()), Duration::from_secs(60));
        let quota = Quota { prefix: "team".to_owned(), bytes: 100 };
        let digest = Digest::of(b"12345");
        for name in ["team/a", "team/b", "other"] {
            content.insert(name, digest, &Bytes::from_static(b"12345")).await.unwrap();
        }
        let other = Digest::of(b"abc");
        content.insert("other", other, &Bytes::from_static(b"abc")).await.unwrap();
        let mut count = Count::default();
        count.renew(&content, &quota).await.unwrap();
        assert_eq!((count.used, count.has.len()), (5, 1));
        content.delete_blob("team/a", digest).await.unwrap();
        content.delete_blob("team/b", digest).await.unwrap();
        count.renew(&content, &quota).await.unwrap();
        assert_eq!(count.used, 0);
    }
}
