use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Task;

/// How far a task is, in its own unit (bytes for streams). Sampled, never sent.
#[derive(Debug, Default)]
pub struct Meter {
    position: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    pub(crate) fn with_total(total: Option<u64>) -> Arc<Self> {
        let meter = Meter::default();
        meter.total.store(total.unwrap_or(0), Ordering::Relaxed);
        Arc::new(meter)
    }

    /// Units done so far.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Units to do, where known.
    pub fn total(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }

    /// Counts `n` more units as done.
    pub fn advance(&self, n: u64) {
        self.position.fetch_add(n, Ordering::Relaxed);
    }
}

/// A reader or writer that counts its bytes on a task and stops with the task.
///
/// Once the task is cancelled every call fails with an [`io::Error`] that carries
/// [`crate::Cancelled`]; see [`crate::Cancelled::is_in`].
#[derive(Debug)]
pub struct Metered<'a, T> {
    task: &'a Task,
    inner: T,
}

impl<'a, T> Metered<'a, T> {
    pub(crate) fn new(task: &'a Task, inner: T) -> Self {
        Metered { task, inner }
    }

    /// Gives the wrapped stream back.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: Read> Read for Metered<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.task.check().map_err(io::Error::other)?;
        let n = self.inner.read(buffer)?;
        self.task.advance(n as u64);
        Ok(n)
    }
}

impl<T: Write> Write for Metered<'_, T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.task.check().map_err(io::Error::other)?;
        let n = self.inner.write(buffer)?;
        self.task.advance(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
