//! `--watch` and `--schedule`: repeat the run until a signal stops it.

use std::sync::mpsc;
use std::time::Duration;

use chrono::Local;
use croner::Cron;
use options::Failure;
use task::Kind;

/// How long the clock is trusted to go on as it does.
const TRUSTED: Duration = Duration::from_secs(60);

/// When the next round begins.
pub(super) enum Pause {
    /// After this time.
    After(Duration),
    /// At these times.
    At(Box<Cron>),
}

/// A cron expression.
pub(super) fn cron(text: &str) -> Result<Cron, String> {
    text.parse().map_err(|error: croner::errors::CronError| error.to_string())
}

/// Works, pauses, works; with times given the first round waits as well. A failure is printed, and
/// the next round tries again; a signal ends it, between two rounds or within one.
///
/// # Errors
/// The first round's, if it is one of wrong use: it would not go away. There is no next time.
pub(super) fn again(
    pause: &Pause,
    mut round: impl FnMut() -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let mut waits = matches!(pause, Pause::At(_));
    loop {
        if waits && stopped_in(pause)? {
            return Ok(0);
        }
        waits = true;
        match round() {
            Ok(()) => {}
            Err(failure) if failure.kind == Kind::Cancelled => return Err(failure),
            Err(failure) if failure.kind == Kind::Invalid => return Err(failure),
            Err(failure) => app::report::print(failure),
        }
    }
}

/// Waits; whether a signal came.
fn stopped_in(pause: &Pause) -> Result<bool, Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let (send, stopped) = mpsc::channel();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .map_err(|error| Failure::io("waiting for signals", &error))?;
    let handle = signals.handle();
    let waiter = std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = send.send(());
        }
    });
    let ended = match pause {
        Pause::After(time) => Ok(stopped.recv_timeout(*time).is_ok()),
        Pause::At(times) => stopped_before(times, &stopped),
    };
    handle.close();
    let _ = waiter.join();
    ended
}

/// Waits for the next of the times by the clock of the wall, which may be set meanwhile.
fn stopped_before(times: &Cron, stopped: &mpsc::Receiver<()>) -> Result<bool, Failure> {
    let next = times
        .find_next_occurrence(&Local::now(), false)
        .map_err(|error| Failure::new(Kind::Invalid, format!("--schedule {times}: {error}")))?;
    while let Ok(left) = (next - Local::now()).to_std() {
        if stopped.recv_timeout(left.min(TRUSTED)).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}
