//! Layers become snapshots: while they arrive, or from blobs, in parallel and in any order.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::{Descriptor, Digest, Image, Layer};
use layers::{AppliedLayer, ApplyOptions, Whiteouts};
use task::{Cancelled, Task};

use crate::{Active, BlobWriter, Error, Result, SnapshotId, Store};

/// A layer that is unpacked but not yet a snapshot: what lies below it is not known yet. Dropped
/// without a commit it is forgotten.
#[derive(Debug)]
pub struct PendingLayer {
    digest: Digest,
    applied: AppliedLayer,
    active: Active,
}

impl PendingLayer {
    /// The digest of the blob.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest of the uncompressed layer.
    pub fn diff_id(&self) -> Digest {
        self.applied.diff_id
    }

    /// Entries that could not be made here (devices without root), for a warning.
    pub fn skipped(&self) -> &[String] {
        &self.applied.skipped
    }
}

impl Store {
    /// Takes in a layer in one pass: its bytes are stored and hashed and at the same time
    /// unpacked and hashed again. On any mismatch or error nothing remains.
    ///
    /// # Errors
    /// [`Error::Size`] and [`Error::Digest`] when other bytes came, [`Error::Stream`] when they
    /// stopped coming (its kind is that of a [`task::Cause`] inside the I/O error),
    /// [`Error::Layer`] when they do not unpack, [`Error::Cancelled`].
    pub fn put_layer(
        &self,
        descriptor: &Descriptor,
        stream: impl Read,
        task: &Task,
    ) -> Result<PendingLayer> {
        let active = self.begin()?;
        let writer = self.writer_for(descriptor.digest.algorithm())?;
        let mut tee = Tee { from: stream, writer, descriptor, task, failure: None };
        let applied = self.apply(&active, descriptor.digest, &mut tee, task);
        // What the unpacker did not read is hashed all the same: bytes that are not the layer
        // are a better reason than their not unpacking.
        if tee.failure.is_none() && !matches!(applied, Err(Error::Cancelled(_))) {
            // Any failure is kept in the tee.
            let _ = io::copy(&mut tee, &mut io::sink());
        }
        if let Some(failure) = tee.failure {
            return Err(failure);
        }
        let applied = match applied {
            Ok(applied) => applied,
            Err(Error::Cancelled(cancelled)) => return Err(Error::Cancelled(cancelled)),
            Err(error) => {
                let (expected, found) = (descriptor.digest, tee.writer.digest());
                if tee.writer.size() != descriptor.size {
                    let (digest, found) = (descriptor.digest, tee.writer.size());
                    return Err(Error::Size { digest, expected: descriptor.size, found });
                }
                if expected != found {
                    return Err(Error::Digest { expected, found });
                }
                return Err(error);
            }
        };
        tee.writer.commit(Some(descriptor))?;
        Ok(PendingLayer { digest: descriptor.digest, applied, active })
    }

    fn apply(
        &self,
        active: &Active,
        digest: Digest,
        stream: impl Read,
        task: &Task,
    ) -> Result<AppliedLayer> {
        let options = ApplyOptions {
            whiteouts: Whiteouts::Overlay,
            user_xattr: self.shared().options.user_xattr,
            ..ApplyOptions::default()
        };
        layers::apply(task.reading(stream), &active.root()?, &options)
            .map_err(|source| Error::layer(format!("unpacking the layer {digest}"), source))
    }

    /// Makes the layers of an image snapshots, those that are not; their blobs must be in the
    /// store. `None` for an image without layers.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::DiffId`], [`Error::TooDeep`], [`Error::Layer`],
    /// [`Error::Cancelled`].
    pub fn unpack(&self, image: &Image, task: &Task) -> Result<Option<SnapshotId>> {
        self.commit_image(image, Vec::new(), task)
    }

    /// As [`Store::unpack`], with layers that were unpacked while they arrived. Pending layers
    /// that the image does not need are forgotten.
    ///
    /// # Errors
    /// As [`Store::unpack`].
    pub fn commit_image(
        &self,
        image: &Image,
        pending: Vec<PendingLayer>,
        task: &Task,
    ) -> Result<Option<SnapshotId>> {
        let Some(top) = image.layers().last() else { return Ok(None) };
        if self.has_snapshot(top.chain_id.into())? {
            return Ok(Some(top.chain_id.into()));
        }
        let (depth, limit) = (image.layers().len(), crate::MAX_DEPTH);
        if depth > limit as usize {
            let depth = u32::try_from(depth).unwrap_or(u32::MAX);
            return Err(Error::TooDeep { id: top.chain_id.0, depth, limit });
        }
        let mut at_hand: BTreeMap<Digest, Vec<PendingLayer>> = BTreeMap::new();
        for layer in pending {
            at_hand.entry(layer.digest).or_default().push(layer);
        }
        let mut needed: Vec<(Layer<'_>, Option<PendingLayer>)> = Vec::new();
        for layer in image.layers() {
            if !self.has_snapshot(layer.chain_id.into())? {
                let found = at_hand.get_mut(&layer.descriptor.digest).and_then(Vec::pop);
                needed.push((layer, found));
            }
        }
        self.unpack_missing(&mut needed, task)?;
        let mut ready = needed.into_iter().peekable();
        let mut parent = None;
        for layer in image.layers() {
            let next = ready.next_if(|(needed, _)| needed.chain_id == layer.chain_id);
            if let Some((_, Some(pending))) = next {
                self.commit_layer(&layer, pending, parent)?;
            }
            parent = Some(SnapshotId::from(layer.chain_id));
        }
        Ok(parent)
    }

    /// Unpacks a layer that is in the store.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::Layer`], [`Error::Cancelled`].
    pub fn unpack_layer(&self, descriptor: &Descriptor, task: &Task) -> Result<PendingLayer> {
        self.unpack_blob(descriptor, &AtomicBool::new(false), task)
    }

    /// Turns an unpacked layer into a snapshot under a name of the caller's choice.
    ///
    /// # Errors
    /// As [`Active::commit`].
    pub fn commit_pending(
        &self,
        pending: PendingLayer,
        id: SnapshotId,
        parent: Option<SnapshotId>,
    ) -> Result<()> {
        self.lay(&pending, parent)?;
        pending.active.commit(id, parent)
    }

    /// Gives the directories that a layer never mentions the attributes they have below it.
    fn lay(&self, pending: &PendingLayer, parent: Option<SnapshotId>) -> Result<()> {
        let Some(parent) = parent.filter(|_| !pending.applied.implied.is_empty()) else {
            return Ok(());
        };
        let digest = pending.digest;
        let fail =
            |source| Error::layer(format!("applying the layer {digest} to its base"), source);
        let below = self.stack(parent)?.mount().map_err(fail)?;
        layers::inherit(&pending.active.root()?, &pending.applied.implied, &below).map_err(fail)
    }

    /// Turns an unpacked layer into the snapshot under its chain id.
    fn commit_layer(
        &self,
        layer: &Layer<'_>,
        pending: PendingLayer,
        parent: Option<SnapshotId>,
    ) -> Result<()> {
        let digest = layer.descriptor.digest;
        let (expected, found) = (layer.diff_id, pending.applied.diff_id);
        if expected != found {
            return Err(Error::DiffId { layer: digest, expected, found });
        }
        self.lay(&pending, parent)?;
        pending.active.commit(layer.chain_id.into(), parent)
    }

    /// Unpacks the layers that are not at hand, as many at a time as there are processors.
    fn unpack_missing(
        &self,
        needed: &mut [(Layer<'_>, Option<PendingLayer>)],
        task: &Task,
    ) -> Result<()> {
        let missing: Vec<_> = needed.iter_mut().filter(|(_, pending)| pending.is_none()).collect();
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let workers = processors.min(missing.len());
        let work: Vec<Mutex<_>> = missing.into_iter().map(Mutex::new).collect();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failure = Mutex::new(None);
        let labour = || {
            while let Some(slot) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                let (layer, pending) = &mut **slot;
                match self.unpack_blob(layer.descriptor, &stop, task) {
                    Ok(unpacked) => *pending = Some(unpacked),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        first.get_or_insert(error);
                        return;
                    }
                }
            }
        };
        match workers {
            0 => {}
            1 => labour(),
            _ => std::thread::scope(|scope| {
                for _ in 0..workers {
                    scope.spawn(labour);
                }
            }),
        }
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn unpack_blob(
        &self,
        descriptor: &Descriptor,
        stop: &AtomicBool,
        task: &Task,
    ) -> Result<PendingLayer> {
        let digest = descriptor.digest;
        let task = task.sized(format!("unpacking {}", digest.short()), descriptor.size);
        let blob = Stoppable { from: self.open_blob(digest)?, stop };
        let active = self.begin()?;
        let applied = self.apply(&active, digest, task.reading(blob), &task)?;
        for skipped in &applied.skipped {
            task.warn(skipped.clone());
        }
        task.done();
        Ok(PendingLayer { digest, applied, active })
    }
}

/// A reader that ends with an error once another worker has failed.
struct Stoppable<'a, R> {
    from: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(Cancelled));
        }
        self.from.read(buffer)
    }
}

/// Reads from a stream and writes what it read to a blob; keeps the first failure, and never
/// takes more than the descriptor declares.
struct Tee<'a, R> {
    from: R,
    writer: BlobWriter,
    descriptor: &'a Descriptor,
    task: &'a Task,
    failure: Option<Error>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.step(buffer).map_err(|failure| {
            let cancelled = matches!(failure, Error::Cancelled(_));
            self.failure = Some(failure);
            if cancelled { io::Error::other(Cancelled) } else { io::ErrorKind::BrokenPipe.into() }
        })
    }
}

impl<R: Read> Tee<'_, R> {
    fn step(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.task.check()?;
        let (digest, expected) = (self.descriptor.digest, self.descriptor.size);
        // One byte more than is left, to notice a stream that does not end where it should.
        let left = expected.saturating_sub(self.writer.size()).saturating_add(1);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = loop {
            match self.from.read(&mut buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(|error| Error::stream(digest, error))?,
            }
        };
        if self.writer.size() + n as u64 > expected {
            let found = self.writer.size() + n as u64;
            return Err(Error::Size { digest, expected, found });
        }
        self.writer
            .write_all(&buffer[..n])
            .map_err(|error| Error::file("writing", &self.writer.path, error))?;
        Ok(n)
    }
}
