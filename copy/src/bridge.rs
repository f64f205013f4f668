//! The only door between waiting code and code on threads. Every queue here is bounded.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use task::Cause;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{Blob, Error, Result, Unverified};

/// Bytes in one piece of a queue.
const CHUNK: usize = 128 << 10;
/// Pieces in a queue.
const DEPTH: usize = 2;
/// Bytes that are received and not yet done with on the way to a thread. A connection's own pieces
/// can be larger than this; then there is one at a time.
const AHEAD: usize = 256 << 10;

/// Runs work that blocks (files, compression, hashing) on a thread and waits for it.
///
/// Once started, the work continues even if the receiver is gone; it should watch its task.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Reads a blob on a thread while it is received here. Call it on the runtime, move the reader
/// to the thread.
pub fn reader(mut blob: Blob) -> BlobReader {
    let (sender, receiver) = mpsc::channel(DEPTH);
    let room = Arc::new(Semaphore::new(AHEAD));
    tokio::spawn(async move {
        let mut pending = BytesMut::new();
        loop {
            let item = tokio::select! {
                item = blob.next() => item,
                () = sender.closed() => return,
            };
            let (piece, end) = match item {
                Some(Ok(chunk)) if pending.is_empty() && chunk.len() >= CHUNK => (chunk, None),
                Some(Ok(chunk)) => {
                    pending.extend_from_slice(&chunk);
                    match pending.len() >= CHUNK {
                        true => (pending.split().freeze(), None),
                        false => continue,
                    }
                }
                Some(Err(cause)) => (Bytes::new(), Some(Err(cause))),
                None => (pending.split().freeze(), Some(Ok(HeldChunk::default()))),
            };
            if !piece.is_empty() {
                let wanted = u32::try_from(piece.len().min(AHEAD)).unwrap_or(0);
                let held = tokio::select! {
                    held = Arc::clone(&room).acquire_many_owned(wanted) => held.ok(),
                    () = sender.closed() => return,
                };
                if sender.send(Ok(HeldChunk { bytes: piece, held })).await.is_err() {
                    return;
                }
            }
            if let Some(end) = end {
                let _ = sender.send(end).await;
                return;
            }
        }
    });
    BlobReader { receiver, piece: HeldChunk::default(), ended: false }
}

/// Bytes on their way to a thread, and the room that they take until it is done with them.
#[derive(Debug, Default)]
struct HeldChunk {
    bytes: Bytes,
    held: Option<OwnedSemaphorePermit>,
}

/// A blob as a [`Read`]; see [`reader`].
#[derive(Debug)]
pub struct BlobReader {
    receiver: mpsc::Receiver<Result<HeldChunk, Cause>>,
    piece: HeldChunk,
    ended: bool,
}

impl BlobReader {
    /// Writes the rest, chunk by chunk as it arrived: no buffer between, so no second copy. `place`
    /// is what errors of the writer name.
    ///
    /// # Errors
    /// [`Error::Stream`] of the blob, [`Error::File`] of the writer.
    pub fn pour(mut self, to: &mut impl Write, place: &Path) -> Result<()> {
        loop {
            self.fill().map_err(Error::Stream)?;
            if self.piece.bytes.is_empty() {
                return Ok(());
            }
            to.write_all(&self.piece.bytes).map_err(Error::file("writing", place))?;
            self.piece = HeldChunk::default();
        }
    }

    /// Waits until there are bytes, or the end.
    fn fill(&mut self) -> io::Result<()> {
        if !self.piece.bytes.is_empty() || self.ended {
            return Ok(());
        }
        self.piece.held = None;
        match self.receiver.blocking_recv() {
            Some(Ok(piece)) => {
                self.ended = piece.bytes.is_empty();
                self.piece = piece;
                Ok(())
            }
            Some(Err(cause)) => {
                self.ended = true;
                Err(io::Error::other(cause))
            }
            // The sender always says how it ended; a channel that closes without that was cut.
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let n = self.piece.bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.piece.bytes.split_to(n));
        Ok(n)
    }
}

/// Reads a file (or anything else that blocks) on a thread, for use as content.
pub fn stream(mut file: impl Read + Send + 'static) -> Unverified {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Cause>>(DEPTH);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let item = match fill(&mut file, &mut chunk) {
                Ok(0) => return,
                Ok(n) => {
                    chunk.truncate(n);
                    Ok(Bytes::from(chunk))
                }
                Err(error) => Err(Error::Stream(error).into()),
            };
            let over = item.is_err();
            if sender.blocking_send(item).is_err() || over {
                return;
            }
        }
    });
    Unverified::new(stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    }))
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use image::{Descriptor, MediaType};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_survive_both_ways_and_ends_are_ends() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
            let blob = stream(io::Cursor::new(bytes.clone())).verify(&descriptor);
            let mut reader = reader(blob);
            let read = blocking(move || {
                let mut read = Vec::new();
                reader.read_to_end(&mut read).map(|_| read)
            });
            assert_eq!(read.await.unwrap(), bytes);
            let blob = stream(io::Cursor::new(bytes.clone())).verify(&descriptor);
            let reader = super::reader(blob);
            let poured = blocking(move || {
                let mut poured = Vec::new();
                reader.pour(&mut poured, Path::new("x")).map(|()| poured)
            });
            assert_eq!(poured.await.unwrap(), bytes);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn large_pieces_wait_for_one_another() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        let given = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&given);
        let pieces = stream::iter(0..10).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from(vec![7; 2 * AHEAD]))
        });
        let all = vec![7; 20 * AHEAD];
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, &all);
        let mut reader = reader(Unverified::new(pieces).verify(&descriptor));
        let read = blocking(move || {
            let mut read = vec![0; 10];
            reader.read_exact(&mut read).unwrap();
            // One is being read, one waits for room; nothing else is taken, however long this is.
            std::thread::sleep(std::time::Duration::from_millis(50));
            let taken = given.load(Ordering::SeqCst);
            reader.read_to_end(&mut read).unwrap();
            (taken, read)
        });
        let (taken, read) = read.await;
        assert!(taken <= 2, "{taken} pieces are held");
        assert!(read == all);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_short_blob_is_an_error_on_the_thread_too() {
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, b"hello");
        let mut reader = reader(stream(&b"hell"[..]).verify(&descriptor));
        let read = blocking(move || reader.read_to_end(&mut Vec::new()));
        assert!(read.await.is_err());
        let reader = super::reader(stream(&b"hell"[..]).verify(&descriptor));
        let poured = blocking(move || reader.pour(&mut Vec::new(), Path::new("x")));
        assert!(poured.await.is_err());
    }
}
