//! Published ports: how they are written, and the sockets of this machine that take them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The ports of a machine that nobody asks for by number.
const EPHEMERAL: (u16, u16) = (32_768, 60_999);

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP, on networks that the kernel carries
    Sctp,
}

impl Protocol {
    /// The word behind the slash.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A port of a container, and where on this machine it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The address of this machine; all of them if not given.
    pub address: Option<IpAddr>,
    /// The first and the last port of this machine that will do; two zeros for any.
    pub machine: (u16, u16),
    /// The port in the container.
    pub container: u16,
    /// See [`Protocol`].
    pub protocol: Protocol,
}

/// A port of a container, and where on this machine it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Where on this machine.
    pub machine: SocketAddr,
    /// The port in the container.
    pub container: u16,
    /// See [`Protocol`].
    pub protocol: Protocol,
}

/// Reads `[[ADDRESS:]PORT[-PORT]:]PORT[-PORT][/PROTOCOL]`, the value of `--publish`.
///
/// # Errors
/// [`Error::Port`] with what is wrong.
pub fn ports(text: &str) -> Result<Vec<Port>> {
    let wrong = |reason: &str| Error::Port { port: text.to_owned(), reason: reason.to_owned() };
    let (rest, protocol) = protocol(text)?;
    let (before, inner) = match rest.rsplit_once(':') {
        Some((before, inner)) => (before, inner),
        None => ("", rest),
    };
    let (address, outer) = match before.rsplit_once(':') {
        Some((address, outer)) => (address, outer),
        None if before.contains(['.', '[']) => return Err(wrong("ADDRESS::PORT is meant")),
        None => ("", before),
    };
    let address = match address.trim_start_matches('[').trim_end_matches(']') {
        "" => None,
        text => Some(text.parse().map_err(|_| wrong("it does not begin with an address"))?),
    };
    let range = |text| range(text).ok_or_else(|| wrong("ports are from 1 to 65535"));
    let inner = range(inner)?;
    // Port 0 is a free one, as docker has it.
    let outer = if matches!(outer, "" | "0") { None } else { Some(range(outer)?) };
    let port = |container, machine| Port { address, machine, container, protocol };
    let count = |(first, last): (u16, u16)| last - first;
    Ok(match outer {
        None => (inner.0..=inner.1).map(|container| port(container, (0, 0))).collect(),
        Some(outer) if inner.0 == inner.1 => vec![port(inner.0, outer)],
        Some(outer) if count(outer) == count(inner) => (outer.0..=outer.1)
            .zip(inner.0..=inner.1)
            .map(|(machine, container)| port(container, (machine, machine)))
            .collect(),
        Some(_) => return Err(wrong("the two ranges are not of the same length")),
    })
}

/// Reads `PORT[-PORT][/PROTOCOL]`, the value of `--expose` and of `EXPOSE`.
///
/// # Errors
/// [`Error::Port`] with what is wrong.
pub fn exposed(text: &str) -> Result<Vec<(u16, Protocol)>> {
    let (rest, protocol) = protocol(text)?;
    let reason = || "expected a port or a range such as 8000-8010".to_owned();
    let wrong = || Error::Port { port: text.to_owned(), reason: reason() };
    let (first, last) = range(rest).ok_or_else(wrong)?;
    Ok((first..=last).map(|port| (port, protocol)).collect())
}

fn protocol(text: &str) -> Result<(&str, Protocol)> {
    let (rest, word) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match word.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => {
            let reason = format!("{word:?} is not tcp, udp or sctp");
            return Err(Error::Port { port: text.to_owned(), reason });
        }
    };
    Ok((rest, protocol))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port != 0)
    };
    match text.split_once('-') {
        Some((first, last)) => Some((port(first)?, port(last)?)).filter(|(a, b)| a <= b),
        None => port(text).map(|port| (port, port)),
    }
}

/// A socket of this machine that takes what comes to a published port.
#[derive(Debug)]
pub(crate) enum Taker {
    /// Connections.
    Tcp(TcpListener),
    /// Datagrams.
    Udp(UdpSocket),
}

impl Port {
    /// As [`Port::take`] for a network of the kernel, where a port of SCTP needs no socket: it is
    /// free if no container has it.
    pub(crate) fn hold(&self, used: &[PublishedPort]) -> Result<(Option<Taker>, PublishedPort)> {
        if self.protocol != Protocol::Sctp {
            return self.take().map(|(taker, published)| (Some(taker), published));
        }
        let address = self.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let same = |one: IpAddr| one == address || one.is_unspecified() || address.is_unspecified();
        let taken = |port: u16| {
            let mut all = used.iter().filter(|one| one.protocol == Protocol::Sctp);
            all.any(|one| one.machine.port() == port && same(one.machine.ip()))
        };
        let (first, last) = if self.machine == (0, 0) { EPHEMERAL } else { self.machine };
        let port = (first..=last).find(|port| !taken(*port)).ok_or_else(|| {
            let source = std::io::Error::from_raw_os_error(libc::EADDRINUSE);
            Error::Taken { port: self.text(), source }
        })?;
        let Port { container, protocol, .. } = *self;
        Ok((None, PublishedPort { machine: (address, port).into(), container, protocol }))
    }

    /// Takes the first port of this machine that is free.
    pub(crate) fn take(&self) -> Result<(Taker, PublishedPort)> {
        if self.protocol == Protocol::Sctp {
            let reason =
                "sctp needs a network that the kernel carries: one of `network create` as root";
            return Err(Error::Port { port: self.text(), reason: reason.to_owned() });
        }
        let mut refused = None;
        for port in self.machine.0..=self.machine.1 {
            match self.bind(port) {
                Ok((taker, machine)) => {
                    let Port { container, protocol, .. } = *self;
                    return Ok((taker, PublishedPort { machine, container, protocol }));
                }
                Err(error) => refused = Some(error),
            }
        }
        let source = refused.unwrap_or_else(|| std::io::ErrorKind::InvalidInput.into());
        Err(Error::Taken { port: self.text(), source })
    }

    /// Address, port and protocol, as an error names them.
    fn text(&self) -> String {
        let address = self.address.map(|address| format!("{address}:")).unwrap_or_default();
        let (first, last) = self.machine;
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        format!("{address}{range}/{}", self.protocol.as_str())
    }

    fn bind(&self, port: u16) -> std::io::Result<(Taker, SocketAddr)> {
        match self.address {
            Some(address) => self.bind_at((address, port).into()),
            // One socket for both kinds of addresses, where there are both.
            None => self
                .bind_at((Ipv6Addr::UNSPECIFIED, port).into())
                .or_else(|error| match error.raw_os_error() {
                    Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => {
                        self.bind_at((Ipv4Addr::UNSPECIFIED, port).into())
                    }
                    _ => Err(error),
                })
                .map(|(taker, at)| (taker, (Ipv4Addr::UNSPECIFIED, at.port()).into())),
        }
    }

    fn bind_at(&self, at: SocketAddr) -> std::io::Result<(Taker, SocketAddr)> {
        match self.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(at)?;
                listener.set_nonblocking(true)?;
                let at = listener.local_addr()?;
                Ok((Taker::Tcp(listener), at))
            }
            Protocol::Sctp => Err(std::io::ErrorKind::Unsupported.into()),
            Protocol::Udp => {
                let socket = UdpSocket::bind(at)?;
                socket.set_nonblocking(true)?;
                let at = socket.local_addr()?;
                Ok((Taker::Udp(socket), at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> String {
        let one = |port: &Port| {
            let address = port.address.map(|address| format!("{address} ")).unwrap_or_default();
            let (first, last) = port.machine;
            format!("{address}{first}-{last} {} {}", port.container, port.protocol.as_str())
        };
        match ports(text) {
            Ok(list) => list.iter().map(one).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn ports_are_written_as_docker_writes_them() {
        for (text, meant) in [
            ("80", "0-0 80 tcp"),
            ("80/udp", "0-0 80 udp"),
            ("80/sctp", "0-0 80 sctp"),
            ("8080:80", "8080-8080 80 tcp"),
            ("8080-8090:80", "8080-8090 80 tcp"),
            ("8080-8081:80-81/UDP", "8080-8080 80 udp, 8081-8081 81 udp"),
            ("80-81", "0-0 80 tcp, 0-0 81 tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080-8080 80 tcp"),
            ("127.0.0.1::80", "127.0.0.1 0-0 80 tcp"),
            ("127.0.0.1:0:80", "127.0.0.1 0-0 80 tcp"),
            ("0:80", "0-0 80 tcp"),
            ("[::1]:8080:80", "::1 8080-8080 80 tcp"),
        ] {
            assert_eq!(told(text), meant, "{text}");
        }
        for (text, word) in [
            ("", "65535"),
            ("0", "65535"),
            ("65536", "65535"),
            ("+80", "65535"),
            ("9-8:80", "65535"),
            ("8080-8082:80-81", "length"),
            ("80/ip", "\"ip\""),
            ("here:8080:80", "address"),
            ("127.0.0.1:80", "ADDRESS::PORT"),
        ] {
            assert!(told(text).contains(word), "{text}: {}", told(text));
        }
        assert_eq!(exposed("53/udp").unwrap(), [(53, Protocol::Udp)]);
        assert_eq!(exposed("80-81").unwrap().len(), 2);
        assert!(exposed("8080:80").is_err());
    }

    #[test]
    fn a_used_port_is_named_and_the_next_of_a_range_is_taken() {
        let used = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = used.local_addr().unwrap().port();
        let address = Some(Ipv4Addr::LOCALHOST.into());
        let mut port =
            Port { address, machine: (number, number), container: 80, protocol: Protocol::Tcp };
        let error = port.take().unwrap_err();
        assert!(error.to_string().contains(&format!("127.0.0.1:{number}/tcp")), "{error}");
        port.machine = (number, number.saturating_add(20));
        let (_taker, published) = port.take().unwrap();
        assert!(published.machine.port() > number);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_takes_is_bounded(text in "[0-9:.\\-/\\[\\]a-z]{0,24}") {
            if let Ok(list) = ports(&text) {
                prop_assert!(!list.is_empty() && list.len() <= 65_535);
                prop_assert!(list.iter().all(|port| port.container != 0));
            }
            let _ = exposed(&text);
        }
    }
}
