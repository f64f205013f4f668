//! Rules of the kernel's packet filter (nftables), over nfnetlink: a batch of changes that happen
//! together, or not at all.
//!
//! The numbers are those of `linux/netfilter/nf_tables.h` and `nfnetlink.h`.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::sys;

/// Room for a batch with the rules of many containers.
const ROOM: i32 = 64 << 20;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const DEL_RULE: u16 = 8;
/// The table ends with the socket that made it, and nobody else can change it.
const OWNER: u32 = 2;
const NESTED: u16 = 1 << 15;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;

const HEADER: usize = 16;
pub(super) const FAMILY_HEADER: usize = 4;

/// Of which packets a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Of IPv4 and IPv6.
    Inet,
    /// Of frames that pass a bridge.
    Bridge,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Bridge => 7,
        }
    }
}

/// Where the kernel asks a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub(super) number: u32,
    /// Smaller ones are asked first.
    pub(super) priority: i32,
}

/// The number of the hook for what is passed on.
pub(super) const FORWARD: u32 = 2;

/// An attribute, padded.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute with a number.
pub(super) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// An attribute with a text.
pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// An attribute of attributes.
pub(super) fn nested(kind: u16, inner: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, inner)
}

/// A message with its headers.
pub(super) fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    rest: &[u8],
) -> Vec<u8> {
    let length = (HEADER + FAMILY_HEADER + rest.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// Changes that happen together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    messages: Vec<(u16, u16, u8, Vec<u8>)>,
}

impl Batch {
    fn add(&mut self, kind: u16, flags: u16, family: Family, attributes: Vec<u8>) {
        self.messages.push((SUBSYSTEM << 8 | kind, flags, family.number(), attributes));
    }

    /// Makes a table that ends with the connection.
    pub(super) fn table(&mut self, family: Family, name: &str) {
        self.add(NEW_TABLE, CREATE, family, [text(1, name), number(2, OWNER)].concat());
    }

    /// Removes a table with all that is in it.
    pub(super) fn remove(&mut self, family: Family, name: &str) {
        self.add(DEL_TABLE, 0, family, text(1, name));
    }

    /// Makes a chain that accepts what no rule decides about.
    pub(super) fn chain(&mut self, family: Family, table: &str, name: &str, hook: Hook) {
        let place = [number(1, hook.number), number(2, hook.priority as u32)].concat();
        let attributes = [text(1, table), text(3, name), nested(4, &place), text(7, hook.kind)];
        self.add(NEW_CHAIN, CREATE, family, attributes.concat());
    }

    /// Takes all rules out of a table.
    pub(super) fn flush(&mut self, family: Family, table: &str) {
        self.add(DEL_RULE, 0, family, text(1, table));
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        expressions: &[Vec<u8>],
    ) {
        let list: Vec<u8> = expressions.iter().flat_map(|one| nested(1, one)).collect();
        let attributes = [text(1, table), text(2, chain), nested(4, &list)].concat();
        self.add(NEW_RULE, CREATE | APPEND, family, attributes);
    }
}

/// A chain of any program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ForeignChain {
    pub(super) table: String,
    pub(super) name: String,
    /// The hook, if the kernel asks it.
    pub(super) hook: Option<u32>,
    /// Whether it drops what no rule decides about.
    pub(super) drops: bool,
}

/// A connection with the packet filter of the network namespace of its thread.
#[derive(Debug)]
pub(super) struct Nft {
    socket: Socket,
    sequence: u32,
}

impl Nft {
    pub(super) fn open() -> io::Result<Nft> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        sys::enlarge(&socket, ROOM)?;
        socket.set_cap_ack(true)?;
        Ok(Nft { socket, sequence: 0 })
    }

    /// Makes all changes of a batch, or none.
    pub(super) fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        let first = self.sequence + 1;
        let mut bytes = message(BATCH_BEGIN, 0, first, (0, SUBSYSTEM), &[]);
        let last = first + batch.messages.len() as u32;
        for (sequence, (kind, flags, family, attributes)) in (first + 1..).zip(&batch.messages) {
            let flags = if sequence == last { flags | ACK } else { *flags };
            bytes.extend(message(*kind, flags, sequence, (*family, 0), attributes));
        }
        bytes.extend(message(BATCH_END, 0, last + 1, (0, SUBSYSTEM), &[]));
        self.sequence = last + 1;
        self.socket.send(&bytes, 0)?;
        let mut failed = None;
        loop {
            for (sequence, code) in answers(&self.socket.recv_from_full()?.0) {
                if let Some(code) = code.filter(|code| *code != 0) {
                    failed.get_or_insert(io::Error::from_raw_os_error(-code));
                }
                // The batch as a whole is refused by its first number.
                if sequence == last || (sequence == first && failed.is_some()) {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// All chains of all tables.
    pub(super) fn chains(&mut self) -> io::Result<Vec<ForeignChain>> {
        self.sequence += 1;
        let kind = SUBSYSTEM << 8 | GET_CHAIN;
        self.socket.send(&message(kind, DUMP, self.sequence, (0, 0), &[]), 0)?;
        let mut found = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            for (kind, sequence, rest) in messages(&bytes) {
                match i32::from(kind) {
                    _ if sequence != self.sequence => {}
                    libc::NLMSG_DONE => return Ok(found),
                    libc::NLMSG_ERROR => {
                        return Err(io::Error::from_raw_os_error(-error_code(rest)));
                    }
                    _ => found.push(chain(rest)),
                }
            }
        }
    }
}

/// Kind, number and content of each message.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let one = bytes.get(..length).filter(|one| one.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([one[4], one[5]]);
        let sequence = u32::from_ne_bytes([one[8], one[9], one[10], one[11]]);
        Some((kind, sequence, &one[HEADER..]))
    })
}

fn error_code(rest: &[u8]) -> i32 {
    rest.first_chunk().map_or(-libc::EIO, |code| i32::from_ne_bytes(*code))
}

/// What became of each numbered message.
fn answers(bytes: &[u8]) -> Vec<(u32, Option<i32>)> {
    let code = |kind: u16, rest| (i32::from(kind) == libc::NLMSG_ERROR).then(|| error_code(rest));
    messages(bytes).map(|(kind, sequence, rest)| (sequence, code(kind, rest))).collect()
}

/// Kind and value of each attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let one = bytes.get(..length).filter(|one| one.len() >= 4)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([one[2], one[3]]) & !NESTED, &one[4..]))
    })
}

fn chain(rest: &[u8]) -> ForeignChain {
    let word = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let big = |value: &[u8]| value.first_chunk().map(|value| u32::from_be_bytes(*value));
    let mut known = ForeignChain::default();
    for (kind, value) in attributes(rest.get(FAMILY_HEADER..).unwrap_or_default()) {
        match kind {
            1 => known.table = word(value),
            3 => known.name = word(value),
            4 => {
                let number = attributes(value).find(|(kind, _)| *kind == 1);
                known.hook = number.and_then(|(_, value)| big(value));
            }
            5 => known.drops = big(value) == Some(0),
            _ => {}
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_is_read_as_it_is_written() {
        let place = [number(1, FORWARD), number(2, 0)].concat();
        let attributes =
            [text(1, "filter"), text(3, "FORWARD"), nested(4, &place), number(5, 0)].concat();
        let bytes = message(SUBSYSTEM << 8 | NEW_CHAIN, 0, 7, (2, 0), &attributes);
        let (_, sequence, rest) = messages(&bytes).next().unwrap();
        assert_eq!(sequence, 7);
        let (table, name) = ("filter".to_owned(), "FORWARD".to_owned());
        assert_eq!(chain(rest), ForeignChain { table, name, hook: Some(FORWARD), drops: true });
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, _, rest) in messages(&bytes) {
                let _ = (chain(rest), error_code(rest));
            }
            let _ = answers(&bytes);
        }
    }
}
