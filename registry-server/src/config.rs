//! What the configuration file of a server says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use registry_client::{Credential, HostRule, Tls as ClientTls};
use serde::Deserialize;

use crate::access::jwt::Key;
use crate::access::{Access, Auth, Passwords, Rule, Tokens};
use crate::options::{Immutable, Limits, Options};
use crate::quota::Quota;
use crate::retention::Retention;
use crate::storage::Bucket;
use crate::tls::Tls;
use crate::upstream::peers::Peers;
use crate::upstream::source::Upstream;
use crate::{Error, Result, duration};

/// The least grace: a push must look, upload and refer within half of it.
const GRACE: Duration = Duration::from_secs(60);

/// Reads the files that a configuration names.
pub trait Files {
    /// The content of a file.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
}

/// What the configuration file of a server says. See `docs/registry.md`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Where to listen.
    pub address: Option<String>,
    storage: StorageSection,
    tls: Option<TlsSection>,
    auth: Option<AuthSection>,
    access: Vec<Rule>,
    upstream: Vec<UpstreamSection>,
    peers: PeersSection,
    immutable: Vec<Immutable>,
    retention: Vec<Retention>,
    quota: Vec<Quota>,
    limits: LimitsSection,
    gc: GcSection,
    webhooks: Vec<String>,
    metrics: Option<bool>,
    metrics_public: bool,
    read_only: bool,
    /// Whether each request is logged.
    pub access_log: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct StorageSection {
    directory: Option<PathBuf>,
    s3: Option<Bucket>,
    spool: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TlsSection {
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default)]
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AuthSection {
    #[serde(default)]
    htpasswd: Option<PathBuf>,
    #[serde(default = "realm")]
    realm: String,
    #[serde(default)]
    token: Option<TokenSection>,
}

fn realm() -> String {
    "registry".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TokenSection {
    realm: String,
    service: String,
    issuer: String,
    keys: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UpstreamSection {
    prefix: String,
    registry: String,
    #[serde(default)]
    path: String,
    #[serde(default = "ttl", deserialize_with = "duration::read")]
    ttl: Duration,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    tls_verify: Option<bool>,
    #[serde(default)]
    plain_http: bool,
    #[serde(default)]
    ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct PeersSection {
    addresses: Vec<String>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    tls_verify: Option<bool>,
    plain_http: bool,
    ca: Option<PathBuf>,
}

fn ttl() -> Duration {
    Duration::from_secs(300)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LimitsSection {
    blob_bytes: Option<u64>,
    #[serde(deserialize_with = "duration::read_some")]
    idle_upload: Option<Duration>,
    requests_per_second: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct GcSection {
    #[serde(deserialize_with = "duration::read_some")]
    interval: Option<Duration>,
    #[serde(deserialize_with = "duration::read_some")]
    grace: Option<Duration>,
    disabled: bool,
}

fn wrong(what: &'static str, reason: impl Into<String>) -> Error {
    Error::Configuration { what, reason: reason.into() }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Error::Configuration`] with line and column.
    pub fn parse(text: &str) -> Result<Config> {
        let message = |error: toml::de::Error| error.to_string().trim_end().to_owned();
        toml::from_str(text).map_err(|error| wrong("the registry", message(error)))
    }

    /// What it means, with what the files it names say.
    ///
    /// # Errors
    /// [`Error::Configuration`]; a file that cannot be read.
    pub fn options(self, files: &dyn Files) -> Result<Options> {
        let read = |path: &Path| {
            files.read(path).map_err(|source| Error::Storage {
                action: "reading",
                name: path.display().to_string(),
                source,
            })
        };
        let text = |path: &Path| {
            String::from_utf8(read(path)?)
                .map_err(|_| wrong("the registry", format!("{} is not text", path.display())))
        };
        if self.storage.directory.is_some() && self.storage.s3.is_some() {
            return Err(wrong("the storage", "it is a directory or a bucket, not both"));
        }
        let tls = match &self.tls {
            None => None,
            Some(tls) => Some(Tls {
                certificate: read(&tls.certificate)?,
                key: read(&tls.key)?,
                client_authorities: tls.client_ca.as_deref().map(read).transpose()?,
            }),
        };
        if let Some(tls) = &tls {
            crate::tls::acceptor(tls)?;
        }
        let auth = match self.auth {
            None if !self.access.is_empty() => {
                return Err(wrong("access", "there are [[access]] rules without [auth]"));
            }
            None => Auth::None,
            Some(section) => Auth::Access(access(section, self.access, &text)?),
        };
        let upstreams = self.upstream.into_iter().map(|section| upstream(section, &read));
        let upstreams = upstreams.collect::<Result<Vec<_>>>()?;
        let peers = peers(self.peers, &read)?;
        for quota in &self.quota {
            check(quota, &upstreams)?;
        }
        let standard = Limits::default();
        let limits = Limits {
            blob: self.limits.blob_bytes.unwrap_or(standard.blob),
            idle_upload: self.limits.idle_upload.unwrap_or(standard.idle_upload),
            grace: self.gc.grace.unwrap_or(standard.grace),
            requests_per_second: self.limits.requests_per_second,
        };
        if limits.requests_per_second.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(wrong("limits", "requests-per-second is a number above 0"));
        }
        if limits.grace < GRACE {
            return Err(wrong("gc", "grace is at least 1m: pushes need that long"));
        }
        let every = self.gc.interval.unwrap_or(Duration::from_secs(3600));
        for url in &self.webhooks {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                let scheme = url.split_once(':').map_or("the first of them", |(scheme, _)| scheme);
                let reason = format!("{scheme:?}: a URL begins with http:// or https://");
                return Err(wrong("webhooks", reason));
            }
        }
        Ok(Options {
            directory: self.storage.directory,
            bucket: self.storage.s3,
            spool: self.storage.spool,
            auth,
            tls,
            keep: self.read_only,
            upstreams,
            peers,
            immutable: self.immutable,
            retention: self.retention,
            quotas: self.quota,
            limits,
            tidying: (!self.gc.disabled).then_some(every),
            webhooks: self.webhooks,
            metrics: self.metrics.unwrap_or(true),
            metrics_public: self.metrics_public,
            ..Options::default()
        })
    }
}

/// A quota is of repositories that take pushes.
fn check(quota: &Quota, upstreams: &[Upstream]) -> Result<()> {
    let prefix = &quota.prefix;
    image::Repository::new("localhost", prefix)
        .map_err(|error| wrong("a quota", error.to_string()))?;
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let cache = upstreams.iter().map(|upstream| upstream.prefix.as_str());
    let mut cache = cache.filter(|cache| within(cache, prefix) || within(prefix, cache));
    match cache.next() {
        None => Ok(()),
        Some(cache) => {
            let reason = format!("{prefix}: {cache} is a cache, which [[retention]] is for");
            Err(wrong("a quota", reason))
        }
    }
}

fn access(
    section: AuthSection,
    rules: Vec<Rule>,
    text: &dyn Fn(&Path) -> Result<String>,
) -> Result<Access> {
    let passwords = match &section.htpasswd {
        None => None,
        Some(path) => {
            let parsed = Passwords::parse(&text(path)?);
            Some(
                parsed
                    .map_err(|reason| wrong("htpasswd", format!("{}: {reason}", path.display())))?,
            )
        }
    };
    let tokens = match section.token {
        None => None,
        Some(token) => {
            let mut keys = Vec::new();
            for path in &token.keys {
                let parsed = Key::parse(&text(path)?);
                keys.extend(parsed.map_err(|reason| {
                    wrong("the keys of tokens", format!("{}: {reason}", path.display()))
                })?);
            }
            if keys.is_empty() {
                return Err(wrong("the keys of tokens", "there are none"));
            }
            let TokenSection { realm, service, issuer, .. } = token;
            Some(Tokens { realm, service, issuer, keys })
        }
    };
    if passwords.is_none() && tokens.is_none() {
        return Err(wrong("auth", "neither htpasswd nor token"));
    }
    Ok(Access { realm: section.realm, passwords, tokens, rules })
}

/// What is sent to another registry to log in.
fn credential(
    who: &str,
    given: (Option<String>, Option<PathBuf>),
    read: &dyn Fn(&Path) -> Result<Vec<u8>>,
) -> Result<Option<Credential>> {
    match given {
        (None, None) => Ok(None),
        (Some(username), Some(file)) => {
            let password = String::from_utf8_lossy(&read(&file)?).trim_end().to_owned();
            Ok(Some(Credential::Basic { username, password }))
        }
        _ => {
            let reason = format!("{who}: username and password-file belong together");
            Err(wrong("an upstream", reason))
        }
    }
}

fn client_tls(who: &str, plain_http: bool, verify: Option<bool>) -> Result<Option<ClientTls>> {
    Ok(match (plain_http, verify) {
        (true, Some(_)) => {
            let reason = format!("{who}: plain-http has no TLS to verify");
            return Err(wrong("an upstream", reason));
        }
        (true, None) => Some(ClientTls::Off),
        (false, Some(true)) => Some(ClientTls::Verify),
        (false, Some(false)) => Some(ClientTls::SkipVerify),
        (false, None) => None,
    })
}

fn upstream(section: UpstreamSection, read: &dyn Fn(&Path) -> Result<Vec<u8>>) -> Result<Upstream> {
    let UpstreamSection { prefix, registry, path, ttl, username, password_file, .. } = section;
    let credential = credential(&prefix, (username, password_file), read)?;
    let tls = client_tls(&prefix, section.plain_http, section.tls_verify)?;
    let authorities = section.ca.as_deref().map(read).transpose()?.into_iter().collect();
    let host = HostRule { prefix: registry.clone(), tls, authorities, ..HostRule::default() };
    Ok(Upstream { prefix, registry, path, host, credential, ttl })
}

fn peers(section: PeersSection, read: &dyn Fn(&Path) -> Result<Vec<u8>>) -> Result<Peers> {
    let PeersSection { addresses, username, password_file, .. } = section;
    let credential = credential("[peers]", (username, password_file), read)?;
    let tls = client_tls("[peers]", section.plain_http, section.tls_verify)?;
    let authorities = section.ca.as_deref().map(read).transpose()?.into_iter().collect();
    let host = HostRule { tls, authorities, ..HostRule::default() };
    Ok(Peers { addresses, host, credential, port: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Files for Nothing {
        fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/password") => Ok(b"geheim\n".to_vec()),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn options(text: &str) -> Result<Options> {
        Config::parse(text)?.options(&Nothing)
    }

    #[test]
    fn a_whole_configuration() {
        let options = options(
            r#"
            read-only = true
            [storage]
            directory = "/srv/registry"
            [[upstream]]
            prefix = "docker.io"
            registry = "docker.io"
            username = "anna"
            password-file = "/password"
            ttl = "10m"
            [[immutable]]
            repositories = ["team/**"]
            tags = ["v*"]
            except = ["*-dev"]
            [[retention]]
            repositories = ["ci/**"]
            keep-last = 3
            keep-pulled-within = "30d"
            delete-untagged = true
            [[quota]]
            prefix = "team"
            bytes = 1000
            [gc]
            grace = "2h"
            [limits]
            requests-per-second = 50.0
            "#,
        );
        let options = options.unwrap();
        assert!(options.keep && options.metrics);
        assert_eq!(options.upstreams[0].ttl, Duration::from_secs(600));
        let credential = Credential::Basic { username: "anna".into(), password: "geheim".into() };
        assert_eq!(options.upstreams[0].credential, Some(credential));
        assert!(options.immutable[0].fits("team/app", "v1"));
        assert!(!options.immutable[0].fits("team/app", "v1-dev"));
        assert!(!options.immutable[0].fits("other/app", "v1"));
        assert!(options.quotas[0].fits("team/app") && !options.quotas[0].fits("teams"));
        assert_eq!(options.limits.grace, Duration::from_secs(7200));
        assert_eq!(options.tidying, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("adress = \"x\"", "unknown field `adress`"),
            ("[storage]\ndirectory = \"/a\"\ns3 = { bucket = \"b\" }", "not both"),
            ("[auth]\nrealm = \"x\"", "neither htpasswd nor token"),
            ("[auth]\nhtpasswd = \"/none\"", "reading /none"),
            (
                "[[access]]\nrepositories = [\"*\"]\nusers = [\"*\"]\nallow = [\"pull\"]",
                "without [auth]",
            ),
            ("[[access]]\nrepositories = [\"*\"]\nusers = []\nallow = [\"brew\"]", "brew"),
            ("[[quota]]\nprefix = \"Team\"\nbytes = 1", "lowercase"),
            ("[[quota]]\nprefix = \"team\"", "bytes"),
            (
                "[[upstream]]\nprefix = \"hub\"\nregistry = \"docker.io\"\n\
                 [[quota]]\nprefix = \"hub/library\"\nbytes = 1",
                "hub/library: hub is a cache",
            ),
            ("[gc]\ngrace = \"soon\"", "\"soon\" is not a span of time"),
            ("[gc]\ngrace = \"5s\"", "at least 1m"),
            ("[limits]\nrequests-per-second = 0.0", "above 0"),
            ("webhooks = [\"ftp://x/secret\"]", "\"ftp\": a URL begins with http:// or https://"),
            ("[[upstream]]\nprefix = \"a\"\nregistry = \"b\"\nusername = \"x\"", "belong together"),
        ] {
            let error = options(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
