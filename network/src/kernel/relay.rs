//! The name service of a network in the kernel: answers about containers, and questions
//! to the machine's name servers.

use std::io::{self, PipeReader, PipeWriter};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::proxy::{self, ConnectionSlots};

/// As many questions at a time go to other servers.
const MOST: usize = 128;
/// How long one server has for its answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(30);
const LARGEST: usize = 65_535;
const STACK: usize = 128 << 10;

/// Who answers a DNS query.
pub(crate) enum DnsResolution {
    /// We know.
    Answer(Vec<u8>),
    /// These servers may know, in this order.
    Others(Vec<SocketAddr>),
}

/// Answers the question of a container, by its address; an empty question asks for the servers.
pub(crate) type Answers = Box<dyn Fn(IpAddr, &[u8]) -> DnsResolution + Send + Sync>;

struct Relay {
    socket: UdpSocket,
    answers: Answers,
    seats: Arc<ConnectionSlots>,
}

/// A name service; it ends with this value.
pub(super) struct NameServer {
    /// Where questions are taken.
    pub(super) port: u16,
    /// Its end wakes the threads.
    _alive: PipeWriter,
}

/// Takes questions at these sockets.
pub(super) fn start(
    (socket, listener): (UdpSocket, TcpListener),
    answers: Answers,
) -> io::Result<NameServer> {
    let port = socket.local_addr()?.port();
    socket.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    let (over, alive) = io::pipe()?;
    let relay = Arc::new(Relay { socket, answers, seats: Arc::default() });
    let (other, end) = (Arc::clone(&relay), over.try_clone()?);
    spawn(move || relay.datagrams(&over))?;
    spawn(move || other.connections(&listener, &end))?;
    Ok(NameServer { port, _alive: alive })
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("names".to_owned());
    thread.stack_size(STACK).spawn(work).map(drop)
}

/// A port that is free for datagrams and for connections.
pub(super) fn both(address: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
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
    fn datagrams(self: Arc<Relay>, over: &PipeReader) {
        let mut buffer = vec![0; LARGEST];
        while proxy::wait(&self.socket, over) {
            // An error here is of an answer that could not be delivered.
            let Ok((count, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let question = &buffer[..count];
            match (self.answers)(from.ip(), question) {
                DnsResolution::Answer(answer) => drop(self.socket.send_to(&answer, from)),
                DnsResolution::Others(servers) => self.pass_on(question.to_vec(), from, servers),
            }
        }
    }

    fn pass_on(self: &Arc<Relay>, question: Vec<u8>, from: SocketAddr, servers: Vec<SocketAddr>) {
        let Some(seat) = self.seats.take(MOST) else { return };
        let relay = Arc::clone(self);
        // Without a thread the question is lost, as datagrams are.
        let _ = spawn(move || {
            if let Some(answer) = servers.iter().find_map(|server| ask(*server, &question).ok()) {
                let _ = relay.socket.send_to(&answer, from);
            }
            drop(seat);
        });
    }

    fn connections(self: Arc<Relay>, listener: &TcpListener, over: &PipeReader) {
        let seats = Arc::default();
        while proxy::wait(listener, over) {
            let (stream, from) = match listener.accept() {
                Ok(come) => come,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        std::thread::sleep(proxy::PAUSE);
                    }
                    continue;
                }
            };
            let DnsResolution::Others(servers) = (self.answers)(from.ip(), &[]) else { continue };
            let Some(seat) = ConnectionSlots::take(&seats, MOST) else { continue };
            let _ = spawn(move || {
                let connect = |server| TcpStream::connect_timeout(server, PATIENCE).ok();
                if let Some(server) = servers.iter().find_map(connect) {
                    // Who says nothing does not keep the seat.
                    let idle = [&stream, &server].map(|one| one.set_read_timeout(Some(IDLE)));
                    if idle.iter().all(Result::is_ok) {
                        proxy::join(&stream, &server);
                    }
                }
                drop(seat);
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
