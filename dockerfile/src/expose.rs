//! The ports of `EXPOSE`, after expansion.

use std::fmt;

/// One port as the image configuration has it: `8080/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Protocols of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// The default.
    #[default]
    Tcp,
    /// `/udp`.
    Udp,
    /// `/sctp`.
    Sctp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

/// Reads `80`, `80/udp`, `8000-8010`, and, as Docker still does, `[ip:][host:]80`; the error says
/// what is wrong.
pub fn parse(text: &str) -> Result<Vec<Port>, String> {
    let container = text.rsplit(':').next().unwrap_or(text);
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(format!("unknown protocol {protocol:?}, known are tcp, udp and sctp")),
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { text.parse::<u16>().ok() } else { None };
        number.ok_or_else(|| format!("{text:?} is not a port number (0-65535)"))
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(format!("port range {range:?} ends before it starts"));
    }
    Ok((first..=last).map(|number| Port { number, protocol }).collect())
}

/// Whether the text names an IP address or a host port, which `EXPOSE` does not use.
#[must_use]
pub fn has_mapping(text: &str) -> bool {
    text.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, expected) in [
            ("80", Some("80/tcp")),
            ("80/UDP", Some("80/udp")),
            ("80/", Some("80/tcp")),
            ("0", Some("0/tcp")),
            ("65535/sctp", Some("65535/sctp")),
            ("8000-8002", Some("8000/tcp 8001/tcp 8002/tcp")),
            ("8080:80", Some("80/tcp")),
            ("127.0.0.1:8080:80/udp", Some("80/udp")),
            ("", None),
            ("65536", None),
            ("-1", None),
            ("+1", None),
            ("80-", None),
            ("90-80", None),
            ("80/http", None),
            ("web", None),
        ] {
            let found = parse(text)
                .ok()
                .map(|ports| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
