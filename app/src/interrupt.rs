//! Work that a signal ends: the task is cancelled, and everything that is waited for hears of it.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use options::Failure;
use options::progress::Progress;
use task::{Canceller, Task};
use tokio::sync::watch;

use ::progress::ProgressDisplay;

/// Whether a signal asked for the end.
static INTERRUPTED: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// What a signal stops besides the work that is shown.
static STOPPED: Mutex<Vec<Canceller>> = Mutex::new(Vec::new());

/// What a signal cancelled has this long to end by itself. Nothing relies on it.
const GRACE: Duration = Duration::from_millis(800);

/// Ready a moment after a signal asked for the end.
pub(crate) async fn passed() {
    let mut receiver = INTERRUPTED.subscribe();
    // The sender lives as long as the process.
    let _ = receiver.wait_for(|interrupted| *interrupted).await;
    tokio::time::sleep(GRACE).await;
}

/// Shows progress while `work` runs and stops it on the first SIGINT or SIGTERM; the second ends
/// the process at once.
///
/// # Errors
/// Those of `work`.
pub fn observed<T>(
    name: &str,
    progress: Progress,
    work: impl FnOnce(&Task) -> Result<T, Failure>,
) -> Result<T, Failure> {
    observed_by(name, &options::progress::observer(progress), work)
}

/// As [`observed`], shown in this way.
pub fn observed_by<T>(
    name: &str,
    rendering: &ProgressDisplay,
    work: impl FnOnce(&Task) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let task = Task::root(name, rendering.observer());
    let canceller = task.canceller();
    let stopping = on_signals(move || canceller.cancel());
    let result = work(&task);
    match &result {
        Ok(_) => task.done(),
        Err(_) => drop(task),
    }
    if let Err(error) = rendering.close() {
        eprintln!("warning: the trace is incomplete: {error}");
    }
    drop(stopping);
    result
}

/// A task that shows nothing and that no signal ends: signals go to the container. The log hears of
/// it.
pub fn quiet_task(name: &str) -> Task {
    Task::root(name, options::progress::observer(Progress::Quiet).observer())
}

/// A task that shows nothing, and that a signal ends while one is listened to.
pub fn stopped_task(name: &str) -> Task {
    let task = quiet_task(name);
    STOPPED.lock().unwrap_or_else(PoisonError::into_inner).push(task.canceller());
    task
}

/// Takes the handlers back when dropped.
struct HandlerGuard(Option<signal_hook::iterator::Handle>);

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.close();
        }
    }
}

fn on_signals(cancel: impl Fn() + Send + 'static) -> HandlerGuard {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else {
        return HandlerGuard(None);
    };
    let handle = signals.handle();
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                // Nothing relies on cleaning up: the store is crash-only.
                std::process::exit(130);
            }
            cancel();
            let stopped = STOPPED.lock().unwrap_or_else(PoisonError::into_inner);
            stopped.iter().for_each(Canceller::cancel);
            INTERRUPTED.send_replace(true);
        }
    });
    HandlerGuard(Some(handle))
}
