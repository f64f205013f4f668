//! Signals for a runtime in the foreground.

/// Passes INT, TERM, HUP, QUIT, USR1 and USR2 on to the container's first process.
pub(super) fn forward_signals(pid: u32) -> Option<SignalForwarder> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let all = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    let mut signals = signal_hook::iterator::Signals::new(all).ok()?;
    let handle = signals.handle();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    });
    Some(SignalForwarder(handle))
}

/// Signals are passed on as long as this lives.
pub(super) struct SignalForwarder(signal_hook::iterator::Handle);

impl Drop for SignalForwarder {
    fn drop(&mut self) {
        self.0.close();
    }
}
