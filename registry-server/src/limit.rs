//! How many requests an address may make.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::lock::Lock;

/// Addresses that are remembered.
const ADDRESSES: usize = 10_000;
/// So many seconds' worth of requests may come at once.
const BURST: f64 = 10.0;

/// A bucket per address that fills with time and is emptied by requests.
pub(crate) struct Limiter {
    per_second: Option<f64>,
    buckets: Lock<HashMap<IpAddr, (f64, Instant)>>,
}

impl Limiter {
    pub(crate) fn new(per_second: Option<f64>) -> Limiter {
        Limiter { per_second, buckets: Lock::default() }
    }

    /// Takes one request, or says in how many seconds to come again.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<(), u64> {
        self.admit_at(address, Instant::now())
    }

    fn admit_at(&self, address: IpAddr, now: Instant) -> Result<(), u64> {
        let Some(rate) = self.per_second else { return Ok(()) };
        let full = (rate * BURST).max(1.0);
        let mut buckets = self.buckets.lock();
        if buckets.len() >= ADDRESSES {
            // Who was quiet for long enough has a full bucket, and need not be remembered.
            buckets.retain(|_, (_, at)| now.duration_since(*at).as_secs_f64() < BURST);
        }
        let (left, at) = buckets.entry(address).or_insert((full, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * rate).min(full);
        *at = now;
        if *left >= 1.0 {
            *left -= 1.0;
            return Ok(());
        }
        Err(((1.0 - *left) / rate).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_then_a_rate() {
        let limiter = Limiter::new(Some(0.5));
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Instant::now();
        let admitted = (0..9).filter(|_| limiter.admit_at(one, now).is_ok()).count();
        assert_eq!(admitted, 5);
        assert_eq!(limiter.admit_at(one, now), Err(2));
        assert_eq!(limiter.admit_at(two, now), Ok(()));
        assert_eq!(limiter.admit_at(one, now + Duration::from_secs(2)), Ok(()));
        assert!(limiter.admit_at(one, now + Duration::from_secs(2)).is_err());
    }
}
