use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use task::{Fault, Kind};

use crate::{Error, Options};

/// How often nobody may be connected to, or a timeout pass, before it is given up: a mistyped
/// name should not take long to be told, and timeouts add up.
const LOST: u32 = 2;
/// The longest pause of our own choosing.
const LONGEST: Duration = Duration::from_secs(20);

/// An error, and how long the registry asked to be left alone.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) after: Option<Duration>,
    /// Whether it was tried again already, below.
    pub(crate) settled: bool,
}

impl Failure {
    pub(crate) fn settled(error: Error) -> Failure {
        Failure { error, after: None, settled: true }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, after: None, settled: false }
    }
}

/// Counts the attempts at one thing.
pub(crate) struct Attempts {
    left: u32,
    lost: u32,
    pause: Duration,
    longest: Duration,
}

impl Attempts {
    pub(crate) fn new(options: &Options) -> Attempts {
        Attempts {
            left: options.retries,
            lost: 0,
            pause: options.backoff,
            longest: options.timeouts.pause,
        }
    }

    /// No attempt after the first.
    pub(crate) fn none(mut self) -> Attempts {
        self.left = 0;
        self
    }

    /// Pauses before the next attempt, or gives the error back when there is none: the fault will
    /// not pass, the attempts are used up, the thing cannot be done twice, or the registry asks
    /// for a longer pause than allowed.
    pub(crate) async fn again(&mut self, failure: Failure, restartable: bool) -> Result<(), Error> {
        let Failure { error, after, settled } = failure;
        let waits = after.is_none_or(|after| after <= self.longest);
        if self.left == 0 || settled || !restartable || !waits || error.kind() != Kind::Unavailable
        {
            return Err(error);
        }
        self.left -= 1;
        self.lost += u32::from(match &error {
            Error::Connection { source, .. } => source.is_connect(),
            Error::Timeout { .. } => true,
            _ => false,
        });
        if self.lost >= LOST {
            return Err(error);
        }
        let pause = match after {
            Some(after) => after,
            None => jittered(self.pause),
        };
        tracing::debug!(%error, ?pause, "trying again");
        self.pause = self.pause.saturating_mul(2).min(LONGEST);
        tokio::time::sleep(pause).await;
        Ok(())
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

    fn failure(status: u16, after: Option<u64>) -> Failure {
        let error = Error::Answer {
            registry: "r".into(),
            action: "a".into(),
            status,
            code: String::new(),
            message: String::new(),
        };
        Failure { error, after: after.map(Duration::from_secs), settled: false }
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

    #[test]
    fn jitter_stays_between_half_and_all() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(1));
            assert!((0.5..=1.0).contains(&pause.as_secs_f64()), "{pause:?}");
        }
    }
}
