//! Published ports: clients of this machine's ports become connections and flows to a container.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use smoltcp::time::Instant;

use super::engine::{BATCH, Engine, Entry, FlowKey, FlowKind, MANY};
use super::policy::elsewhere;
use super::tcp::Connection;
use super::udp::Flow;
use crate::ports::Taker;

/// The socket of a published port.
pub(super) struct PortListener {
    pub(super) endpoint: u64,
    taker: Taker,
    /// The same socket, for answers to datagrams.
    answers: Arc<OwnedFd>,
    container: u16,
}

impl Engine {
    /// Takes what comes to published ports of a container.
    pub(super) fn publish(&mut self, endpoint: u64, takers: Vec<(Taker, u16)>) -> io::Result<()> {
        for (taker, container) in takers {
            let id = self.next;
            self.next += 1;
            let socket = match &taker {
                Taker::Tcp(listener) => listener.as_fd(),
                Taker::Udp(socket) => socket.as_fd(),
            };
            epoll::add(&self.epoll, socket, EventData::new_u64(id), EventFlags::IN)?;
            let answers = Arc::new(socket.try_clone_to_owned()?);
            self.doors.insert(id, PortListener { endpoint, taker, answers, container });
        }
        Ok(())
    }

    /// Clients have come to a published port.
    pub(super) fn knocked(&mut self, id: u64, now: Instant) {
        for _ in 0..BATCH {
            let Some(door) = self.doors.get(&id) else { return };
            match &door.taker {
                Taker::Tcp(listener) => {
                    let Ok((stream, client)) = listener.accept() else { return };
                    let (endpoint, container) = (door.endpoint, door.container);
                    self.admit(stream.into(), client, (endpoint, container), now);
                }
                Taker::Udp(socket) => {
                    let Ok((count, client)) = socket.recv_from(&mut self.datagram) else { return };
                    let answers = Arc::clone(&door.answers);
                    let place = (door.endpoint, door.container);
                    self.pass_in(answers, client, place, count, now);
                }
            }
        }
    }

    /// Connects a client of a published port with the container; without room for him, he is
    /// dropped.
    fn admit(&mut self, socket: OwnedFd, client: SocketAddr, place: (u64, u16), now: Instant) {
        let Some(ends) = self.inside(client, place) else { return };
        let many = self.connections > MANY;
        let full = self.connections >= self.limits.connections;
        if full || self.keys.contains_key(&FlowKey(FlowKind::Tcp, ends.0, ends.1)) {
            return;
        }
        if rustix::io::ioctl_fionbio(&socket, true).is_err() {
            return;
        }
        if let Some(mut connection) = Connection::inward(ends, socket, many, now, &mut self.out) {
            let verdict = connection.exchange(None, now, &mut self.out);
            self.connections += 1;
            let id = self.next;
            if self.add(FlowKind::Tcp, ends, Entry::Tcp(connection), None) {
                self.judge(id, verdict);
            }
        }
    }

    /// Passes a datagram of a client of a published port on.
    fn pass_in(
        &mut self,
        answers: Arc<OwnedFd>,
        client: SocketAddr,
        place: (u64, u16),
        count: usize,
        now: Instant,
    ) {
        let Some(ends) = self.inside(client, place) else { return };
        let key = FlowKey(FlowKind::Udp, ends.0, ends.1);
        let known = self.keys.get(&key).and_then(|id| self.entries.get_mut(id));
        match known {
            Some((Entry::Udp(flow), _)) => flow.touch(now),
            Some(_) => return,
            None => {
                if self.entries.len() - self.connections >= self.limits.flows {
                    self.drop_oldest_flow();
                }
                let flow = Flow::inward(ends, answers, client, now);
                let deadline = Some(flow.ends());
                self.add(FlowKind::Udp, ends, Entry::Udp(flow), deadline);
            }
        }
        self.out.udp(ends.1, ends.0, &self.datagram[..count]);
    }

    /// The two ends of what a client of a published port begins, as the container sees them: the
    /// client's own address, unless the container could not answer there.
    fn inside(
        &self,
        client: SocketAddr,
        (endpoint, port): (u64, u16),
    ) -> Option<(SocketAddr, SocketAddr)> {
        let endpoint = self.endpoints.get(&endpoint)?;
        let [four, six] = endpoint.own;
        let seen = match client.ip().to_canonical() {
            IpAddr::V6(_) if !endpoint.ipv6 => self.policy.machine(four),
            address if !elsewhere(address) || self.policy.ours(address) => {
                self.policy.machine(address)
            }
            address => address,
        };
        let own = if seen.is_ipv4() { four } else { six };
        Some(((own, port).into(), (seen, client.port()).into()))
    }
}
