//! The proxies on the way to registries, as the usual environment variables name them.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use crate::{Error, Result};

/// Which proxy a request goes through, by the variables `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`
/// and `NO_PROXY` in either case, read as Go's programs read them. What is on this machine's
/// loopback is never asked of a proxy.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    bypass: Vec<NoProxyRule>,
}

/// The value of a variable.
#[derive(Debug, Clone)]
enum Proxy {
    At(Url),
    /// What the variable says, and why it cannot be followed.
    Unusable(String),
}

/// An entry of `NO_PROXY`: hosts that are reached directly, and on which port; `None` is any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NoProxyRule {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    Network(IpNet),
    /// A domain, and what is below it.
    Domain(String),
    /// What is below a domain.
    Below(String),
}

impl Proxies {
    /// Reads variables by their names; others are passed over. Of two spellings the lower-case
    /// one counts, as for curl.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Proxies {
        let mut values = std::collections::BTreeMap::new();
        for (name, value) in variables {
            let value = value.trim().to_owned();
            let lower = name.to_ascii_lowercase();
            if name == lower || !values.contains_key(&lower) {
                values.insert(lower, value);
            }
        }
        let value = |name: &str| values.get(name).filter(|value| !value.is_empty());
        let proxy = |name: &str| value(name).or_else(|| value("all_proxy")).map(|text| proxy(text));
        let except = value("no_proxy").map(|text| {
            let entries = text.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
            entries.filter_map(except).collect()
        });
        Proxies {
            http: proxy("http_proxy"),
            https: proxy("https_proxy"),
            bypass: except.unwrap_or_default(),
        }
    }

    /// The proxy for a URL; `None` for what is reached directly.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it is of a kind that is not supported.
    pub(crate) fn of(&self, url: &Url) -> Result<Option<&Url>> {
        let proxy = match url.scheme() {
            "http" => &self.http,
            _ => &self.https,
        };
        let Some(proxy) = proxy.as_ref().filter(|_| !self.is_direct(url)) else {
            return Ok(None);
        };
        match proxy {
            Proxy::At(proxy) => Ok(Some(proxy)),
            Proxy::Unusable(reason) => Err(Error::Configuration {
                action: format!("using a proxy for {}", url.host_str().unwrap_or_default()),
                reason: reason.clone(),
            }),
        }
    }

    fn is_direct(&self, url: &Url) -> bool {
        let (name, address) = match url.host() {
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let address = name.parse::<IpAddr>().ok();
                (name, address)
            }
            Some(Host::Ipv4(address)) => (String::new(), Some(IpAddr::V4(address))),
            Some(Host::Ipv6(address)) => (String::new(), Some(IpAddr::V6(address))),
            None => return true,
        };
        let address = address.map(|address| address.to_canonical());
        let local = name == "localhost" || name.ends_with(".localhost");
        if local || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let port = url.port_or_known_default();
        self.bypass.iter().any(|except| {
            except.port.is_none_or(|wanted| port == Some(wanted))
                && except.hosts.has(&name, address)
        })
    }
}

impl Hosts {
    fn has(&self, name: &str, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Hosts::All, _) => true,
            (Hosts::Network(network), Some(address)) => network.contains(&address),
            (Hosts::Network(_), None) | (_, Some(_)) => false,
            (Hosts::Domain(domain), None) => name == domain || is_below(name, domain),
            (Hosts::Below(domain), None) => is_below(name, domain),
        }
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn proxy(text: &str) -> Proxy {
    let url = match text.contains("://") {
        true => Url::parse(text),
        false => Url::parse(&format!("http://{text}")),
    };
    match url {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Proxy::At(url),
        Ok(url) => Proxy::Unusable(format!(
            "{}: proxies are not supported; only http and https ones are",
            url.scheme()
        )),
        Err(error) => Proxy::Unusable(format!("its address is not a URL: {error}")),
    }
}

/// `*`, an address, a network, `domain`, `.domain`, `*.domain`; all but a network with a port.
fn except(text: &str) -> Option<NoProxyRule> {
    let text = text.trim_end_matches('.').to_ascii_lowercase();
    if let Ok(network) = text.parse::<IpNet>() {
        return Some(NoProxyRule { hosts: Hosts::Network(network), port: None });
    }
    let (host, port) = match text.parse::<IpAddr>() {
        Ok(_) => (text.as_str(), None),
        Err(_) => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        },
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let hosts = match host.parse::<IpAddr>() {
        Ok(address) => Hosts::Network(IpNet::from(address.to_canonical())),
        Err(_) => match (host, host.strip_prefix('*').unwrap_or(host).strip_prefix('.')) {
            ("*", _) => Hosts::All,
            (_, Some(domain)) => Hosts::Below(domain.to_owned()),
            (domain, None) => Hosts::Domain(domain.to_owned()),
        },
    };
    Some(NoProxyRule { hosts, port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Proxies {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Proxies::from_variables(pairs.iter().map(owned))
    }

    #[test]
    fn what_no_proxy_names_is_reached_directly() {
        let except = "a.example, .b.example *.c.example,d.example:5000,10.0.0.0/8,\
                      192.0.2.1,192.0.2.2:5000,2001:db8::/32,[2001:dba::1]:443";
        let proxies = variables(&[("ALL_PROXY", "proxy.example:3128"), ("no_proxy", except)]);
        for (url, direct) in [
            ("https://a.example/", true),
            ("https://x.a.example/", true),
            ("https://A.EXAMPLE./", true),
            ("https://aa.example/", false),
            ("https://b.example/", false),
            ("https://x.b.example/", true),
            ("https://c.example/", false),
            ("https://x.y.c.example/", true),
            ("https://d.example:5000/", true),
            ("https://d.example/", false),
            ("http://10.1.2.3:80/", true),
            ("http://11.1.2.3/", false),
            ("https://192.0.2.1:99/", true),
            ("https://192.0.2.2:5000/", true),
            ("https://192.0.2.2/", false),
            ("https://[2001:db8::7]/", true),
            ("https://[2001:db9::7]/", false),
            ("https://[2001:dba::1]/", true),
            ("https://[2001:dba::1]:444/", false),
            ("https://[::ffff:10.1.2.3]/", true),
            ("https://r.example/", false),
        ] {
            let proxy = proxies.of(&url.parse().unwrap()).unwrap();
            assert_eq!(proxy.is_none(), direct, "{url}: {proxy:?}");
        }
    }

    #[test]
    fn loopback_is_never_asked_of_a_proxy() {
        let proxies = variables(&[("http_proxy", "http://p:1"), ("https_proxy", "http://p:1")]);
        for host in
            ["localhost", "x.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"]
        {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{host}:5000/").parse().unwrap();
                assert_eq!(proxies.of(&url).unwrap(), None, "{url}");
            }
        }
        assert!(proxies.of(&"http://localhost.example/".parse().unwrap()).unwrap().is_some());
    }

    #[test]
    fn each_scheme_has_its_proxy_and_the_lower_case_name_counts() {
        let proxies = variables(&[
            ("HTTPS_PROXY", "http://upper:1"),
            ("https_proxy", "http://user:pass@lower:2"),
            ("http_proxy", ""),
            ("ALL_PROXY", "socks5://s:1"),
        ]);
        let of = |url: &str| proxies.of(&url.parse().unwrap()).map(|url| url.map(Url::to_string));
        assert_eq!(of("https://r.example/").unwrap().unwrap(), "http://user:pass@lower:2/");
        let error = of("http://r.example/").unwrap_err().to_string();
        assert!(error.contains("socks5: proxies are not supported"), "{error}");
        assert_eq!(variables(&[]).of(&"http://r.example/".parse().unwrap()).unwrap(), None);
        let all = variables(&[("http_proxy", "p:1"), ("NO_PROXY", "*")]);
        assert_eq!(all.of(&"http://r.example/".parse().unwrap()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_variable_panics(proxy in "\\PC{0,40}", except in "[a-z*.:/0-9\\[\\], ]{0,60}") {
            let proxies = variables(&[("all_proxy", &proxy), ("no_proxy", &except)]);
            let _ = proxies.of(&"https://a.example:5000/".parse().unwrap());
        }
    }
}
