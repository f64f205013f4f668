//! Connections that the kernel follows. Datagrams to a port go where the first of them went: what
//! is known of a port is forgotten when a container takes it.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::nft::{self, FAMILY_HEADER, attributes, messages};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const ORIGINAL: u16 = 1;
const PROTOCOL: u16 = 2;
const UDP: u8 = 17;

/// Forgets what is known of datagrams to these ports of this machine.
pub(super) fn forget_datagrams(ports: &[u16]) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let dump = libc::NLM_F_DUMP as u16;
    socket.send(&nft::message(SUBSYSTEM << 8 | GET, dump, 1, (0, 0), &[]), 0)?;
    let mut found = Vec::new();
    'all: loop {
        let (bytes, _) = socket.recv_from_full()?;
        for (kind, _, rest) in messages(&bytes) {
            match i32::from(kind) {
                libc::NLMSG_DONE | libc::NLMSG_ERROR => break 'all,
                _ => found.extend(flow(rest, ports)),
            }
        }
    }
    for (family, tuple) in found {
        let attribute = nft::nested(ORIGINAL, &tuple);
        // One that has ended meanwhile is forgotten too.
        let message = nft::message(SUBSYSTEM << 8 | DELETE, 0, 2, (family, 0), &attribute);
        socket.send(&message, 0)?;
    }
    Ok(())
}

/// The ends of a flow of datagrams to one of the ports.
fn flow(rest: &[u8], ports: &[u16]) -> Option<(u8, Vec<u8>)> {
    let all = rest.get(FAMILY_HEADER..)?;
    let (_, tuple) = attributes(all).find(|(kind, _)| *kind == ORIGINAL)?;
    let (_, protocol) = attributes(tuple).find(|(kind, _)| *kind == PROTOCOL)?;
    let part = |number: u16| attributes(protocol).find(|(kind, _)| *kind == number);
    let to = u16::from_be_bytes(*part(3)?.1.first_chunk()?);
    let datagrams = part(1)?.1.first() == Some(&UDP);
    (datagrams && ports.contains(&to)).then(|| (rest[0], tuple.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flow_is_known_by_its_port() {
        let port = |number, port: u16| nft::attribute(number, &port.to_be_bytes());
        let protocol = [nft::attribute(1, &[UDP]), port(2, 4000), port(3, 53)].concat();
        let tuple = nft::nested(PROTOCOL, &protocol);
        let rest = [vec![2, 0, 0, 0], nft::nested(ORIGINAL, &tuple)].concat();
        assert_eq!(flow(&rest, &[80, 53]), Some((2, tuple)));
        assert_eq!(flow(&rest, &[4000]), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = flow(&bytes, &[53]);
        }
    }
}
