//! Networks, and what containers find on them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use runtime::{Dns, Join, Membership, Network};

use super::SyntaxError;

/// Which networks a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkChoice {
    /// Whose network it is; `None` where the texts leave it open.
    pub mode: Option<Network>,
    /// The container or namespace whose network is shared.
    pub join: Option<Join>,
    /// The named networks.
    pub networks: Vec<Membership>,
}

/// The networks that some texts name, each one of: `default`, `private`, `none`, `host`,
/// `container:NAME`, `ns:PATH`, `cni:NAME[:OPTION,…]`, `NAME[:OPTION,…]` or `name=NAME,OPTION,…`.
///
/// # Errors
/// A network that there is not, or several that exclude each other, by its text.
pub fn networks(texts: &[String]) -> Result<NetworkChoice, SyntaxError> {
    let mut choice = NetworkChoice::default();
    for text in texts {
        let refuse = |why| SyntaxError::new(format!("{text:?}: {why}"));
        let read =
            one(text).map_err(|error| SyntaxError { hint: error.hint, ..refuse(error.reason) });
        match read? {
            NetworkSetting::Named(named)
                if choice.networks.iter().any(|known| known.network == named.network) =>
            {
                return Err(refuse("it is given twice".to_owned()));
            }
            NetworkSetting::Named(named) => choice.networks.push(named),
            _ if texts.len() > 1 => {
                return Err(refuse("it stands alone".to_owned())
                    .hinting("only private and named networks go together"));
            }
            NetworkSetting::Unsaid => return Ok(choice),
            NetworkSetting::Mode(mode, join) => {
                return Ok(NetworkChoice { mode: Some(mode), join, ..choice });
            }
        }
    }
    choice.mode = (!choice.networks.is_empty()).then_some(Network::Private);
    if matches!(&choice.networks[..], [alone] if alone.network == "private") {
        choice.networks.clear();
    }
    Ok(choice)
}

enum NetworkSetting {
    Unsaid,
    Mode(Network, Option<Join>),
    Named(Membership),
}

fn one(text: &str) -> Result<NetworkSetting, SyntaxError> {
    if text.starts_with('/') {
        return Ok(NetworkSetting::Mode(Network::Private, Some(Join::Path(text.into()))));
    }
    match text {
        "" | "default" => return Ok(NetworkSetting::Unsaid),
        "none" => return Ok(NetworkSetting::Mode(Network::None, None)),
        "host" => return Ok(NetworkSetting::Mode(Network::Host, None)),
        "private" | "container" | "pasta" | "slirp4netns" => return named("private", ""),
        _ => {}
    }
    // As docker writes it: name=NETWORK,alias=NAME,…
    if let Some(rest) = text.strip_prefix("name=") {
        let (name, options) = rest.split_once(',').unwrap_or((rest, ""));
        return named(name, options);
    }
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    match (name, rest) {
        ("container", name) if !name.is_empty() => {
            Ok(NetworkSetting::Mode(Network::Private, Some(Join::Container(name.to_owned()))))
        }
        ("ns", path) if path.starts_with('/') => {
            Ok(NetworkSetting::Mode(Network::Private, Some(Join::Path(path.into()))))
        }
        ("cni", rest) if !rest.is_empty() => {
            let (name, options) = rest.split_once(':').unwrap_or((rest, ""));
            let NetworkSetting::Named(member) = named(name, options)? else {
                return Ok(NetworkSetting::Unsaid);
            };
            Ok(NetworkSetting::Named(Membership {
                network: format!("{}{name}", network::CNI),
                ..member
            }))
        }
        ("cni", _) => Err(SyntaxError::new("expected cni:NAME")),
        ("ns", _) | ("container", "") => {
            Err(SyntaxError::new("expected container:NAME or ns:/PATH"))
        }
        ("pasta" | "slirp4netns" | "private" | "none" | "host", _) => {
            Err(SyntaxError::new("it has no options").hinting(
                "private networks need none: ports are published, and the host NAME:host-gateway \
                 opens the loopback services of this machine",
            ))
        }
        (name, options) => named(name, options),
    }
}

/// A named network and its options: `alias=NAME,ip=ADDRESS,mac=ADDRESS,interface_name=NAME`.
fn named(name: &str, options: &str) -> Result<NetworkSetting, SyntaxError> {
    let refuse = |why: String| SyntaxError::new(why);
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if !name.bytes().all(word) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(refuse(format!("{name:?} is not the name of a network")));
    }
    let mut member = Membership { network: name.to_owned(), ..Membership::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "alias" if !value.is_empty() => member.aliases.push(value.to_owned()),
            "ip" | "ip6" => match value.parse() {
                Ok(IpAddr::V4(address)) if key == "ip" => member.ip = Some(address),
                Ok(IpAddr::V6(address)) => member.ip6 = Some(address),
                _ => return Err(refuse(format!("{value:?} is not an address of its kind"))),
            },
            "mac" | "mac-address" => member.mac = Some(mac_address(value)?),
            "interface_name" if interface(value) => member.interface = Some(value.to_owned()),
            _ => {
                return Err(refuse(format!("option {option:?} is not supported"))
                    .hinting("alias=, ip=, ip6=, mac= and interface_name= are supported"));
            }
        }
    }
    Ok(NetworkSetting::Named(member))
}

/// Where configurations in the format of CNI are, unless a user says so.
const CONFIGURATIONS: &str = "/etc/cni/net.d";
/// Where plugins are: CNI's own place, and those of distributions.
const PLUGINS: &str =
    "/opt/cni/bin:/usr/local/libexec/cni:/usr/libexec/cni:/usr/local/lib/cni:/usr/lib/cni";

/// Says where the networks in the format of CNI are found.
pub fn find_cni(networks: &mut [Membership], place: Option<&Path>, plugins: Option<&str>) {
    for network in networks.iter_mut().filter(|one| one.network.starts_with(network::CNI)) {
        network.configurations = Some(place.unwrap_or(Path::new(CONFIGURATIONS)).to_owned());
        let places = plugins.unwrap_or(PLUGINS).split(':').filter(|place| !place.is_empty());
        network.plugins = places.map(PathBuf::from).collect();
    }
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
pub fn mac_address(text: &str) -> Result<[u8; 6], SyntaxError> {
    let mut address = [0; 6];
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let good = parts.len() == 6
        && address.iter_mut().zip(&parts).all(|(byte, part)| {
            let found = u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2);
            found.map(|found| *byte = found).is_some()
        });
    match good && address[0] & 1 == 0 && address != [0; 6] {
        true => Ok(address),
        false => Err(SyntaxError::new(format!(
            "{text:?} is not the address of a device, such as 02:42:0a:59:00:02"
        ))),
    }
}

/// `NAME:ADDRESS`; `host-gateway` is this machine: loopback on the host network, else the address
/// of the uplink.
///
/// # Errors
/// It is none.
pub fn extra_host(text: &str, mode: Option<Network>) -> Result<(String, IpAddr), SyntaxError> {
    let refuse = || SyntaxError::new("expected NAME:ADDRESS");
    let (name, address) = text.split_once([':', '=']).ok_or_else(refuse)?;
    if address == "host-gateway" {
        let machine = match mode {
            Some(Network::Host) => [127, 0, 0, 1].into(),
            _ => network::Uplink::MACHINE,
        };
        return Ok((name.to_owned(), machine));
    }
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok((name.to_owned(), address.parse().map_err(|_| refuse())?))
}

/// The resolver of a container: addresses of servers, or `none` alone, which keeps that of the
/// image.
///
/// # Errors
/// A server is no address; something stands beside `none`.
pub fn dns(servers: &[String], search: &[String], options: &[String]) -> Result<Dns, SyntaxError> {
    let none = servers.iter().any(|server| server == "none");
    if none && (servers.len() > 1 || !search.is_empty() || !options.is_empty()) {
        return Err(SyntaxError::new("none excludes every other option of the resolver"));
    }
    let address = |text: &String| {
        text.parse().map_err(|_| SyntaxError::new(format!("{text:?} is not an address")))
    };
    let servers = servers.iter().filter(|_| !none).map(address);
    Ok(Dns {
        none,
        servers: servers.collect::<Result<_, _>>()?,
        search: search.to_vec(),
        options: options.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str]) -> Result<NetworkChoice, SyntaxError> {
        networks(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn networks_are_written_as_docker_and_podman_write_them() {
        let NetworkChoice { mode, join, networks } = read(&[
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
        let private = NetworkChoice { mode: Some(Network::Private), ..NetworkChoice::default() };
        assert_eq!(read(&["pasta"]).unwrap(), private);
        assert_eq!(read(&["private", "web"]).unwrap().networks.len(), 2);
        assert_eq!(read(&[]).unwrap(), NetworkChoice::default());
        assert_eq!(read(&["cni:a:ip=10.0.0.2"]).unwrap().networks[0].network, "cni:a");
        assert!(matches!(read(&["container:a"]).unwrap().join, Some(Join::Container(_))));
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
