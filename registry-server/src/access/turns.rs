//! Slow checks in turn: a few at once, and a few waiting per address, so that a guesser delays
//! neither other requests nor clients at other addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::lock::Lock;

/// Checks that run at the same time, on threads beside those that serve.
const AT_ONCE: usize = 2;
/// Checks of one address that run or wait.
const PER_ADDRESS: usize = 8;
/// Checks that run or wait in all.
const IN_ALL: usize = 64;

/// Who is being checked.
pub(crate) struct Turns {
    running: Arc<Semaphore>,
    waiting: Lock<HashMap<IpAddr, usize>>,
}

impl Default for Turns {
    fn default() -> Self {
        Turns { running: Arc::new(Semaphore::new(AT_ONCE)), waiting: Lock::default() }
    }
}

/// Too many passwords are being checked; the client tries again later.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overload;

/// A place in the line; given up when dropped.
struct Place<'a> {
    turns: &'a Turns,
    address: IpAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.turns.waiting.lock();
        if let Some(count) = waiting.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.address);
            }
        }
    }
}

impl Turns {
    fn place(&self, address: IpAddr) -> Result<Place<'_>, Overload> {
        let mut waiting = self.waiting.lock();
        let here = waiting.get(&address).copied().unwrap_or(0);
        if here >= PER_ADDRESS || waiting.values().sum::<usize>() >= IN_ALL {
            return Err(Overload);
        }
        waiting.insert(address, here + 1);
        Ok(Place { turns: self, address })
    }

    /// Does work that keeps a processor busy when it is this address's turn. `None` if it panicked.
    ///
    /// # Errors
    /// [`Overload`], at once.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        address: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Overload> {
        let _place = self.place(address)?;
        let Ok(turn) = Arc::clone(&self.running).acquire_owned().await else { return Ok(None) };
        // Work that began continues without a waiter, and holds its turn so long.
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        Ok(work.await.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn guesses_from_one_address_leave_room_for_others() {
        let turns = Arc::new(Turns::default());
        let [guesser, other] = [[127, 0, 0, 2], [127, 0, 0, 1]].map(IpAddr::from);
        let (go, gates): (Vec<_>, Vec<_>) = (0..PER_ADDRESS).map(|_| channel::<()>()).unzip();
        let (ended, ends) = channel();
        let mut guesses = Vec::new();
        for gate in gates {
            let (turns, ended) = (Arc::clone(&turns), ended.clone());
            guesses.push(tokio::spawn(async move {
                let work = move || {
                    let _ = gate.recv();
                    let _ = ended.send("guess");
                };
                turns.take(guesser, work).await
            }));
        }
        while turns.waiting.lock().get(&guesser) != Some(&PER_ADDRESS) {
            tokio::task::yield_now().await;
        }
        // 600 more guesses are refused at once; another address has a place.
        for _ in 0..600 {
            assert_eq!(turns.take(guesser, || ()).await, Err(Overload));
        }
        let waits = Arc::clone(&turns);
        let person =
            tokio::spawn(
                async move { waits.take(other, move || ended.send("person").is_ok()).await },
            );
        while turns.waiting.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
        for gate in go {
            gate.send(()).unwrap();
        }
        assert_eq!(person.await.unwrap(), Ok(Some(true)));
        for guess in guesses {
            assert_eq!(guess.await.unwrap(), Ok(Some(())));
        }
        assert_eq!(ends.iter().filter(|end| *end == "person").count(), 1);
        assert!(turns.waiting.lock().is_empty());
    }
}
