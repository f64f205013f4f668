//! A mutex whose data is good whatever a panicking thread did.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex whose data is good whatever a panicking thread did.
#[derive(Default, Debug)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
