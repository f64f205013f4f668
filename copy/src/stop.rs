use std::future::Future;

use task::{Cause, Hook, Task};
use tokio::sync::watch;

use crate::Error;

/// Tells everything that a copy has in flight to stop: the user did, or one part failed.
pub(crate) struct Stop {
    sender: watch::Sender<bool>,
    _hook: Hook,
}

impl Stop {
    pub(crate) fn new(task: &Task) -> Stop {
        let sender = watch::Sender::new(false);
        let from_task = sender.clone();
        let hook = task.on_cancel(move || {
            from_task.send_replace(true);
        });
        Stop { sender, _hook: hook }
    }

    pub(crate) fn trigger(&self) {
        self.sender.send_replace(true);
    }

    pub(crate) fn triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Ready once everything should stop.
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.sender.subscribe();
        async move {
            // The sender gone means that the copy is over, which is a reason to stop too.
            let _ = receiver.wait_for(|stop| *stop).await;
        }
    }

    /// Waits for something that may simply be dropped when everything should stop.
    pub(crate) async fn guard<T>(
        &self,
        work: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, Cause> {
        tokio::select! {
            biased;
            () = self.wait() => Err(Error::Cancelled.into()),
            result = work => result,
        }
    }
}
