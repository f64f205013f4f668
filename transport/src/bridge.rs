//! The only door between waiting code and code on threads. Every queue here is bounded.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use task::Cause;
use tokio::sync::mpsc;

use crate::{Blob, Error, Unverified};

/// Bytes in one piece of a queue.
const CHUNK: usize = 128 << 10;
/// Pieces in a queue; together with those in hand at both ends at most 512 KiB.
const DEPTH: usize = 2;

/// Runs work that blocks (files, compression, hashing) on a thread and waits for it.
///
/// Once started the work goes on even if nobody waits any more; it should watch its task.
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
    tokio::spawn(async move {
        let mut pending = BytesMut::new();
        loop {
            let item = tokio::select! {
                item = blob.next() => item,
                () = sender.closed() => return,
            };
            let (flush, end) = match item {
                Some(Ok(chunk)) if pending.is_empty() && chunk.len() >= CHUNK => {
                    if sender.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Ok(chunk)) => {
                    pending.extend_from_slice(&chunk);
                    (pending.len() >= CHUNK, None)
                }
                Some(Err(cause)) => (false, Some(Err(cause))),
                None => (!pending.is_empty(), Some(Ok(Bytes::new()))),
            };
            if flush && sender.send(Ok(pending.split().freeze())).await.is_err() {
                return;
            }
            if let Some(end) = end {
                let _ = sender.send(end).await;
                return;
            }
        }
    });
    BlobReader { receiver, chunk: Bytes::new(), ended: false }
}

/// A blob as a [`Read`]; see [`reader`].
#[derive(Debug)]
pub struct BlobReader {
    receiver: mpsc::Receiver<Result<Bytes, Cause>>,
    chunk: Bytes,
    ended: bool,
}

impl BlobReader {
    /// Writes what is left, piece by piece as it arrived: no buffer between, so no second copy.
    ///
    /// # Errors
    /// Of the blob or of the writer.
    pub fn pour(mut self, to: &mut impl Write) -> io::Result<()> {
        loop {
            self.fill()?;
            if self.chunk.is_empty() {
                return Ok(());
            }
            to.write_all(&std::mem::take(&mut self.chunk))?;
        }
    }

    /// Waits until there are bytes, or the end.
    fn fill(&mut self) -> io::Result<()> {
        if !self.chunk.is_empty() || self.ended {
            return Ok(());
        }
        match self.receiver.blocking_recv() {
            Some(Ok(chunk)) => {
                self.ended = chunk.is_empty();
                self.chunk = chunk;
                Ok(())
            }
            Some(Err(cause)) => {
                self.ended = true;
                Err(io::Error::other(cause))
            }
            // The sender always says how it ended, so this end is no end.
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let n = self.chunk.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
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
                reader.pour(&mut poured).map(|()| poured)
            });
            assert_eq!(poured.await.unwrap(), bytes);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_short_blob_is_an_error_on_the_thread_too() {
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, b"hello");
        let mut reader = reader(stream(&b"hell"[..]).verify(&descriptor));
        let read = blocking(move || reader.read_to_end(&mut Vec::new()));
        assert!(read.await.is_err());
        let reader = super::reader(stream(&b"hell"[..]).verify(&descriptor));
        let poured = blocking(move || reader.pour(&mut Vec::new()));
        assert!(poured.await.is_err());
    }
}
