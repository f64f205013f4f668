//! A TCP relay that makes what is near seem far: everything takes its time in each direction.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::failure::{Result, context};

/// How long a piece is on its way; a round trip takes twice that.
const ONE_WAY: Duration = Duration::from_millis(10);
/// Pieces on their way, and bytes in one: 64 MiB, far more than any link of 20 ms holds.
const ON_THE_WAY: usize = 256;
const PIECE: usize = 256 << 10;

/// A relay to a port of this machine, closed when dropped.
pub(crate) struct Relay {
    /// Where it listens, on loopback.
    pub(crate) port: u16,
    over: Arc<AtomicBool>,
}

impl Relay {
    pub(crate) fn start(target: u16) -> Result<Relay> {
        let listener = context("starting a relay", TcpListener::bind("127.0.0.1:0"))?;
        let port = context("starting a relay", listener.local_addr())?.port();
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || relay(client, target));
            }
        });
        Ok(Relay { port, over })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Carries one connection. A side that breaks off ends it for the other one as well.
fn relay(client: TcpStream, target: u16) {
    // The handshake, which the kernel has ended already.
    std::thread::sleep(2 * ONE_WAY);
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let back = std::thread::spawn(move || carry(&server, &client));
    carry(&from, &to);
    let _ = back.join();
}

fn carry(mut from: &TcpStream, to: &TcpStream) {
    let (sender, receiver) = sync_channel(ON_THE_WAY);
    std::thread::scope(|scope| {
        scope.spawn(|| deliver(receiver, to));
        let mut buffer = vec![0; PIECE];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + ONE_WAY, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
    });
}

fn deliver(pieces: Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream) {
    for (due, piece) in pieces {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::start(listener.local_addr().unwrap().port()).unwrap();
        let server = std::thread::spawn(move || {
            let (mut server, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            server.write_all(&all).unwrap();
        });
        let sent: Vec<u8> = (0..3 * PIECE).map(|at| (at % 251) as u8).collect();
        let mut client = TcpStream::connect(("127.0.0.1", relay.port)).unwrap();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == sent);
        server.join().unwrap();
    }
}
