//! The name service of a network that the kernel carries: answers about containers, and questions
//! to the machine's name servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::proxy;
use crate::definition::NamedNetwork;

/// As many questions at a time go to other servers.
const MOST: usize = 128;
/// How long one server has for its answer.
const PATIENCE: Duration = Duration::from_secs(4);
const LARGEST: usize = 65_535;
const STACK: usize = 128 << 10;

/// What becomes of a question.
pub(crate) enum Asked {
    /// We know.
    Answer(Vec<u8>),
    /// These servers may know, in this order.
    Others(Vec<SocketAddr>),
}

/// Answers the question of a container, by its address; an empty question asks for the servers.
pub(crate) type Answers = Box<dyn Fn(IpAddr, &[u8]) -> Asked + Send + Sync>;

struct Relay {
    socket: UdpSocket,
    answers: Answers,
    busy: AtomicUsize,
}

/// Takes questions at a port of the network's gateway; gives the port.
pub(super) fn start(network: &NamedNetwork, answers: Answers) -> io::Result<u16> {
    let gateway = network.subnet(false).map(|subnet| subnet.gateway);
    let (socket, listener) = both(gateway.unwrap_or(Ipv4Addr::LOCALHOST.into()))?;
    let port = socket.local_addr()?.port();
    let relay = Arc::new(Relay { socket, answers, busy: AtomicUsize::new(0) });
    let other = Arc::clone(&relay);
    spawn(move || relay.datagrams())?;
    spawn(move || other.connections(&listener))?;
    Ok(port)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("names".to_owned());
    thread.stack_size(STACK).spawn(work).map(drop)
}

/// A port that is free for datagrams and for connections.
fn both(address: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for _ in 0..16 {
        let socket = UdpSocket::bind((address, 0))?;
        match TcpListener::bind(socket.local_addr()?) {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

impl Relay {
    fn datagrams(self: Arc<Relay>) {
        let mut buffer = vec![0; LARGEST];
        loop {
            // An error here is of an answer that could not be delivered.
            let Ok((count, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let question = &buffer[..count];
            match (self.answers)(from.ip(), question) {
                Asked::Answer(answer) => drop(self.socket.send_to(&answer, from)),
                Asked::Others(servers) => self.pass_on(question.to_vec(), from, servers),
            }
        }
    }

    fn pass_on(self: &Arc<Relay>, question: Vec<u8>, from: SocketAddr, servers: Vec<SocketAddr>) {
        if self.busy.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.busy.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let relay = Arc::clone(self);
        let asked = spawn(move || {
            if let Some(answer) = servers.iter().find_map(|server| ask(*server, &question).ok()) {
                let _ = relay.socket.send_to(&answer, from);
            }
            relay.busy.fetch_sub(1, Ordering::Relaxed);
        });
        if asked.is_err() {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn connections(self: Arc<Relay>, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let Ok(from) = stream.peer_addr() else { continue };
            let Asked::Others(servers) = (self.answers)(from.ip(), &[]) else { continue };
            let _ = spawn(move || {
                let connect = |server| TcpStream::connect_timeout(server, PATIENCE).ok();
                if let Some(server) = servers.iter().find_map(connect) {
                    proxy::join(&stream, &server);
                }
            });
        }
    }
}

fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(question)?;
    let mut answer = vec![0; LARGEST];
    let count = socket.recv(&mut answer)?;
    answer.truncate(count);
    Ok(answer)
}
