use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use image::{Descriptor, Digest, Digester, Document, MAX_DOCUMENT, Node};
use task::{Cause, Task};

use crate::Error;

/// Bytes as they come from a place; unusable until the expected digest is known: of all of them
/// ([`Unverified::verify`]), or of the files in a part of a layer (`parts.rs`).
pub struct Unverified(BoxStream<'static, Result<Bytes, Cause>>);

impl Unverified {
    /// Bytes that arrive bit by bit.
    pub fn new(stream: impl Stream<Item = Result<Bytes, Cause>> + Send + 'static) -> Self {
        Unverified(stream.boxed())
    }

    /// Bytes that are all here.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Unverified(stream::once(async move { Ok(bytes) }).boxed())
    }

    /// The only way on: bytes that are checked against size and digest while they pass.
    pub fn verify(self, descriptor: &Descriptor) -> Blob {
        Blob {
            digest: descriptor.digest,
            size: descriptor.size,
            seen: 0,
            digester: Some(Digester::new(descriptor.digest.algorithm())),
            stream: self.0,
            watch: None,
        }
    }

    /// The bytes of a part of a layer, whose files its table of contents checks once they are
    /// unpacked; `watch` sees them pass, and no more than `size` come.
    pub(crate) fn checked_by_table(self, layer: Digest, size: u64, watch: Watch) -> Blob {
        let (seen, digester, stream) = (0, None, self.0);
        Blob { digest: layer, size, seen, digester, stream, watch: Some(watch) }
    }
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unverified")
    }
}

/// Content on its way: a stream that ends in an error unless it is exactly what was promised.
///
/// The chunk that completes the content is handed out only after the digest was verified, so no
/// reader ever holds all bytes of wrong content.
pub struct Blob {
    digest: Digest,
    size: u64,
    seen: u64,
    digester: Option<Digester>,
    stream: BoxStream<'static, Result<Bytes, Cause>>,
    watch: Option<Watch>,
}

impl Blob {
    /// The content of a document, which checked it when it was read.
    pub fn of<T>(document: &Document<T>) -> Blob {
        Blob::trusted(document.digest(), document.bytes().clone())
    }

    /// The content of a manifest or index.
    pub fn of_node(node: &Node) -> Blob {
        Blob::trusted(node.digest(), node.bytes().clone())
    }

    /// Bytes whose digest was computed from them.
    pub fn trusted(digest: Digest, bytes: Bytes) -> Blob {
        let size = bytes.len() as u64;
        let stream = Unverified::whole(bytes).0;
        Blob { digest, size, seen: 0, digester: None, stream, watch: None }
    }

    /// The content's name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The content's length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All of it at once, for documents.
    ///
    /// # Errors
    /// [`image::Error::TooLarge`] before a byte is read, and whatever the stream ends in.
    pub async fn read(mut self) -> Result<Bytes, Cause> {
        if self.size > MAX_DOCUMENT {
            let (digest, size) = (self.digest, self.size);
            return Err(image::Error::TooLarge { digest, size, limit: MAX_DOCUMENT }.into());
        }
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.next().await {
            whole.extend_from_slice(&chunk?);
        }
        Ok(whole.freeze())
    }

    /// Lets a copy see the bytes pass, keep the error, and stop the stream.
    pub(crate) fn watched(mut self, watch: Watch) -> Blob {
        self.watch = Some(watch);
        self
    }

    /// For sinks that compute the digest themselves while they write: the same bytes with only
    /// the size checked here.
    #[must_use]
    pub fn checked_by_sink(mut self) -> Blob {
        self.digester = None;
        self
    }

    fn pass(&mut self, chunk: &Bytes) -> Result<(), image::Error> {
        let before = self.seen;
        self.seen += chunk.len() as u64;
        if self.seen > self.size {
            let (digest, expected) = (self.digest, self.size);
            return Err(image::Error::SizeMismatch { digest, expected, found: self.seen });
        }
        if let Some(digester) = &mut self.digester {
            digester.update(chunk);
        }
        if self.seen == self.size && before < self.size { self.complete() } else { Ok(()) }
    }

    fn complete(&mut self) -> Result<(), image::Error> {
        if self.seen != self.size {
            let (digest, expected) = (self.digest, self.size);
            return Err(image::Error::SizeMismatch { digest, expected, found: self.seen });
        }
        match self.digester.take().map(Digester::finish) {
            Some(found) if found != self.digest => {
                Err(image::Error::DigestMismatch { expected: self.digest, found })
            }
            _ => Ok(()),
        }
    }

    fn advance(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cause>>> {
        if let Some(watch) = &mut self.watch
            && watch.stop.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(Error::Cancelled.into())));
        }
        let item = std::task::ready!(self.stream.as_mut().poll_next(context));
        Poll::Ready(match item {
            Some(Ok(chunk)) => Some(self.pass(&chunk).map(|()| chunk).map_err(Cause::new)),
            Some(Err(cause)) => Some(Err(cause)),
            None => self.complete().err().map(|error| Err(error.into())),
        })
    }
}

impl Stream for Blob {
    type Item = Result<Bytes, Cause>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let blob = self.get_mut();
        let item = std::task::ready!(blob.advance(context));
        let Some(watch) = &blob.watch else { return Poll::Ready(item) };
        Poll::Ready(match item {
            Some(Ok(chunk)) => {
                watch.meter.advance(chunk.len() as u64);
                Some(Ok(chunk))
            }
            Some(Err(cause)) => {
                blob.stream = stream::empty().boxed();
                let stand_in = Error::BrokenOff { digest: blob.digest, kind: cause.kind() };
                watch.fault.keep(cause);
                Some(Err(stand_in.into()))
            }
            None => None,
        })
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({})", self.digest)
    }
}

/// What a copy attaches to a blob on its way to a sink.
pub(crate) struct Watch {
    /// Counts the bytes.
    pub(crate) meter: StreamMeter,
    /// Keeps the error that ended the stream, so that the source is blamed and not the sink.
    pub(crate) fault: FaultCell,
    /// Ready when everything should stop.
    pub(crate) stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Holds the first error of a stream, for callers that need to know why the reader failed.
#[derive(Clone, Default)]
pub(crate) struct FaultCell(Arc<Mutex<Option<Cause>>>);

impl FaultCell {
    fn keep(&self, cause: Cause) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
    }

    pub(crate) fn take(&self) -> Option<Cause> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A task that a stream counts on while another owner ends it.
#[derive(Clone)]
pub(crate) struct StreamMeter {
    task: Arc<Mutex<Option<Task>>>,
    passed: Arc<AtomicU64>,
}

impl StreamMeter {
    pub(crate) fn new(task: Task) -> StreamMeter {
        StreamMeter { task: Arc::new(Mutex::new(Some(task))), passed: Arc::default() }
    }

    fn advance(&self, n: u64) {
        self.passed.fetch_add(n, Ordering::Relaxed);
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.advance(n);
        }
    }

    /// How many bytes have passed, those of attempts that failed included.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, message: String) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.note(message);
        }
    }

    pub(crate) fn end(&self, end: impl FnOnce(Task)) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            end(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use image::MediaType;
    use task::Kind;

    use super::*;

    fn chunks(parts: &[&'static [u8]]) -> Unverified {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part))).collect();
        Unverified::new(stream::iter(parts))
    }

    #[tokio::test]
    async fn only_the_promised_bytes_come_through_to_the_end() {
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, b"hello world");
        let empty = Descriptor::of(MediaType::OCI_LAYER, b"");
        let whole: &[&[u8]] = &[b"hello", b"", b" world"];
        let cases: [(&Descriptor, &[&'static [u8]], bool); 8] = [
            (&descriptor, whole, true),
            (&descriptor, &[b"hello world", b""], true),
            (&descriptor, &[b"hello", b" worl"], false),
            (&descriptor, &[b"hello", b" world", b"!"], false),
            (&descriptor, &[b"hello", b" w0rld"], false),
            (&descriptor, &[], false),
            (&empty, &[], true),
            (&empty, &[b"x"], false),
        ];
        for (descriptor, parts, good) in cases {
            let end = chunks(parts).verify(descriptor).read().await;
            assert_eq!(end.is_ok(), good, "{parts:?}");
            if let Err(cause) = end {
                assert_eq!(cause.kind(), Kind::Invalid);
            }
        }
    }

    #[tokio::test]
    async fn wrong_content_is_never_complete_in_anybodys_hands() {
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, b"hello world");
        let mut blob = chunks(&[b"hello", b" w0rld"]).verify(&descriptor);
        let mut received = 0;
        while let Some(Ok(chunk)) = blob.next().await {
            received += chunk.len();
        }
        assert_eq!(received, 5);
    }
}
