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
#[derive(Default)]
pub(crate) struct Limiter(Lock<HashMap<IpAddr, (f64, Instant)>>);

impl Limiter {
    /// Takes one request of those allowed per second, or says in how many seconds to come again.
    pub(crate) fn admit(&self, address: IpAddr, per_second: Option<f64>) -> Result<(), u64> {
        per_second.map_or(Ok(()), |rate| self.admit_at(address, rate, Instant::now()))
    }

    fn admit_at(&self, address: IpAddr, rate: f64, now: Instant) -> Result<(), u64> {
        let full = (rate * BURST).max(1.0);
        let mut buckets = self.0.lock();
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
        let limiter = Limiter::default();
        let admit = |address, now| limiter.admit_at(address, 0.5, now);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Instant::now();
        let admitted = (0..9).filter(|_| admit(one, now).is_ok()).count();
        assert_eq!(admitted, 5);
        assert_eq!(admit(one, now), Err(2));
        assert_eq!(admit(two, now), Ok(()));
        assert_eq!(admit(one, now + Duration::from_secs(2)), Ok(()));
        assert!(admit(one, now + Duration::from_secs(2)).is_err());
        // Another rate counts at once, whatever is left of the one before.
        assert!(limiter.admit_at(one, 100.0, now + Duration::from_secs(3)).is_ok());
    }
}
