//! Clients of published ports that the kernel cannot lead to a container: those at `::1`, and those
//! of IPv6 where the container has no such address. They reach the socket that holds the port.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ports::Taker;

const STACK: usize = 128 << 10;
/// How long a connection with a container may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many connections at a time pass through a port; further clients are turned away.
const CONNECTIONS: usize = 4096;
/// How long to wait where no connection can be taken: there are no descriptors left.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// As many clients of a port are known, and forgotten after this time.
const MOST: usize = 256;
const MEMORY: Duration = Duration::from_secs(120);
const LARGEST: usize = 65_535;

/// Counts the connections that are served at a time.
#[derive(Default)]
pub(super) struct ConnectionSlots(AtomicUsize);

/// One of the connections that are served at a time, until this is dropped.
pub(super) struct ConnectionSlot(Arc<ConnectionSlots>);

impl ConnectionSlots {
    /// A seat, if fewer than `most` are taken.
    pub(super) fn take(self: &Arc<ConnectionSlots>, most: usize) -> Option<ConnectionSlot> {
        let seat = ConnectionSlot(Arc::clone(self));
        (self.0.fetch_add(1, Ordering::Relaxed) < most).then_some(seat)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves the ports of a container until it ends.
pub(super) struct Proxy {
    /// Its end wakes all threads.
    _alive: PipeWriter,
}

impl Proxy {
    pub(super) fn start(container: IpAddr, takers: Vec<(Taker, u16)>) -> io::Result<Proxy> {
        let (over, alive) = io::pipe()?;
        for (taker, port) in takers {
            let (over, to) = (over.try_clone()?, SocketAddr::from((container, port)));
            let thread = std::thread::Builder::new().name("port".to_owned()).stack_size(STACK);
            thread.spawn(move || match taker {
                Taker::Tcp(listener) => connections(&listener, &over, to, CONNECTIONS),
                Taker::Udp(socket) => Datagrams { socket, to, flows: HashMap::new() }.run(&over),
            })?;
        }
        Ok(Proxy { _alive: alive })
    }
}

/// Waits for a socket; `false` at the end.
pub(super) fn wait(socket: &impl std::os::fd::AsFd, over: &PipeReader) -> bool {
    let mut waited = [PollFd::new(socket, PollFlags::IN), PollFd::new(over, PollFlags::IN)];
    loop {
        match poll(&mut waited, None) {
            Ok(_) => return waited[1].revents().is_empty(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn connections(listener: &TcpListener, over: &PipeReader, to: SocketAddr, most: usize) {
    let seats = Arc::default();
    while wait(listener, over) {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    std::thread::sleep(PAUSE);
                }
                continue;
            }
        };
        let Some(seat) = ConnectionSlots::take(&seats, most) else { continue };
        let thread = std::thread::Builder::new().name("client".to_owned()).stack_size(STACK);
        let _ = thread.spawn(move || {
            if let Ok(server) = TcpStream::connect_timeout(&to, PATIENCE) {
                join(&client, &server);
            }
            drop(seat);
        });
    }
}

/// Passes bytes between two connections until both have ended.
pub(super) fn join(one: &TcpStream, other: &TcpStream) {
    let pass = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let _ = (one.set_nonblocking(false), other.set_nonblocking(false));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("back".to_owned()).stack_size(STACK);
        match thread.spawn_scoped(scope, || pass(other, one)) {
            Ok(_) => pass(one, other),
            Err(_) => drop(one.shutdown(Shutdown::Both)),
        }
    });
}

/// The clients of a port for datagrams.
struct Datagrams {
    socket: UdpSocket,
    to: SocketAddr,
    flows: HashMap<SocketAddr, (UdpSocket, Instant)>,
}

impl Datagrams {
    fn run(mut self, over: &PipeReader) {
        let mut buffer = vec![0; LARGEST];
        let pause = Timespec { tv_sec: 60, tv_nsec: 0 };
        loop {
            let mut waited =
                vec![PollFd::new(over, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
            let clients: Vec<SocketAddr> = self.flows.keys().copied().collect();
            waited.extend(self.flows.values().map(|(flow, _)| PollFd::new(flow, PollFlags::IN)));
            let idle = Some(&pause).filter(|_| !clients.is_empty());
            let woken = poll(&mut waited, idle);
            if woken.is_err_and(|errno| errno != rustix::io::Errno::INTR) {
                return;
            }
            let woken: Vec<bool> = waited.iter().map(|fd| !fd.revents().is_empty()).collect();
            if woken[0] {
                return;
            }
            for (client, _) in clients.iter().zip(&woken[2..]).filter(|(_, woken)| **woken) {
                self.back(*client, &mut buffer);
            }
            if woken[1] {
                self.forth(&mut buffer);
            }
            self.flows.retain(|_, (_, used)| used.elapsed() < MEMORY);
        }
    }

    fn forth(&mut self, buffer: &mut [u8]) {
        let Ok((count, client)) = self.socket.recv_from(buffer) else { return };
        if !self.flows.contains_key(&client) {
            let flow = (self.flows.len() < MOST).then(|| self.flow()).and_then(Result::ok);
            let Some(flow) = flow else { return };
            self.flows.insert(client, (flow, Instant::now()));
        }
        if let Some((flow, used)) = self.flows.get_mut(&client) {
            *used = Instant::now();
            let _ = flow.send(&buffer[..count]);
        }
    }

    fn flow(&self) -> io::Result<UdpSocket> {
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let flow = UdpSocket::bind((any, 0))?;
        flow.connect(self.to)?;
        flow.set_nonblocking(true)?;
        Ok(flow)
    }

    fn back(&mut self, client: SocketAddr, buffer: &mut [u8]) {
        let Some((flow, used)) = self.flows.get_mut(&client) else { return };
        if let Ok(count) = flow.recv(buffer) {
            *used = Instant::now();
            let _ = self.socket.send_to(&buffer[..count], client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    #[test]
    fn a_client_reaches_the_container_until_the_port_ends() {
        let container = TcpListener::bind(HERE).unwrap();
        let inner = container.local_addr().unwrap().port();
        let listener = TcpListener::bind(HERE).unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let proxy = Proxy::start(at.ip(), vec![(Taker::Tcp(listener), inner)]).unwrap();
        let mut client = TcpStream::connect(at).unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut server, _) = container.accept().unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        server.write_all(b"answer").unwrap();
        drop(server);
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "questionanswer");
        drop(proxy);
        while TcpListener::bind(at).is_err() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_port_turns_clients_away_that_are_too_many() {
        let container = TcpListener::bind(HERE).unwrap();
        let to = container.local_addr().unwrap();
        let listener = TcpListener::bind(HERE).unwrap();
        let at = listener.local_addr().unwrap();
        let (over, alive) = io::pipe().unwrap();
        let server = std::thread::spawn(move || connections(&listener, &over, to, 1));
        let first = TcpStream::connect(at).unwrap();
        let (inner, _) = container.accept().unwrap();
        let mut second = TcpStream::connect(at).unwrap();
        assert!(matches!(second.read(&mut [0]), Ok(0) | Err(_)), "it is turned away");
        drop((first, inner));
        // Its seat is free once it has ended.
        container.set_nonblocking(true).unwrap();
        let served = || {
            let _client = TcpStream::connect(at).unwrap();
            (0..100).any(|_| {
                std::thread::yield_now();
                container.accept().is_ok()
            })
        };
        while !served() {}
        drop(alive);
        server.join().unwrap();
    }

    #[test]
    fn each_client_of_datagrams_gets_its_own_answers() {
        let container = UdpSocket::bind(HERE).unwrap();
        let inner = container.local_addr().unwrap().port();
        let socket = UdpSocket::bind(HERE).unwrap();
        socket.set_nonblocking(true).unwrap();
        let at = socket.local_addr().unwrap();
        let _proxy = Proxy::start(at.ip(), vec![(Taker::Udp(socket), inner)]).unwrap();
        let clients = [UdpSocket::bind(HERE).unwrap(), UdpSocket::bind(HERE).unwrap()];
        for (client, text) in clients.iter().zip(["one", "two"]) {
            client.send_to(text.as_bytes(), at).unwrap();
            let mut buffer = [0; 9];
            let (count, from) = container.recv_from(&mut buffer).unwrap();
            container.send_to(&[&buffer[..count], b"!"].concat(), from).unwrap();
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], format!("{text}!").as_bytes());
        }
    }
}
