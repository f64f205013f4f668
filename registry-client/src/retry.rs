use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use task::{Fault, Kind};
use tokio::time::Instant;

use crate::{Error, Options};

/// How many failed connections or timeouts are allowed: a mistyped name should fail quickly.
const LOST: u32 = 2;
/// The longest pause of our own choosing.
const LONGEST: Duration = Duration::from_secs(20);

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Whatever may pass.
    Passing,
    /// Only what the registry asks to come back with later.
    Limits,
    /// Nothing.
    Never,
}

/// An error, and how long the registry asked to be left alone.
pub(crate) struct RequestFailure {
    pub(crate) error: Error,
    pub(crate) after: Option<Duration>,
    /// Whether it was tried again already, below.
    pub(crate) settled: bool,
}

impl RequestFailure {
    pub(crate) fn settled(error: Error) -> RequestFailure {
        RequestFailure { error, after: None, settled: true }
    }

    fn is_limit(&self) -> bool {
        self.after.is_some() || matches!(self.error, Error::Answer { status: 429, .. })
    }
}

impl From<Error> for RequestFailure {
    fn from(error: Error) -> RequestFailure {
        RequestFailure { error, after: None, settled: false }
    }
}

/// Counts the attempts at one thing, and the time in which nothing comes of it. Loops inside one
/// another share one end ([`Attempts::until`]), so that their waits do not add up.
pub(crate) struct Attempts {
    retry: Retry,
    retries: u32,
    left: u32,
    lost: u32,
    backoff: Duration,
    pause: Duration,
    longest: Duration,
    patience: Duration,
    until: Instant,
}

impl Attempts {
    pub(crate) fn new(options: &Options) -> Attempts {
        Attempts {
            retry: Retry::Passing,
            retries: options.retries,
            left: options.retries,
            lost: 0,
            backoff: options.backoff,
            pause: options.backoff,
            longest: options.timeouts.pause,
            patience: options.patience,
            until: Instant::now() + options.patience,
        }
    }

    /// Only this is tried again.
    pub(crate) fn only(mut self, retry: Retry) -> Attempts {
        self.retry = retry;
        self
    }

    /// Ends when the caller stops waiting.
    pub(crate) fn by(mut self, until: Option<Instant>) -> Attempts {
        self.until = until.unwrap_or(self.until);
        self
    }

    /// When it is given up.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Something came of it: a fault from here on is the first.
    pub(crate) fn progressed(&mut self) {
        (self.left, self.lost, self.pause) = (self.retries, 0, self.backoff);
        self.until = Instant::now() + self.patience;
    }

    /// Pauses before the next attempt and returns the failure of this one. It is an error if there
    /// is no next attempt: the fault is permanent, the attempts or the time are used up, the
    /// operation cannot be repeated, or the registry asks for a longer pause than allowed.
    pub(crate) async fn again(
        &mut self,
        failure: RequestFailure,
        restartable: bool,
    ) -> Result<Error, Error> {
        let wanted = match self.retry {
            Retry::Passing => true,
            Retry::Limits => failure.is_limit(),
            Retry::Never => false,
        };
        let RequestFailure { error, after, settled } = failure;
        let waits = after.is_none_or(|after| after <= self.longest);
        let passing = error.kind() == Kind::Unavailable;
        if self.left == 0 || settled || !restartable || !waits || !passing || !wanted {
            return Err(error);
        }
        self.left -= 1;
        self.lost += u32::from(match &error {
            Error::Connection { source, .. } => source.is_connect(),
            Error::Timeout { .. } => true,
            _ => false,
        });
        let pause = after.unwrap_or_else(|| jittered(self.pause));
        if self.lost >= LOST || Instant::now() + pause >= self.until {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "trying again");
        self.pause = self.pause.saturating_mul(2).min(LONGEST);
        tokio::time::sleep(pause).await;
        Ok(error)
    }
}

/// Between half of the pause and all of it, so that clients that failed together do not come
/// back together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let share = 0.5 + (random % 1024) as f64 / 2048.0;
    pause.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, after: Option<u64>) -> RequestFailure {
        let error = Error::Answer {
            registry: "r".into(),
            action: "a".into(),
            status,
            code: String::new(),
            message: String::new(),
        };
        RequestFailure { error, after: after.map(Duration::from_secs), settled: false }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn attempts_end() {
        let options = Options { retries: 2, backoff: Duration::ZERO, ..Options::default() };
        let mut attempts = Attempts::new(&options);
        assert!(attempts.again(failure(503, None), true).await.is_ok());
        assert!(attempts.again(failure(429, Some(0)), true).await.is_ok());
        assert!(attempts.again(failure(503, None), true).await.is_err());
        for (status, after, restartable) in
            [(404, None, true), (503, None, false), (429, Some(86400), true)]
        {
            let mut attempts = Attempts::new(&options);
            assert!(attempts.again(failure(status, after), restartable).await.is_err());
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn attempts_end_together_when_nothing_comes_of_them_and_start_afresh_after_progress() {
        let options = Options {
            retries: 1000,
            backoff: Duration::from_secs(1),
            patience: Duration::from_secs(60),
            ..Options::default()
        };
        let (mut attempts, began) = (Attempts::new(&options), Instant::now());
        let mut inner = Attempts::new(&options).by(Some(attempts.until()));
        while attempts.again(failure(503, None), true).await.is_ok() {}
        assert!(began.elapsed() <= options.patience, "{:?}", began.elapsed());
        assert!(inner.again(failure(429, Some(20)), true).await.is_err());
        attempts.progressed();
        assert!(attempts.again(failure(429, Some(50)), true).await.is_ok());
        assert!(attempts.again(failure(429, Some(50)), true).await.is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_asked_once_waits_for_a_limit_only() {
        let options = Options { backoff: Duration::ZERO, ..Options::default() };
        for (retry, failed, expected) in [
            (Retry::Limits, failure(500, None), false),
            (Retry::Limits, failure(429, None), true),
            (Retry::Limits, failure(503, Some(0)), true),
            (Retry::Never, failure(429, Some(0)), false),
        ] {
            let mut attempts = Attempts::new(&options).only(retry);
            assert_eq!(attempts.again(failed, true).await.is_ok(), expected, "{retry:?}");
        }
    }

    #[test]
    fn jitter_stays_between_half_and_all() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(1));
            assert!((0.5..=1.0).contains(&pause.as_secs_f64()), "{pause:?}");
        }
    }
}
