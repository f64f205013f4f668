//! The rules of a network that the kernel carries.

use std::net::IpAddr;

use ipnet::IpNet;

use super::nft::{Batch, FORWARD, Family, Hook, attribute, nested, number, text};
use crate::definition::NamedNetwork;
use crate::ports::{Protocol, PublishedPort};
use crate::resolvers::STAND_INS;

const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const NAMES: u16 = 53;

/// The state of a connection: an answer to one, or related to one.
const ANSWER: u32 = 2 | 4;
/// The status of a connection whose target was changed.
const LED_IN: u32 = 1 << 5;

/// The chains, and where the kernel asks them.
const CHAINS: [(&str, Hook); 6] = [
    ("first", Hook { kind: "filter", number: 0, priority: -300 }),
    ("prerouting", Hook { kind: "nat", number: 0, priority: -100 }),
    ("input", Hook { kind: "filter", number: 1, priority: 0 }),
    ("forward", Hook { kind: "filter", number: FORWARD, priority: 0 }),
    ("output", Hook { kind: "nat", number: 3, priority: -100 }),
    ("postrouting", Hook { kind: "nat", number: 4, priority: 100 }),
];
const FRAMES: &str = "frames";
const FRAMES_HOOK: Hook = Hook { kind: "filter", number: 0, priority: -300 };

type Expression = Vec<u8>;

/// A container as the rules see it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// This machine's end of its device.
    pub(super) device: String,
    pub(super) mac: [u8; 6],
    pub(super) addresses: Vec<IpAddr>,
    pub(super) published: Vec<PublishedPort>,
    /// Whether it reaches the loopback services of this machine.
    pub(super) loopback: bool,
}

/// What the rules of a network depend on.
#[derive(Debug)]
pub(super) struct RuleContext<'a> {
    pub(super) table: &'a str,
    /// The bridge.
    pub(super) device: &'a str,
    pub(super) network: &'a NamedNetwork,
    /// Where questions about names are taken.
    pub(super) names: u16,
}

/// The tables and their chains, without rules.
pub(super) fn tables(batch: &mut Batch, table: &str) {
    batch.table(Family::Inet, table);
    for (name, hook) in CHAINS {
        batch.chain(Family::Inet, table, name, hook);
    }
    batch.table(Family::Bridge, table);
    batch.chain(Family::Bridge, table, FRAMES, FRAMES_HOOK);
}

/// Removes the tables.
pub(super) fn remove(batch: &mut Batch, table: &str) {
    batch.remove(Family::Inet, table);
    batch.remove(Family::Bridge, table);
}

/// All rules, in place of those before.
pub(super) fn rules<'a>(
    batch: &mut Batch,
    context: &RuleContext<'_>,
    members: impl Iterator<Item = &'a Member>,
) {
    batch.flush(Family::Inet, context.table);
    batch.flush(Family::Bridge, context.table);
    context.guard(batch);
    context.name_service(batch);
    context.pass(batch);
    context.way_out(batch);
    for member in members {
        context.frames(batch, member);
        context.member(batch, member);
    }
}

/// A table in the network namespace of a container: questions about names to `address` go to a
/// port there, whatever listens at port 53.
pub(super) fn names_inside(batch: &mut Batch, table: &str, address: IpAddr, names: u16) {
    const OUTPUT: &str = "output";
    batch.table(Family::Inet, table);
    batch.chain(Family::Inet, table, OUTPUT, Hook { kind: "nat", number: 3, priority: -100 });
    for protocol in [UDP, TCP] {
        let asked = [to(address.into()), of(protocol), port(NAMES)].concat();
        let parts = [asked, target(address, Some(names))].concat();
        batch.rule(Family::Inet, table, OUTPUT, &parts);
    }
}

impl RuleContext<'_> {
    fn rule(&self, batch: &mut Batch, chain: &str, parts: &[&[Expression]]) {
        batch.rule(Family::Inet, self.table, chain, &parts.concat());
    }

    /// Whether it comes from the network.
    fn inside(&self) -> Vec<Expression> {
        vec![meta(6), equal(&interface(self.device))]
    }

    /// Whether it goes to the network.
    fn towards(&self) -> Vec<Expression> {
        vec![meta(7), equal(&interface(self.device))]
    }

    fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.network.subnets.iter().map(|subnet| subnet.gateway)
    }

    /// The bridge routes loopback addresses, for published ports: containers must not use that.
    fn guard(&self, batch: &mut Batch) {
        let loopback = IpNet::new_assert([127, 0, 0, 0].into(), 8);
        self.rule(batch, "first", &[&self.inside(), &to(loopback), &[drop()]]);
        if !self.network.internal {
            return;
        }
        self.rule(batch, "input", &[&self.inside(), &state(ANSWER), &[accept()]]);
        for protocol in [TCP, UDP] {
            let port = [of(protocol), port(self.names)].concat();
            self.rule(batch, "input", &[&self.inside(), &port, &[accept()]]);
        }
        for protocol in [ICMP, ICMPV6] {
            self.rule(batch, "input", &[&self.inside(), &of(protocol), &[accept()]]);
        }
        self.rule(batch, "input", &[&self.inside(), &[reject()]]);
    }

    /// Questions about names go to the name service, whatever listens at port 53.
    fn name_service(&self, batch: &mut Batch) {
        let four = self.gateways().filter(IpAddr::is_ipv4);
        let stand_ins = STAND_INS.map(IpAddr::V4);
        for address in four.chain(stand_ins) {
            for protocol in [UDP, TCP] {
                let asked = [to(address.into()), of(protocol), port(NAMES)].concat();
                let parts = [&self.inside()[..], &asked, &redirect(self.names)];
                self.rule(batch, "prerouting", &parts);
            }
        }
    }

    /// What may pass between the network and others.
    fn pass(&self, batch: &mut Batch) {
        let (inside, towards) = (self.inside(), self.towards());
        self.rule(batch, "forward", &[&inside, &towards, &[accept()]]);
        self.rule(batch, "forward", &[&towards, &state(ANSWER), &[accept()]]);
        let ours = IpNet::new_assert([192, 0, 0, 0].into(), 29);
        self.rule(batch, "forward", &[&inside, &to(ours), &[reject()]]);
        if self.network.internal {
            self.rule(batch, "forward", &[&inside, &[reject()]]);
        } else {
            self.rule(batch, "forward", &[&towards, &status(LED_IN), &[accept()]]);
        }
        self.rule(batch, "forward", &[&towards, &[reject()]]);
    }

    /// What leaves the network has an address of this machine.
    fn way_out(&self, batch: &mut Batch) {
        let beyond = [meta(7), compare(NOT, &interface(self.device))];
        for subnet in self.network.subnets.iter().map(|one| one.subnet) {
            if !self.network.internal {
                self.rule(batch, "postrouting", &[&from(subnet), &beyond, &[masquerade()]]);
            }
            // From one container to the published port of another: the answer must come back here.
            let hairpin = [from(subnet), to(subnet), status(LED_IN)].concat();
            self.rule(batch, "postrouting", &[&hairpin, &self.towards(), &[masquerade()]]);
        }
        let loopback = IpNet::new_assert([127, 0, 0, 0].into(), 8);
        self.rule(batch, "postrouting", &[&from(loopback), &self.towards(), &[masquerade()]]);
    }

    /// No container sends from an address that is not its own.
    fn frames(&self, batch: &mut Batch, member: &Member) {
        let own = [meta(6), equal(&interface(&member.device))];
        let mut rule = |parts: &[Expression]| {
            let all = [&own[..], parts].concat();
            batch.rule(Family::Bridge, self.table, FRAMES, &all);
        };
        rule(&[payload(LINK, 6, 6), compare(NOT, &member.mac), drop()]);
        let kind = |number: u16| vec![meta(1), equal(&number.to_be_bytes())];
        for address in &member.addresses {
            match address {
                IpAddr::V4(address) => {
                    for (number, at) in [(0x0800, 12), (0x0806, 14)] {
                        let sender = [payload(NETWORK, at, 4), equal(&address.octets()), accept()];
                        rule(&[&kind(number)[..], &sender].concat());
                    }
                }
                IpAddr::V6(address) => {
                    let sender = [payload(NETWORK, 8, 16), equal(&address.octets()), accept()];
                    rule(&[&kind(0x86dd)[..], &sender].concat());
                }
            }
        }
        let local = IpNet::new_assert([0xfe80u16, 0, 0, 0, 0, 0, 0, 0].into(), 10);
        let unspecified = IpNet::new_assert([0u16; 8].into(), 128);
        for net in [local, unspecified] {
            rule(&[&kind(0x86dd)[..], &match_net(8, net), &[accept()]].concat());
        }
        rule(&[drop()]);
    }

    /// What leads to one container.
    fn member(&self, batch: &mut Batch, member: &Member) {
        for published in &member.published {
            for address in &member.addresses {
                self.publish(batch, published, *address);
            }
        }
        let four = member.addresses.iter().find(|address| address.is_ipv4());
        if let Some(address) = four.filter(|_| member.loopback) {
            let machine = [from((*address).into()), to(IpAddr::V4(STAND_INS[0]).into())].concat();
            let target = target([127, 0, 0, 1].into(), None);
            self.rule(batch, "prerouting", &[&self.inside(), &machine, &target]);
        }
    }

    fn publish(&self, batch: &mut Batch, published: &PublishedPort, address: IpAddr) {
        let machine = published.machine;
        let port = [of(protocol(published.protocol)), port(machine.port())].concat();
        let here = match machine.ip() {
            ip if ip.is_unspecified() => [is(address), local()].concat(),
            ip if ip.is_ipv4() != address.is_ipv4() => return,
            ip => to(ip.into()),
        };
        let target = target(address, Some(published.container));
        // The kernel cannot lead ::1 elsewhere.
        let loopback =
            [payload(NETWORK, 24, 16), compare(NOT, &std::net::Ipv6Addr::LOCALHOST.octets())];
        let loopback = if address.is_ipv6() { &loopback[..] } else { &[] };
        self.rule(batch, "output", &[&here, loopback, &port, &target]);
        if !machine.ip().is_loopback() {
            self.rule(batch, "prerouting", &[&here, &port, &target]);
        }
    }
}

fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => SCTP,
    }
}

fn interface(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    padded.iter_mut().zip(name.bytes().take(15)).for_each(|(place, byte)| *place = byte);
    padded
}

const REGISTER: u32 = 1;
const SECOND: u32 = 2;
const VERDICT: u32 = 0;
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const NOT: u32 = 1;

fn expression(name: &str, data: &[Vec<u8>]) -> Expression {
    [text(1, name), nested(2, &data.concat())].concat()
}

fn data(value: &[u8]) -> Vec<u8> {
    attribute(1, value)
}

fn meta(key: u32) -> Expression {
    expression("meta", &[number(1, REGISTER), number(2, key)])
}

fn payload(base: u32, offset: u32, length: u32) -> Expression {
    let place = [number(1, REGISTER), number(2, base), number(3, offset), number(4, length)];
    expression("payload", &place)
}

fn compare(operator: u32, value: &[u8]) -> Expression {
    expression("cmp", &[number(1, REGISTER), number(2, operator), nested(3, &data(value))])
}

fn equal(value: &[u8]) -> Expression {
    compare(0, value)
}

fn mask(mask: &[u8]) -> Expression {
    let registers = [number(1, REGISTER), number(2, REGISTER), number(3, mask.len() as u32)];
    let both = [nested(4, &data(mask)), nested(5, &data(&vec![0; mask.len()]))];
    expression("bitwise", &[registers.concat(), both.concat()])
}

/// Whether a packet has addresses of this kind.
fn is(like: IpAddr) -> Vec<Expression> {
    let family = if like.is_ipv4() { IPV4 } else { IPV6 };
    vec![meta(15), equal(&[family])]
}

/// Whether a packet is of this protocol.
fn of(protocol: u8) -> Vec<Expression> {
    vec![meta(16), equal(&[protocol])]
}

/// Whether it goes to this port.
fn port(port: u16) -> Vec<Expression> {
    vec![payload(TRANSPORT, 2, 2), equal(&port.to_be_bytes())]
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn match_net(at: u32, net: IpNet) -> Vec<Expression> {
    let value = bytes(net.network());
    let mut parts = vec![payload(NETWORK, at, value.len() as u32)];
    if net.prefix_len() < net.max_prefix_len() {
        parts.push(mask(&bytes(net.netmask())));
    }
    parts.push(equal(&value));
    parts
}

fn from(net: IpNet) -> Vec<Expression> {
    let at = if net.network().is_ipv4() { 12 } else { 8 };
    [is(net.network()), match_net(at, net)].concat()
}

fn to(net: IpNet) -> Vec<Expression> {
    let at = if net.network().is_ipv4() { 16 } else { 24 };
    [is(net.network()), match_net(at, net)].concat()
}

/// Whether it goes to an address of this machine.
fn local() -> Vec<Expression> {
    const ADDRESS_TYPE: u32 = 3;
    const TARGET: u32 = 2;
    const LOCAL: u32 = 2;
    let place = [number(1, REGISTER), number(2, ADDRESS_TYPE), number(3, TARGET)];
    vec![expression("fib", &place), equal(&LOCAL.to_ne_bytes())]
}

fn connection(key: u32, bits: u32) -> Vec<Expression> {
    let load = expression("ct", &[number(1, REGISTER), number(2, key)]);
    vec![load, mask(&bits.to_ne_bytes()), compare(NOT, &[0; 4])]
}

fn state(bits: u32) -> Vec<Expression> {
    connection(0, bits)
}

fn status(bits: u32) -> Vec<Expression> {
    connection(2, bits)
}

fn verdict(code: u32) -> Expression {
    let verdict = nested(2, &nested(2, &number(1, code)));
    expression("immediate", &[number(1, VERDICT), verdict])
}

fn accept() -> Expression {
    verdict(1)
}

fn drop() -> Expression {
    verdict(0)
}

/// Refuses as administratively prohibited.
fn reject() -> Expression {
    expression("reject", &[number(1, 2), attribute(2, &[3])])
}

fn masquerade() -> Expression {
    expression("masq", &[])
}

fn load(register: u32, value: &[u8]) -> Expression {
    expression("immediate", &[number(1, register), nested(2, &data(value))])
}

fn redirect(port: u16) -> Vec<Expression> {
    vec![load(REGISTER, &port.to_be_bytes()), expression("redir", &[number(1, REGISTER)])]
}

fn target(address: IpAddr, port: Option<u16>) -> Vec<Expression> {
    const TO_TARGET: u32 = 1;
    let family = if address.is_ipv4() { IPV4 } else { IPV6 };
    let mut place = vec![number(1, TO_TARGET), number(2, family.into()), number(3, REGISTER)];
    let mut parts = vec![load(REGISTER, &bytes(address))];
    if let Some(port) = port {
        parts.push(load(SECOND, &port.to_be_bytes()));
        place.push(number(5, SECOND));
    }
    parts.push(expression("nat", &place));
    parts
}
