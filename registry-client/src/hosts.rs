use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use image::Repository;

use crate::{Error, Result};

/// How one registry, or one part of it, is reached; the first rule that fits wins, longest
/// prefix first. Expresses what registries.conf (version 2) and certs.d directories say.
#[derive(Debug, Clone, Default)]
pub struct HostRule {
    /// What the rule is for: `registry.example:5000`, `registry.example/team`, `*.example`, or
    /// `*` for every registry.
    pub prefix: String,
    /// How TLS is used; `None` is [`Tls::Verify`], and [`Tls::Optional`] for loopback hosts.
    pub tls: Option<Tls>,
    /// Certificate authorities to trust beside the system's: PEM files' content.
    pub authorities: Vec<Vec<u8>>,
    /// The certificate to show, for registries that ask for one.
    pub identity: Option<Identity>,
    /// What replaces the prefix in requests: `mirror.example/proxied`.
    pub location: Option<String>,
    /// Tried in order before the registry itself, for reading only.
    pub mirrors: Vec<Mirror>,
    /// Every use is refused.
    pub blocked: bool,
    /// Uploads go in chunks of this many bytes instead of one request.
    pub chunk: Option<u64>,
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
    /// TLS with any certificate, or plain HTTP where there is no TLS (`insecure = true`). As
    /// Docker does, this is the default for `localhost`, 127.0.0.0/8 and `[::1]`; there plain
    /// HTTP is tried first.
    Optional,
    /// Plain HTTP.
    Off,
}

/// A certificate to show to a registry and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate and what leads to its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

/// A place that has (some of) the content of another.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// What replaces the rule's prefix: `mirror.example/proxied`.
    pub location: String,
    /// How TLS is used; as in [`HostRule::tls`].
    pub tls: Option<Tls>,
    /// What it is asked for.
    pub pull: MirrorPull,
}

/// What a mirror is asked for (`pull-from-mirror`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MirrorPull {
    /// Everything.
    #[default]
    All,
    /// Only what is named by digest.
    Digests,
    /// Only what is named by tag.
    Tags,
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
                    self.identity = Some(Identity { certificate: read(path)?, key: read(&key)? });
                }
                _ => {}
            }
        }
        Ok(self)
    }

    fn fits(&self, name: &str) -> bool {
        if self.prefix == "*" {
            return true;
        }
        match self.prefix.strip_prefix("*.") {
            Some(suffix) => {
                let host = name.split('/').next().unwrap_or_default();
                let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
                host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
            }
            None => name
                .strip_prefix(self.prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// `name` with the rule's prefix replaced.
    fn moved(&self, name: &str, location: &str) -> Result<Repository> {
        let rest = match self.prefix.starts_with("*.") {
            true => name.find('/').map_or("", |slash| &name[slash..]),
            false => &name[self.prefix.len()..],
        };
        let moved = format!("{location}{rest}");
        let parts = moved.split_once('/').ok_or_else(|| Error::Configuration {
            action: format!("applying the rule for {}", self.prefix),
            reason: format!("{moved:?} is not a repository"),
        })?;
        Repository::new(parts.0, parts.1).map_err(|error| Error::Configuration {
            action: format!("applying the rule for {}", self.prefix),
            reason: error.to_string(),
        })
    }
}

/// The rule for a name (`registry` or `registry/repository`): the longest prefix that fits.
pub(crate) fn rule_for<'a>(rules: &'a [HostRule], name: &str) -> Option<(usize, &'a HostRule)> {
    let fitting = rules.iter().enumerate().filter(|(_, rule)| rule.fits(name));
    fitting.rev().max_by_key(|(_, rule)| (!rule.prefix.starts_with("*."), rule.prefix.len()))
}

/// Where a repository is reached, and what must be known to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The name at that place; also what credentials are looked up by.
    pub(crate) repository: Repository,
    /// The API's host and optional port.
    pub(crate) authority: String,
    /// How TLS is used.
    pub(crate) tls: Tls,
    /// The rule with certificates, limits and chunk size.
    pub(crate) rule: Option<usize>,
}

/// The places of a repository in the order they are tried: mirrors where `digest` says what is
/// read by (`None`: the use is writing), then the registry itself.
pub(crate) fn places(
    rules: &[HostRule],
    repository: &Repository,
    digest: Option<bool>,
) -> Result<Vec<Place>> {
    let name = repository.to_string();
    let Some((_, rule)) = rule_for(rules, &name) else {
        return Ok(vec![place(rules, repository.clone(), None)]);
    };
    if rule.blocked {
        return Err(Error::Blocked { name });
    }
    let mut places = Vec::new();
    for mirror in &rule.mirrors {
        let asked = match (digest, mirror.pull) {
            (None, _) | (Some(false), MirrorPull::Digests) | (Some(true), MirrorPull::Tags) => {
                false
            }
            (Some(_), _) => true,
        };
        if asked {
            places.push(place(rules, rule.moved(&name, &mirror.location)?, mirror.tls));
        }
    }
    let own = match &rule.location {
        Some(location) => rule.moved(&name, location)?,
        None => repository.clone(),
    };
    places.push(place(rules, own, rule.tls));
    Ok(places)
}

fn place(rules: &[HostRule], repository: Repository, tls: Option<Tls>) -> Place {
    let rule = rule_for(rules, &repository.to_string());
    let authority = authority(repository.registry()).to_owned();
    let tls = tls.or(rule.and_then(|(_, rule)| rule.tls)).unwrap_or(default_tls(&authority));
    Place { repository, authority, tls, rule: rule.map(|(index, _)| index) }
}

/// The API's host of a registry.
pub(crate) fn authority(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// What holds for a host no rule speaks of.
pub(crate) fn default_tls(authority: &str) -> Tls {
    if is_loopback(authority) { Tls::Optional } else { Tls::Verify }
}

/// Whether an authority is this machine by name, without asking anybody.
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
    fn mirrors_come_first_for_reading_only() {
        let mirror =
            |location: &str, pull| Mirror { location: location.to_owned(), tls: None, pull };
        let rules = [HostRule {
            mirrors: vec![
                mirror("127.0.0.1:5000/hub", MirrorPull::All),
                mirror("m.example", MirrorPull::Digests),
            ],
            ..rule("docker.io")
        }];
        let debian = Repository::new("docker.io", "library/debian").unwrap();
        let names = |digest| {
            let places = places(&rules, &debian, digest).unwrap();
            let names = places
                .iter()
                .map(|p| format!("{} {} {:?}", p.authority, p.repository.path(), p.tls));
            names.collect::<Vec<_>>()
        };
        let own = "registry-1.docker.io library/debian Verify";
        let local = "127.0.0.1:5000 hub/library/debian Optional";
        assert_eq!(names(None), [own]);
        assert_eq!(names(Some(false)), [local, own]);
        assert_eq!(names(Some(true)), [local, "m.example library/debian Verify", own]);
    }

    #[test]
    fn blocked_and_moved() {
        let app = Repository::new("a.example", "team/app").unwrap();
        let blocked = HostRule { blocked: true, ..rule("a.example/team") };
        assert!(matches!(places(&[blocked], &app, None), Err(Error::Blocked { .. })));
        let moved = HostRule { location: Some("b.example/x".into()), ..rule("a.example/team") };
        assert_eq!(
            places(&[moved], &app, None).unwrap()[0].repository.to_string(),
            "b.example/x/app"
        );
        let broken = HostRule { location: Some("b.example".into()), ..rule("a.example/team/app") };
        assert!(places(&[broken], &app, None).is_err());
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
