//! Watching a build that the store's bound holds: what commands write is seen only afterwards.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use store::Store;
use task::Task;
use tokio::task::JoinHandle;
use transport::bridge;

use crate::error::ErrorContext;
use crate::{Error, Result};

/// No two looks at the disk are closer.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at the disk while a build runs, and ends it when the bound cannot be held.
pub(crate) struct Watch {
    full: Arc<Mutex<Option<store::Error>>>,
    watching: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins, where the store has a bound.
    pub(crate) fn start(store: &Store, task: &Task) -> Watch {
        let full = Arc::default();
        let watching = store
            .limit()
            .map(|_| tokio::spawn(watch(store.clone(), Arc::clone(&full), task.hidden())));
        Watch { full, watching }
    }

    /// Ends, and says why the build was stopped if it was.
    pub(crate) fn end<T>(self, result: Result<T>) -> Result<T> {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
        match self.full.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(full) if result.is_err() => Err(full).during("limiting the size of the store"),
            _ => result,
        }
    }
}

async fn watch(store: Store, full: Arc<Mutex<Option<store::Error>>>, build: Task) {
    loop {
        let (store, start, task) = (store.clone(), Instant::now(), build.hidden());
        let room = bridge::blocking(move || store.make_room(0, &task)).await;
        match room {
            Err(error @ store::Error::Full { .. }) => {
                *full.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                build.canceller().cancel();
                return;
            }
            Err(error) => tracing::debug!(%error, "the size of the store is unknown"),
            Ok(()) => {}
        }
        tokio::time::sleep(PAUSE.max(start.elapsed() * 4)).await;
    }
}

/// Before something that is in the making becomes part of the store.
pub(crate) fn fits(store: &Store, task: &Task) -> Result<()> {
    match store.limit() {
        Some(_) => store
            .make_room(0, task)
            .map_err(|error| Error::part("storing the files of a step")(error.into())),
        None => Ok(()),
    }
}
