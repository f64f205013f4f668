//! Where a registry keeps what it has: a narrow interface over named bytes.
//!
//! Every fact is an object of its own under a [`Key`]: a blob, a link, a manifest's entry, a tag. So
//! nothing is read, changed and written back, and any number of servers can work on one place.
//! What the interface promises, and all three places keep: an object appears and vanishes whole; who
//! reads or lists after a write has returned sees it.

#[cfg(feature = "s3")]
mod bucket;
mod directory;
mod location;
mod memory;

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};

pub(crate) use directory::Directory;
pub use location::Bucket;
pub(crate) use memory::Memory;

/// A bucket as a storage; sends no request yet.
#[cfg(feature = "s3")]
pub(crate) fn open_bucket(bucket: &Bucket) -> io::Result<Arc<dyn Storage>> {
    Ok(Arc::new(bucket::BucketStorage::open(bucket)?))
}

#[cfg(not(feature = "s3"))]
pub(crate) fn open_bucket(_bucket: &Bucket) -> io::Result<Arc<dyn Storage>> {
    let reason = "this program was built without the feature s3";
    Err(io::Error::new(io::ErrorKind::Unsupported, reason))
}

/// Bytes on their way out.
pub(crate) type Bytestream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The name of an object: parts joined by `/`. Made by `keys` alone, of parts that were parsed.
pub(crate) type Key = String;

/// The metadata of an object.
#[derive(Debug, Clone)]
pub(crate) struct Stat {
    pub(crate) key: Key,
    pub(crate) size: u64,
    /// When it was written, on the clock of the storage.
    pub(crate) modified: Duration,
    /// Tells versions apart, where the storage can replace under a condition.
    pub(crate) version: Option<String>,
}

/// The condition under which a write happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    /// In any case.
    Always,
    /// If there is nothing under the key.
    Absent,
    /// If what is there is this version.
    Is(String),
}

/// An object on its way in. Dropped, it was never there.
#[async_trait]
pub(crate) trait Writer: Send {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()>;
    /// Makes the object appear, on stable storage, replacing what was there.
    async fn finish(self: Box<Self>) -> io::Result<()>;
    /// Takes back what may lie around elsewhere.
    async fn abort(self: Box<Self>);
}

/// A place for objects.
#[async_trait]
pub(crate) trait Storage: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> String;
    /// The storage's own clock. Times of objects are compared with this and nothing else.
    async fn now(&self) -> io::Result<Duration>;
    async fn stat(&self, key: &str) -> io::Result<Option<Stat>>;
    /// The bytes of an object, or a part of it that lies inside.
    async fn read(&self, key: &str, range: Option<Range<u64>>) -> io::Result<Option<Bytestream>>;
    /// A URL under which clients can read an object themselves for a while, where that is wanted.
    async fn signed_url(&self, _key: &str) -> io::Result<Option<String>> {
        Ok(None)
    }
    /// Writes a small object. `false`: the condition did not hold.
    async fn put(&self, key: &str, bytes: Bytes, condition: WriteCondition) -> io::Result<bool>;
    async fn writer(&self, key: &str) -> io::Result<Box<dyn Writer>>;
    /// Gives an object another name, replacing what had it. It may be there under both.
    async fn promote(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes an object; one that is not there is none the less gone.
    async fn delete(&self, key: &str) -> io::Result<()>;
    /// The names of the objects directly under `directory` (which ends with `/`) that sort after
    /// `after`, in order, at most `limit`.
    async fn names(
        &self,
        directory: &str,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Vec<String>>;
    /// Everything below a directory (which ends with `/`, or is all), in no order.
    async fn walk(
        &self,
        directory: &str,
    ) -> io::Result<Pin<Box<dyn Stream<Item = io::Result<Stat>> + Send + '_>>>;
}

/// The whole of an object of at most `limit` bytes.
pub(crate) async fn whole(
    storage: &dyn Storage,
    key: &str,
    limit: u64,
) -> io::Result<Option<Bytes>> {
    let Some(mut stream) = storage.read(key, None).await? else { return Ok(None) };
    let mut all: Vec<u8> = Vec::new();
    let mut first = None;
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        if all.len() as u64 + bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("{key} has more than {limit} bytes")));
        }
        match (&mut first, all.is_empty()) {
            // The usual one block is not copied.
            (None, true) => first = Some(bytes),
            (held, _) => {
                if let Some(held) = held.take() {
                    all.extend_from_slice(&held);
                }
                all.extend_from_slice(&bytes);
            }
        }
    }
    Ok(Some(first.unwrap_or_else(|| all.into())))
}

/// Everything below a directory, in a list.
pub(crate) async fn listed(storage: &dyn Storage, directory: &str) -> io::Result<Vec<Stat>> {
    let mut stream = storage.walk(directory).await?;
    let mut all = Vec::new();
    while let Some(stat) = stream.next().await {
        all.push(stat?);
    }
    Ok(all)
}

/// The part of sorted names a page shows.
pub(crate) fn page(
    names: impl Iterator<Item = String>,
    after: Option<&str>,
    limit: usize,
) -> Vec<String> {
    names.filter(|name| after.is_none_or(|after| name.as_str() > after)).take(limit).collect()
}

#[cfg(test)]
mod tests;
