use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::{Error, Result};

/// How one registry, or one part of it, is reached; the longest prefix that fits wins. Expresses
/// what certs.d directories and the flags of a command say; see [`crate::Route`] for where a name
/// leads.
#[derive(Debug, Clone, Default)]
pub struct HostRule {
    /// What the rule is for: `registry.example:5000`, `registry.example/team`, `*.example`, or
    /// `*` for every registry.
    pub prefix: String,
    /// How TLS is used; `None` is [`Tls::Verify`], and [`Tls::Optional`] for loopback hosts.
    pub tls: Option<Tls>,
    /// Whether loopback hosts are like all others where `tls` does not say.
    pub strict_loopback: bool,
    /// Certificate authorities to trust beside the system's: PEM files' content.
    pub authorities: Vec<Vec<u8>>,
    /// What TLS may use.
    pub parameters: crate::TlsParameters,
    /// The certificate to show, for registries that ask for one.
    pub identity: Option<ClientIdentity>,
    /// Uploads go in chunks of this many bytes instead of one request.
    pub chunk: Option<u64>,
    /// The registry that this one is like (`ghcr.io`), for a proxy or a private name of it.
    pub like: Option<String>,
    /// Requests at once, where it differs from [`crate::Options::concurrency`].
    pub concurrency: Option<usize>,
}

/// How TLS is used with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tls {
    /// TLS, with a certificate that is verified.
    #[default]
    Verify,
    /// TLS, with any certificate.
    SkipVerify,
    /// TLS with any certificate, or plain HTTP without TLS (`insecure = true`). As in Docker, this
    /// is the default for `localhost`, 127.0.0.0/8 and `[::1]`; there plain HTTP is tried first.
    Optional,
    /// Plain HTTP.
    Off,
}

/// A certificate to show to a registry and its private key, both PEM.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate and what leads to its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl HostRule {
    /// What a `certs.d/<host>` directory says: `*.crt` are authorities to trust; `x.cert` with
    /// `x.key` is the certificate to show (the first pair by name). A directory that does not
    /// exist says nothing.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Configuration`] for a certificate without its key.
    pub fn certificates(mut self, directory: &Path) -> Result<HostRule> {
        let failed = |path: &Path, source| Error::File {
            action: "reading certificates from",
            path: path.to_owned(),
            source,
        };
        let mut files: Vec<PathBuf> = match fs::read_dir(directory) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<_>>()
                .map_err(|source| failed(directory, source))?,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(self);
            }
            Err(source) => return Err(failed(directory, source)),
        };
        files.sort();
        let read = |path: &Path| fs::read(path).map_err(|source| failed(path, source));
        for path in &files {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.push(read(path)?),
                Some("cert") if self.identity.is_none() => {
                    let key = path.with_extension("key");
                    if !files.contains(&key) {
                        return Err(Error::Configuration {
                            action: format!("reading the client certificate {}", path.display()),
                            reason: format!("its key {} is missing", key.display()),
                        });
                    }
                    self.identity =
                        Some(ClientIdentity { certificate: read(path)?, key: read(&key)? });
                }
                _ => {}
            }
        }
        Ok(self)
    }
}

/// Whether a prefix (`registry.example:5000`, `registry.example/team`, `*.example`, `*`) is one of
/// this name.
pub(crate) fn fits(prefix: &str, name: &str) -> bool {
    if prefix == "*" {
        return true;
    }
    match prefix.strip_prefix("*.") {
        Some(suffix) => {
            let host = name.split('/').next().unwrap_or_default();
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
        }
        // After a host, a colon begins a port; after a path, a tag.
        None => name.strip_prefix(prefix).is_some_and(|rest| match rest.chars().next() {
            None | Some('/') => true,
            Some(':' | '@') => prefix.contains('/'),
            Some(_) => false,
        }),
    }
}

/// The longest of the prefixes that fit a name; the first of equal ones.
pub(crate) fn longest<'a, T>(
    entries: &'a [T],
    prefix: impl Fn(&T) -> &str,
    name: &str,
) -> Option<(usize, &'a T)> {
    let fitting = entries.iter().enumerate().filter(|(_, entry)| fits(prefix(entry), name));
    fitting.rev().max_by_key(|(_, entry)| {
        let prefix = prefix(entry);
        (!prefix.starts_with('*'), prefix.len())
    })
}

/// The rule for a name (`registry` or `registry/repository`).
pub(crate) fn rule_for<'a>(rules: &'a [HostRule], name: &str) -> Option<(usize, &'a HostRule)> {
    longest(rules, |rule| &rule.prefix, name)
}

/// The API's host of a registry.
pub(crate) fn authority(registry: &str) -> &str {
    crate::quirks::of(registry).api.unwrap_or(registry)
}

/// How TLS is used with a host by its rule, where no route says.
pub(crate) fn tls_of(rule: Option<&HostRule>, authority: &str) -> Tls {
    let loopback = is_loopback(authority) && !rule.is_some_and(|rule| rule.strict_loopback);
    let default = if loopback { Tls::Optional } else { Tls::Verify };
    rule.and_then(|rule| rule.tls).unwrap_or(default)
}

/// Whether an authority is this machine by name, without a lookup.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str) -> HostRule {
        HostRule { prefix: prefix.to_owned(), ..HostRule::default() }
    }

    #[test]
    fn the_longest_prefix_wins_and_ends_at_a_slash() {
        let rules = ["r.example", "r.example/team", "*.example", "r.example:5000"].map(rule);
        for (name, expected) in [
            ("r.example/app", Some(0)),
            ("r.example/team/app", Some(1)),
            ("r.example/teams/app", Some(0)),
            ("a.b.example/app", Some(2)),
            ("a.example:80/app", Some(2)),
            ("example/app", None),
            ("r.example:5000/app", Some(3)),
            ("r.example", Some(0)),
        ] {
            assert_eq!(rule_for(&rules, name).map(|(index, _)| index), expected, "{name}");
        }
    }

    #[test]
    fn loopback() {
        for (authority, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.3.2.1", true),
            ("127.0.0.1:80", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("10.0.0.1", false),
            ("localhost.example", false),
            ("127.0.0.1.example:80", false),
        ] {
            assert_eq!(is_loopback(authority), expected, "{authority}");
        }
    }

    #[test]
    fn certificates_come_in_pairs() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(directory.path().join(name), name).unwrap();
        write("ca.crt");
        write("b.cert");
        let error = rule("r").certificates(directory.path()).unwrap_err();
        assert!(error.to_string().contains("b.key"), "{error}");
        write("b.key");
        let rule = rule("r").certificates(directory.path()).unwrap();
        assert_eq!(rule.authorities, [b"ca.crt"]);
        assert_eq!(rule.identity.unwrap().key, b"b.key");
    }
}
