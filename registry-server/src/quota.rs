//! How much the repositories below a prefix may hold.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use image::Digest;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::content::{Content, uploads};
use crate::keys;
use crate::lock::Lock;

/// What was counted counts so long: other servers add and delete, too.
const FRESH: Duration = Duration::from_secs(60);
/// The shortest time between two counts before a request is refused.
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

/// The quota that a push would exceed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuotaExceeded {
    quota: Quota,
    used: u64,
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuotaExceeded { quota: Quota { prefix, bytes }, used } = self;
        write!(f, "the quota of {prefix} has no room for this: {used} of {bytes} bytes are used")
    }
}

/// What wants room.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Claim<'a> {
    /// An upload has, or is about to have, so many bytes: of this blob, if that is known.
    Upload { session: &'a str, bytes: u64, digest: Option<Digest> },
    /// Content of this size is about to be linked. It came in this upload, which ends.
    Content { digest: Digest, bytes: u64, session: Option<&'a str> },
}

impl Claim<'_> {
    fn digest(&self) -> Option<Digest> {
        match self {
            Claim::Upload { digest, .. } => *digest,
            Claim::Content { digest, .. } => Some(*digest),
        }
    }

    fn session(&self) -> Option<&str> {
        match self {
            Claim::Upload { session, .. } => Some(session),
            Claim::Content { session, .. } => *session,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Claim::Upload { bytes, .. } | Claim::Content { bytes, .. } => *bytes,
        }
    }
}

/// What the repositories below one prefix have.
#[derive(Default)]
struct Count {
    at: Option<Instant>,
    has: HashMap<Digest, u64>,
    used: u64,
    /// Bytes of unfinished uploads, by session.
    uploads: HashMap<String, u64>,
    /// Whether uploads that were seen in the storage are for this prefix.
    concerned: HashMap<String, bool>,
}

impl Count {
    fn older(&self, span: Duration) -> bool {
        self.at.is_none_or(|at| at.elapsed() >= span)
    }

    /// What is used but for an upload that asks.
    fn used_beside(&self, session: Option<&str>) -> u64 {
        let others = self.uploads.iter().filter(|(known, _)| Some(known.as_str()) != session);
        self.used.saturating_add(others.map(|(_, bytes)| bytes).sum())
    }

    fn fits(&self, claim: &Claim<'_>, limit: u64) -> bool {
        claim.digest().is_some_and(|digest| self.has.contains_key(&digest))
            || self.used_beside(claim.session()).saturating_add(claim.bytes()) <= limit
    }

    fn take(&mut self, claim: &Claim<'_>) {
        match claim {
            Claim::Upload { session, bytes, .. } => {
                self.uploads.insert((*session).to_owned(), *bytes);
            }
            Claim::Content { digest, bytes, session } => {
                if let Some(session) = session {
                    self.uploads.remove(*session);
                }
                if self.has.insert(*digest, *bytes).is_none() {
                    self.used += bytes;
                }
            }
        }
    }

    /// Counts what links there are, and what uploads have. What was counted before has the size it
    /// had; of an upload that bytes arrive for, the storage does not show everything yet.
    async fn renew(
        &mut self,
        content: &Content,
        quota: &Quota,
        arriving: &HashSet<String>,
    ) -> io::Result<()> {
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
        self.renew_uploads(content, quota, arriving).await?;
        self.at = Some(at);
        Ok(())
    }

    async fn renew_uploads(
        &mut self,
        content: &Content,
        quota: &Quota,
        arriving: &HashSet<String>,
    ) -> io::Result<()> {
        let mut stored: HashMap<String, u64> = HashMap::new();
        let mut below = content.storage.walk(keys::UPLOADS).await?;
        while let Some(stat) = below.try_next().await? {
            let rest = stat.key.strip_prefix(keys::UPLOADS).and_then(|key| key.split_once('/'));
            if let Some((session, rest)) = rest {
                let bytes = if rest.starts_with("data/") { stat.size } else { 0 };
                *stored.entry(session.to_owned()).or_default() += bytes;
            }
        }
        drop(below);
        self.concerned.retain(|session, _| stored.contains_key(session));
        for session in stored.keys() {
            if !self.concerned.contains_key(session) {
                let of = uploads::repository(content, session).await?;
                let concerned = of.is_some_and(|repository| quota.fits(&repository));
                self.concerned.insert(session.clone(), concerned);
            }
        }
        stored.retain(|session, _| self.concerned.get(session) == Some(&true));
        let before = std::mem::take(&mut self.uploads);
        self.uploads = stored;
        for (session, bytes) in before {
            if arriving.contains(&session) {
                let stored = self.uploads.entry(session).or_default();
                *stored = bytes.max(*stored);
            }
        }
        Ok(())
    }
}

/// Bytes arrive for an upload, until this is dropped.
pub(crate) struct Arrival<'a>(&'a Counts, String);

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.0.arriving.lock().remove(&self.1);
    }
}

/// What all quotas of a server have counted.
#[derive(Default)]
pub(crate) struct Counts {
    by_prefix: Lock<HashMap<String, Arc<Mutex<Count>>>>,
    arriving: Lock<HashSet<String>>,
}

impl Counts {
    /// Says that bytes arrive for an upload.
    pub(crate) fn arrival(&self, session: &str) -> Arrival<'_> {
        self.arriving.lock().insert(session.to_owned());
        Arrival(self, session.to_owned())
    }

    /// Takes what wants room into the count of every quota that a repository is of, if all have it.
    pub(crate) async fn admit(
        &self,
        content: &Content,
        quotas: &[Quota],
        repository: &str,
        claim: Claim<'_>,
    ) -> io::Result<Result<(), QuotaExceeded>> {
        let mut held = Vec::new();
        for quota in quotas.iter().filter(|quota| quota.fits(repository)) {
            let count = Arc::clone(self.by_prefix.lock().entry(quota.prefix.clone()).or_default());
            let mut count = count.lock_owned().await;
            let full = |count: &Count| !count.fits(&claim, quota.bytes);
            if count.older(FRESH) || full(&count) && count.older(AGAIN) {
                let arriving = self.arriving.lock().clone();
                count.renew(content, quota, &arriving).await?;
            }
            if full(&count) {
                let used = count.used_beside(claim.session());
                return Ok(Err(QuotaExceeded { quota: quota.clone(), used }));
            }
            held.push(count);
        }
        held.iter_mut().for_each(|count| count.take(&claim));
        Ok(Ok(()))
    }

    /// Gives the room of an upload back.
    pub(crate) async fn release(&self, session: &str) {
        let counts: Vec<_> = self.by_prefix.lock().values().map(Arc::clone).collect();
        for count in counts {
            count.lock().await.uploads.remove(session);
        }
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
        let blob = |text: &str| Claim::Content {
            digest: Digest::of(text.as_bytes()),
            bytes: text.len() as u64,
            session: None,
        };
        let upload = |bytes| Claim::Upload { session: "s", bytes, digest: None };
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
        assert_eq!(ask("team/third", upload(0)).await, Ok(()));
        assert!(ask("team/third", upload(1)).await.is_err());
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
        let none = HashSet::new();
        count.renew(&content, &quota, &none).await.unwrap();
        assert_eq!((count.used, count.has.len()), (5, 1));
        content.delete_blob("team/a", digest).await.unwrap();
        content.delete_blob("team/b", digest).await.unwrap();
        count.renew(&content, &quota, &none).await.unwrap();
        assert_eq!(count.used, 0);
    }

    #[tokio::test]
    async fn unfinished_uploads_hold_room_until_they_end() {
        let content = Content::new(Arc::new(Memory::default()), Duration::from_secs(60));
        let quotas = [Quota { prefix: "team".to_owned(), bytes: 10 }];
        let counts = Counts::default();
        let ask =
            async |claim| counts.admit(&content, &quotas, "team/app", claim).await.unwrap().is_ok();
        let upload = |session, bytes| Claim::Upload { session, bytes, digest: None };
        assert!(ask(upload("one", 6)).await);
        assert!(ask(upload("one", 7)).await, "an upload grows into its own room");
        assert!(!ask(upload("two", 4)).await);
        assert!(ask(upload("two", 3)).await);
        let digest = Digest::of(b"1234567");
        assert!(ask(Claim::Content { digest, bytes: 7, session: Some("one") }).await);
        assert!(!ask(upload("three", 1)).await);
        assert!(ask(Claim::Upload { session: "four", bytes: 7, digest: Some(digest) }).await);
        counts.release("four").await;
        counts.release("two").await;
        assert!(ask(upload("three", 3)).await);
    }

    #[tokio::test]
    async fn uploads_of_other_servers_and_of_the_past_count() {
        let content = Content::new(Arc::new(Memory::default()), Duration::from_secs(60));
        let quota = Quota { prefix: "team".to_owned(), bytes: 100 };
        for (session, repository, bytes) in [("one", "team/app", 5), ("two", "other", 50)] {
            uploads::open(&content, session, repository).await.unwrap();
            let key = format!("{}{session}/data/1", keys::UPLOADS);
            let data = Bytes::from(vec![0; bytes]);
            content.storage.put(&key, data, crate::storage::WriteCondition::Always).await.unwrap();
        }
        let mut count = Count::default();
        let old = [("three", 7), ("four", 9)].map(|(session, bytes)| (session.to_owned(), bytes));
        count.uploads.extend(old);
        let arriving = HashSet::from(["three".to_owned()]);
        count.renew(&content, &quota, &arriving).await.unwrap();
        let expected = [("one", 5), ("three", 7)].map(|(of, bytes)| (of.to_owned(), bytes));
        assert_eq!(count.uploads, HashMap::from(expected));
    }
}
