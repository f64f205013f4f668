//! `--watch`: repeats the run after a pause until a signal stops it.

use std::sync::mpsc;
use std::time::Duration;

use task::Kind;

use crate::report::Failure;

/// Works, pauses, works. A failure is printed, and the next round tries again; a signal ends it,
/// between two rounds or within one.
///
/// # Errors
/// The first round's, if it is one of wrong use: it would not go away.
pub(super) fn again(
    pause: Duration,
    mut round: impl FnMut() -> Result<(), Failure>,
) -> Result<u8, Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    loop {
        match round() {
            Ok(()) => {}
            Err(failure) if failure.kind == Kind::Cancelled => return Err(failure),
            Err(failure) if failure.kind == Kind::Invalid => return Err(failure),
            Err(failure) => failure.print(),
        }
        let (send, stopped) = mpsc::channel();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
            .map_err(|error| Failure::io("waiting for signals", &error))?;
        let handle = signals.handle();
        let waiter = std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                let _ = send.send(());
            }
        });
        let ended = stopped.recv_timeout(pause).is_ok();
        handle.close();
        let _ = waiter.join();
        if ended {
            return Ok(0);
        }
    }
}
