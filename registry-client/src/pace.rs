//! Rate limits: no request goes to a registry during the pause it asks for, and then requests start
//! further apart until it accepts them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::time::Instant;

/// The distance of requests after the first refusal; doubles with each.
const FIRST: Duration = Duration::from_millis(100);
/// The largest distance.
const LARGEST: Duration = Duration::from_secs(5);
/// So many answers without a refusal halve the distance.
const CONTENT: u32 = 20;

/// When the next request to a host may start.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<PaceState>);

#[derive(Debug, Default)]
struct PaceState {
    /// The pause the registry wants.
    until: Option<Instant>,
    /// When the last request was let go, or will be.
    last: Option<Instant>,
    gap: Duration,
    content: u32,
    budget: Option<RateLimit>,
}

/// How many requests a registry says are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in all.
    pub limit: u64,
    /// Requests left.
    pub left: u64,
    /// In how many seconds, where it says.
    pub window: Option<u64>,
}

impl Pace {
    fn lock(&self) -> std::sync::MutexGuard<'_, PaceState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the start of a request.
    pub(crate) async fn start(&self) {
        loop {
            let (at, paused) = self.next();
            if let Some(at) = at {
                tokio::time::sleep_until(at).await;
            }
            if !paused {
                return;
            }
        }
    }

    /// What to wait for, if for anything, and whether that is a pause of the registry's, after
    /// which there may be another.
    fn next(&self) -> (Option<Instant>, bool) {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(until) = state.until.filter(|until| *until > now) {
            return (Some(until), true);
        }
        if state.gap.is_zero() {
            return (None, false);
        }
        let next = state.last.map_or(now, |last| (last + state.gap).max(now));
        state.last = Some(next);
        (Some(next), false)
    }

    /// Allows no request before `until`.
    pub(crate) fn pause(&self, until: Instant) {
        let mut state = self.lock();
        state.until = Some(state.until.map_or(until, |already| already.max(until)));
    }

    /// It was too much.
    pub(crate) fn refused(&self) {
        let mut state = self.lock();
        state.gap = (state.gap * 2).clamp(FIRST, LARGEST);
        state.content = 0;
    }

    /// Records the budget in a response.
    pub(crate) fn answered(&self, headers: &HeaderMap) {
        let budget = budget(headers);
        let mut state = self.lock();
        state.budget = budget.or(state.budget);
        if state.gap.is_zero() {
            return;
        }
        state.content += 1;
        if state.content >= CONTENT {
            state.content = 0;
            state.gap = if state.gap <= FIRST { Duration::ZERO } else { state.gap / 2 };
        }
    }

    /// The remaining budget, for a message.
    pub(crate) fn left(&self) -> Option<RateLimit> {
        self.lock().budget
    }
}

impl std::fmt::Display for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} requests left", self.left, self.limit)?;
        match self.window {
            Some(window) if window >= 3600 && window % 3600 == 0 => {
                write!(f, " in {} h", window / 3600)
            }
            Some(window) => write!(f, " in {window} s"),
            None => Ok(()),
        }
    }
}

/// `RateLimit-Limit: 100;w=21600` and `RateLimit-Remaining: 76;w=21600` as Docker Hub sends them,
/// or the same with `X-` in front.
fn budget(headers: &HeaderMap) -> Option<RateLimit> {
    let number = |name: &str| {
        let text = headers.get(name).or_else(|| headers.get(format!("x-{name}")))?.to_str().ok()?;
        let mut parts = text.split([';', ',']).map(str::trim);
        let number = parts.next()?.parse::<u64>().ok()?;
        let window = parts.find_map(|part| part.strip_prefix("w=")?.parse::<u64>().ok());
        Some((number, window))
    };
    let (limit, window) = number("ratelimit-limit")?;
    let (left, other) = number("ratelimit-remaining")?;
    Some(RateLimit { limit, left, window: window.or(other) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (reqwest::header::HeaderName::from_static(name), value.parse().unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn budgets() {
        let hub = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "7;w=21600")];
        let budget = budget(&headers(&hub)).unwrap();
        assert_eq!(budget.to_string(), "7 of 100 requests left in 6 h");
        let other = [("x-ratelimit-limit", "60"), ("x-ratelimit-remaining", "0")];
        assert_eq!(super::budget(&headers(&other)).unwrap().to_string(), "0 of 60 requests left");
        for odd in [
            &[("ratelimit-limit", "100")][..],
            &[("ratelimit-limit", "x"), ("ratelimit-remaining", "1")],
            &[("ratelimit-limit", "-1"), ("ratelimit-remaining", "1")],
        ] {
            assert_eq!(super::budget(&headers(odd)), None, "{odd:?}");
        }
    }

    #[test]
    fn requests_go_apart_after_a_refusal_and_together_again() {
        let pace = Pace::default();
        assert_eq!(pace.next(), (None, false));
        pace.refused();
        pace.refused();
        let starts: Vec<_> = (0..4).map(|_| pace.next().0.unwrap()).collect();
        for pair in starts.windows(2) {
            assert!(pair[1] - pair[0] >= 2 * FIRST);
        }
        for _ in 0..20 {
            pace.refused();
        }
        let last = pace.next().0.unwrap();
        assert!(pace.next().0.unwrap() - last <= LARGEST);
        for _ in 0..10 * CONTENT {
            pace.answered(&HeaderMap::new());
        }
        assert_eq!(pace.next(), (None, false));
        let until = Instant::now() + Duration::from_secs(600);
        pace.pause(until);
        pace.pause(until - Duration::from_secs(60));
        assert_eq!(pace.next(), (Some(until), true));
    }
}
