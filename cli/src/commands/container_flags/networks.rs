//! The values of `--network`, and of the flags beside it.

use std::net::IpAddr;

use runtime::{Join, Membership, Network};

use crate::report::Failure;

/// What the values of `--network` ask for.
type Asked = (Option<Network>, Option<Join>, Vec<Membership>);

/// The networks by name, and whose they are; none is said by `default`.
///
/// # Errors
/// A network we do not have, or several that exclude each other.
pub(super) fn network(names: &[String]) -> Result<Asked, Failure> {
    let mut networks: Vec<Membership> = Vec::new();
    for name in names {
        match one(name)? {
            One::Named(named) if networks.iter().any(|known| known.network == named.network) => {
                return Err(Failure::usage(format!("--network {name}: it is given twice")));
            }
            One::Named(named) => networks.push(named),
            _ if names.len() > 1 => {
                return Err(Failure::usage(format!("--network {name} stands alone"))
                    .hint("only private and named networks go together"));
            }
            One::Unsaid => return Ok((None, None, Vec::new())),
            One::Mode(mode, join) => return Ok((Some(mode), join, Vec::new())),
        }
    }
    match &networks[..] {
        [] => Ok((None, None, Vec::new())),
        [alone] if alone.network == "private" => Ok((Some(Network::Private), None, Vec::new())),
        _ => Ok((Some(Network::Private), None, networks)),
    }
}

enum One {
    Unsaid,
    Mode(Network, Option<Join>),
    Named(Membership),
}

fn one(text: &str) -> Result<One, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--network {text:?}: {why}"));
    match text {
        "" | "default" => return Ok(One::Unsaid),
        "none" => return Ok(One::Mode(Network::None, None)),
        "host" => return Ok(One::Mode(Network::Host, None)),
        "private" | "pasta" | "slirp4netns" => return named("private", "", text),
        _ => {}
    }
    // As docker writes it: name=NETWORK,alias=NAME,…
    if let Some(rest) = text.strip_prefix("name=") {
        let (name, options) = rest.split_once(',').unwrap_or((rest, ""));
        return named(name, options, text);
    }
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    match (name, rest) {
        ("container", name) if !name.is_empty() => {
            Ok(One::Mode(Network::Private, Some(Join::Container(name.to_owned()))))
        }
        ("ns", path) if path.starts_with('/') => {
            Ok(One::Mode(Network::Private, Some(Join::Path(path.into()))))
        }
        ("container" | "ns", _) => Err(refuse("expected container:NAME or ns:/PATH")),
        ("pasta" | "slirp4netns" | "private" | "none" | "host", _) => {
            Err(refuse("it has no options").hint(
                "private networks are served by rbuild itself: -p publishes ports, \
                 --add-host NAME:host-gateway opens the loopback services of this machine",
            ))
        }
        (name, options) => named(name, options, text),
    }
}

/// A named network and its options: `alias=NAME,ip=ADDRESS,mac=ADDRESS,interface_name=NAME`.
fn named(name: &str, options: &str, text: &str) -> Result<One, Failure> {
    let refuse = |why: String| Failure::usage(format!("--network {text:?}: {why}"));
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if !name.bytes().all(word) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(refuse(format!("{name:?} is not the name of a network")));
    }
    let mut asked = Membership { network: name.to_owned(), ..Membership::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "alias" if !value.is_empty() => asked.aliases.push(value.to_owned()),
            "ip" | "ip6" => match value.parse() {
                Ok(IpAddr::V4(address)) if key == "ip" => asked.ip = Some(address),
                Ok(IpAddr::V6(address)) => asked.ip6 = Some(address),
                _ => return Err(refuse(format!("{value:?} is not an address of its kind"))),
            },
            "mac" | "mac-address" => asked.mac = Some(mac(value).map_err(refuse)?),
            "interface_name" if interface(value) => asked.interface = Some(value.to_owned()),
            _ => {
                return Err(refuse(format!("option {option:?} is not supported"))
                    .hint("alias=, ip=, ip6=, mac= and interface_name= are"));
            }
        }
    }
    Ok(One::Named(asked))
}

/// Whether the kernel takes this as the name of a device.
fn interface(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    (1..=15).contains(&name.len()) && name.bytes().all(word) && !matches!(name, "lo" | "." | "..")
}

/// An Ethernet address of one device: `02:42:0a:59:00:02`.
///
/// # Errors
/// It is none.
pub(super) fn mac(text: &str) -> Result<[u8; 6], String> {
    let mut address = [0; 6];
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let good = parts.len() == 6
        && address.iter_mut().zip(&parts).all(|(byte, part)| {
            let found = u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2);
            found.map(|found| *byte = found).is_some()
        });
    match good && address[0] & 1 == 0 && address != [0; 6] {
        true => Ok(address),
        false => Err(format!("{text:?} is not the address of a device, such as 02:42:0a:59:00:02")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str]) -> Result<Asked, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        network(&names).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn networks_are_written_as_docker_and_podman_write_them() {
        let (mode, join, networks) = read(&[
            "web:ip=10.0.0.2,alias=a,alias=b",
            "name=db,ip6=fd00::2,mac-address=02:00:00:00:00:07",
        ])
        .unwrap();
        assert_eq!((mode, join), (Some(Network::Private), None));
        assert_eq!((networks[0].network.as_str(), networks[0].aliases.len()), ("web", 2));
        assert_eq!(networks[0].ip, Some([10, 0, 0, 2].into()));
        assert_eq!(
            (networks[1].network.as_str(), networks[1].mac),
            ("db", Some([2, 0, 0, 0, 0, 7]))
        );
        assert_eq!(read(&["pasta"]).unwrap(), (Some(Network::Private), None, Vec::new()));
        assert_eq!(read(&["private", "web"]).unwrap().2.len(), 2);
        assert_eq!(read(&[]).unwrap(), (None, None, Vec::new()));
        assert!(matches!(read(&["container:a"]).unwrap().1, Some(Join::Container(_))));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for names in [
            &["none", "web"][..],
            &["web", "web"],
            &["web:ip=x"],
            &["web:mac=01:00:00:00:00:00"],
            &["web:mac=2:3"],
            &["web:interface_name=a/b"],
            &["web:mtu=5"],
            &["pasta:-t,80"],
            &["ns:relative"],
            &["container:"],
        ] {
            assert!(read(names).is_err(), "{names:?}");
        }
    }
}
