//! A blob on its way from an upstream: one download, however many clients wait for it.
//!
//! What arrives goes to the storage and to a file of the machine's, from which clients are served as
//! it grows. Its end is held back until the digest was checked: who got all of it got the right
//! bytes, who did not sees that it broke off.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{StreamExt, stream};
use image::{Digest, Digester};
use registry_client::Body;
use tokio::sync::watch;

use super::origin::Origins;
use crate::content::Content;
use crate::content::protocol::KeepOutcome;
use crate::lock::Lock;
use crate::metrics::Metrics;
use crate::random::random;
use crate::storage::Bytestream;
use crate::{Options, keys};

/// The range of bytes that a client asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ByteRange {
    first: u64,
    last: Option<u64>,
}

impl ByteRange {
    /// What a `Range` says.
    pub(crate) fn parse(range: &str) -> Option<ByteRange> {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
        Some(ByteRange { first: first.parse().ok()?, last })
    }

    /// The first of them; 0 where that is not the rest of a blob of this size.
    pub(crate) fn of(self, size: Option<u64>) -> u64 {
        let Some(end) = size.and_then(|size| size.checked_sub(1)) else { return 0 };
        let whole = self.first <= end && self.last.is_none_or(|last| last >= end);
        if whole { self.first } else { 0 }
    }
}

/// What is held back until everything was checked.
const HELD: u64 = 64 << 10;
const BLOCK: u64 = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Arrived(u64),
    Whole(u64),
    Failed,
}

#[derive(Clone)]
struct Flight {
    file: Arc<File>,
    size: Option<u64>,
    progress: watch::Receiver<Progress>,
}

type Key = (String, Digest);

/// The downloads under way.
pub(super) struct Flights {
    under_way: Arc<Lock<HashMap<Key, Flight>>>,
    content: Content,
    spool: PathBuf,
}

impl Flights {
    pub(super) fn new(options: &Options, content: Content) -> Flights {
        let here = options.directory.as_ref().map(|directory| directory.join("tmp"));
        let spool = options.spool.clone().or(here).unwrap_or_else(|| PathBuf::from("/var/tmp"));
        Flights { under_way: Arc::default(), content, spool }
    }

    /// The bytes of a download under way from one on, and how many there will be in all.
    pub(super) fn join(
        &self,
        name: &str,
        digest: Digest,
        range: ByteRange,
    ) -> Option<(Bytestream, Option<u64>)> {
        let flight = self.under_way.lock().get(&(name.to_owned(), digest)).cloned()?;
        let size = flight.size;
        Some((flight.stream(range), size))
    }

    /// Begins a download of at most so many bytes.
    pub(super) async fn start(
        &self,
        name: &str,
        digest: Digest,
        (size, rest): (Option<u64>, ByteRange),
        (body, origins, largest): (Body, Origins, u64),
        metrics: Arc<Metrics>,
    ) -> io::Result<Bytestream> {
        let file = Arc::new(tempfile::tempfile_in(&self.spool)?);
        let (told, progress) = watch::channel(Progress::Arrived(0));
        let flight = Flight { file: Arc::clone(&file), size, progress };
        let key = (name.to_owned(), digest);
        self.under_way.lock().insert(key.clone(), flight.clone());
        let landing = FlightGuard { key, under_way: Arc::clone(&self.under_way), told };
        let content = self.content.clone();
        tokio::spawn(async move {
            let arrived = arrive(&content, &landing, &file, (body, origins), largest).await;
            let progress =
                arrived.as_ref().map_or(Progress::Failed, |count| Progress::Whole(*count));
            landing.told.send_replace(progress);
            if let Err(error) = arrived {
                metrics.upstream_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, %digest, "fetching a blob from an upstream");
            }
        });
        Ok(flight.stream(rest))
    }
}

/// Takes the flight off the list, however it ends.
struct FlightGuard {
    key: Key,
    under_way: Arc<Lock<HashMap<Key, Flight>>>,
    told: watch::Sender<Progress>,
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.key);
    }
}

/// Takes all bytes, checks them, and gives them to the storage.
async fn arrive(
    content: &Content,
    guard: &FlightGuard,
    file: &Arc<File>,
    (mut body, mut origins): (Body, Origins),
    largest: u64,
) -> io::Result<u64> {
    let (name, digest) = &guard.key;
    let key = format!("{}{}/data/0", keys::UPLOADS, random());
    let mut writer = content.storage.writer(&key).await?;
    let mut digester = Digester::new(digest.algorithm());
    let mut arrived = 0;
    while let Some(bytes) = body.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(fault) => {
                body = origins.again(arrived, io::Error::other(fault)).await?;
                continue;
            }
        };
        digester.update(&bytes);
        arrived += bytes.len() as u64;
        if arrived > largest {
            return Err(io::Error::other("it is larger than a blob may be here"));
        }
        let (to, copy) = (Arc::clone(file), bytes.clone());
        let spooled = tokio::task::spawn_blocking(move || (&*to).write_all(&copy));
        spooled.await.map_err(io::Error::other)??;
        writer.write(bytes).await?;
        guard.told.send_replace(Progress::Arrived(arrived));
    }
    let found = digester.finish();
    if found != *digest {
        writer.abort().await;
        origins.wrong();
        return Err(io::Error::other(format!("the bytes are {found}")));
    }
    writer.finish().await?;
    let kept = content.adopt(name, *digest, &key).await?;
    content.storage.delete(&key).await?;
    match kept {
        KeepOutcome::Yes => Ok(arrived),
        _ => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Flight {
    /// The bytes as they arrive.
    fn stream(self, range: ByteRange) -> Bytestream {
        let from = range.of(self.size);
        stream::try_unfold((self, from), |(mut flight, position)| async move {
            loop {
                let progress = *flight.progress.borrow_and_update();
                let (there, whole) = match progress {
                    Progress::Arrived(count) => (count.saturating_sub(HELD), false),
                    Progress::Whole(count) => (count, true),
                    Progress::Failed => return Err(io::Error::other("the upstream failed")),
                };
                if position < there {
                    let mut block = vec![0; BLOCK.min(there - position) as usize];
                    let file = Arc::clone(&flight.file);
                    let read = tokio::task::spawn_blocking(move || {
                        file.read_exact_at(&mut block, position).map(|()| block)
                    });
                    let block = Bytes::from(read.await.map_err(io::Error::other)??);
                    let position = position + block.len() as u64;
                    return Ok(Some((block, (flight, position))));
                }
                if whole {
                    return Ok(None);
                }
                if flight.progress.changed().await.is_err() {
                    return Err(io::Error::other("the download ended early"));
                }
            }
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::ByteRange;

    #[test]
    fn only_the_rest_of_a_blob_is_given_while_it_arrives() {
        for (range, size, first) in [
            ("bytes=3-", Some(10), 3),
            ("bytes=3-9", Some(10), 3),
            ("bytes=3-99", Some(10), 3),
            ("bytes=3-8", Some(10), 0),
            ("bytes=10-", Some(10), 0),
            ("bytes=3-", None, 0),
            ("bytes=0-", Some(0), 0),
            ("bytes=-3", Some(10), 0),
            ("lines=3-", Some(10), 0),
        ] {
            let rest = ByteRange::parse(range).unwrap_or_default();
            assert_eq!(rest.of(size), first, "{range} of {size:?}");
        }
    }
}
