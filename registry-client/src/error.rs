use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use task::{Cause, Fault, Kind};

use crate::quirks;

/// Why talking to a registry, or finding the credentials for it, failed.
///
/// `action` says what was being done and to what ("reading manifest team/app:latest").
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry answered with a failure.
    #[error("{action}: {registry} {}", answer(*.status, .code, .message))]
    Answer {
        /// The registry's host, as in the name of the image.
        registry: String,
        /// What was being done.
        action: String,
        /// The HTTP status.
        status: u16,
        /// The first error code of the distribution-spec in the answer; may be empty.
        code: String,
        /// The registry's own words, made printable and cut; may be empty.
        message: String,
    },
    /// The registry wants credentials that were not there, or did not take those that were.
    #[error("{action}: {registry} denied access ({reason})")]
    Denied {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// What the registry said or what is missing.
        reason: String,
    },
    /// No connection, or one that broke.
    #[error("{action}: the connection to {registry} failed: {}", root(.source))]
    Connection {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// The transport's complaint.
        #[source]
        source: reqwest::Error,
    },
    /// The registry's TLS certificate is not acceptable.
    #[error("{action}: the TLS certificate of {registry} {flaw}")]
    Certificate {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// What is wrong with it.
        flaw: Flaw,
        /// The verifier's complaint.
        cause: reqwest::Error,
    },
    /// The registry wants a certificate of ours, or another one than it was shown.
    #[error("{action}: {registry} requires a client certificate that it trusts")]
    ClientCertificate {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// The transport's complaint.
        cause: reqwest::Error,
    },
    /// There is no TLS where there should be.
    #[error("{action}: {registry} speaks plain HTTP, not TLS")]
    NoTls {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// The transport's complaint.
        cause: reqwest::Error,
    },
    /// A proxy on the way does not let us through.
    #[error("{action}: the proxy {proxy} on the way to {registry} {reason}")]
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// What the proxy does.
        reason: String,
        /// Whether that is its answer, rather than none.
        refused: bool,
        /// The transport's complaint.
        cause: Option<reqwest::Error>,
    },
    /// Nothing, or next to nothing, came for too long.
    #[error("{action}: {registry} {what} for {after:?}")]
    Timeout {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// What did not happen.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// A body ended early or an upload broke; doing it all again may help.
    #[error("{action}: {registry} {reason}")]
    Interrupted {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// What happened.
        reason: String,
        /// The failure that broke it off.
        #[source]
        source: Option<Box<Error>>,
    },
    /// An answer that breaks the protocol: a missing header, a malformed list, too many bytes.
    #[error("{action}: the response of {registry} is invalid: {reason}")]
    Malformed {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content that is not what its digest says.
    #[error("{action}: {registry} sent something else")]
    Content {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// The mismatch.
        #[source]
        source: image::Error,
    },
    /// Doing what the registry asks for would be unsafe: credentials to another host, TLS given
    /// up on the way, redirects without end.
    #[error("{action}: refusing what {registry} asks for: {reason}")]
    Unsafe {
        /// The registry's host.
        registry: String,
        /// What was being done.
        action: String,
        /// What would be unsafe.
        reason: String,
    },
    /// The user's configuration blocks this registry.
    #[error("{name} is blocked by {by}")]
    Blocked {
        /// The registry or repository.
        name: String,
        /// The file, and the place in it.
        by: String,
    },
    /// A registries.conf that is not what it should be.
    #[error("reading {}: {reason}", path.display())]
    Registries {
        /// The file.
        path: PathBuf,
        /// Where in it and what is wrong.
        reason: String,
    },
    /// The registry has no list of its repositories.
    #[error("listing the repositories: {registry} does not offer that")]
    NoCatalog {
        /// What the registry is called.
        registry: String,
    },
    /// A name without a registry that could be several images or none.
    #[error("finding the registry of the short name {name:?}: {reason}")]
    ShortName {
        /// The name.
        name: String,
        /// Why it is not clear.
        reason: String,
    },
    /// The bytes to upload could not be had.
    #[error("reading the content to upload")]
    Source {
        /// What the provider of the bytes said.
        #[source]
        source: Cause,
    },
    /// A credentials file that is not what it should be.
    #[error("reading credentials from {}: {reason}", path.display())]
    CredentialsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A credential helper failed.
    #[error("asking credential helper {helper}: {reason}")]
    Helper {
        /// The program.
        helper: String,
        /// What went wrong.
        reason: String,
    },
    /// A name, URL, certificate or key in the configuration that cannot be used.
    #[error("{action}: {reason}")]
    Configuration {
        /// What was being set up.
        action: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A local file could not be read or written.
    #[error("{action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's complaint.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// Its time is over, since when if that is known.
    Expired(Option<String>),
    /// Its time has not begun, until when if that is known.
    NotYet(Option<String>),
    /// It is for these names.
    Name(Vec<String>),
    /// No trusted authority issued it.
    Issuer,
    /// It is an authority's own and not trusted here.
    Authority,
    /// It was revoked.
    Revoked,
    /// Something else, which the source of the error names.
    Other,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Flaw::Expired(Some(when)) => write!(f, "expired on {when}"),
            Flaw::Expired(None) => f.write_str("expired"),
            Flaw::NotYet(Some(when)) => write!(f, "is not valid before {when}"),
            Flaw::NotYet(None) => f.write_str("is not valid yet"),
            Flaw::Name(names) if names.is_empty() => f.write_str("is for another host"),
            Flaw::Name(names) => write!(f, "is for {} only", names.join(", ")),
            Flaw::Issuer => f.write_str("is not from a trusted authority"),
            Flaw::Authority => f.write_str("is self-signed and not trusted here"),
            Flaw::Revoked => f.write_str("was revoked"),
            Flaw::Other => f.write_str("is not acceptable"),
        }
    }
}

/// What a registry answered, for people: what it lacks, or the status and its words.
fn answer(status: u16, code: &str, message: &str) -> String {
    let lacks = match (status, code) {
        (404, "NAME_UNKNOWN") => Some("has no such repository"),
        (404, "MANIFEST_UNKNOWN") => Some("has no such tag or digest in this repository"),
        (404, "BLOB_UNKNOWN") => Some("has no such blob in this repository"),
        _ => None,
    };
    if let Some(lacks) = lacks {
        let said = if message.is_empty() { code } else { message };
        return format!("{lacks} (404 {said})");
    }
    let known = reqwest::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    let reason = known.map(|words| format!(" ({})", words.to_lowercase())).unwrap_or_default();
    let said = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("answered {status}{reason}{said}")
}

/// The first cause of a failure of the HTTP library, whose own layers say nothing to people.
fn root(error: &reqwest::Error) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// A failure of the HTTP library and what is behind it.
pub(crate) fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        // An I/O error's source is what its inner error has as source; the inner error itself
        // would be skipped.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
        Some(error)
    })
}

impl Error {
    /// Carries the failure of the provider of an upload's bytes.
    pub fn source(source: impl Into<Cause>) -> Self {
        Error::Source { source: source.into() }
    }

    fn registry(&self) -> Option<&str> {
        match self {
            Error::Answer { registry, .. }
            | Error::Denied { registry, .. }
            | Error::Connection { registry, .. }
            | Error::Certificate { registry, .. }
            | Error::ClientCertificate { registry, .. }
            | Error::NoTls { registry, .. }
            | Error::Proxy { registry, .. }
            | Error::Timeout { registry, .. }
            | Error::Interrupted { registry, .. }
            | Error::Malformed { registry, .. }
            | Error::Content { registry, .. }
            | Error::Unsafe { registry, .. } => Some(registry),
            _ => None,
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Answer { status, .. } => match status {
                401 | 403 => Kind::Denied,
                404 => Kind::NotFound,
                408 | 421 | 425 | 429 | 500..=599 => Kind::Unavailable,
                _ => Kind::Refused,
            },
            Error::Denied { .. } | Error::Helper { .. } | Error::ClientCertificate { .. } => {
                Kind::Denied
            }
            Error::Proxy { refused: true, .. } => Kind::Refused,
            Error::Connection { .. }
            | Error::Proxy { refused: false, .. }
            | Error::Timeout { .. }
            | Error::Interrupted { .. } => Kind::Unavailable,
            Error::Malformed { .. }
            | Error::Content { .. }
            | Error::CredentialsFile { .. }
            | Error::Registries { .. }
            | Error::Configuration { .. } => Kind::Invalid,
            Error::Certificate { .. }
            | Error::NoTls { .. }
            | Error::Unsafe { .. }
            | Error::Blocked { .. }
            | Error::ShortName { .. }
            | Error::NoCatalog { .. } => Kind::Refused,
            Error::Source { source } => source.kind(),
            Error::File { .. } => Kind::System,
        }
    }

    /// Requests are repeated here; only an upload, whose bytes come from outside, must be repeated
    /// by the caller.
    fn again(&self) -> bool {
        match self {
            Error::Interrupted { .. } => true,
            Error::Source { source } => source.again(),
            _ => false,
        }
    }

    fn hint(&self) -> Option<String> {
        let registry = self.registry().unwrap_or_default();
        match self {
            Error::Denied { action, .. } | Error::Answer { status: 401 | 403, action, .. } => {
                let quirk = quirks::of(registry);
                let login = quirk.login.map(|login| login.replace("REGISTRY", registry));
                let login =
                    login.unwrap_or_else(|| format!("log in with `rbuild login {registry}`"));
                let push = quirk.push.filter(|_| action.starts_with("writing"));
                Some(push.map_or(login.clone(), |push| format!("{push}; else {login}")))
            }
            Error::Answer { action, .. } if action.starts_with("writing") => {
                quirks::of(registry).push.map(str::to_owned)
            }
            Error::Answer { status: 429, .. } => Some(format!(
                "{registry} limits requests; wait, or log in with `rbuild login {registry}`"
            )),
            Error::Certificate { flaw: Flaw::Issuer | Flaw::Authority, .. } => {
                Some(format!("put the certificate authority of {registry} into certs.d"))
            }
            Error::Certificate { flaw: Flaw::Expired(_) | Flaw::NotYet(_), .. } => Some(format!(
                "the operator of {registry} must renew it, or this machine's clock is wrong"
            )),
            Error::Certificate { flaw: Flaw::Name(_), .. } => {
                Some(format!("use a name of {registry} that its certificate contains"))
            }
            Error::ClientCertificate { .. } => Some(format!(
                "put the certificate and its key into certs.d/{registry} as client.cert and client.key"
            )),
            Error::NoTls { .. } => {
                Some(format!("set `insecure = true` for {registry} in registries.conf"))
            }
            Error::Proxy { .. } => {
                Some(format!("add {registry} to NO_PROXY if it can be reached without a proxy"))
            }
            Error::Connection { source, .. } if source.is_connect() => Some(format!(
                "check that {registry} is its name and that this machine reaches it; HTTPS_PROXY names a proxy"
            )),
            Error::Interrupted { source: Some(source), .. } => source.hint(),
            Error::ShortName { name, .. } => {
                Some(format!("write the registry too, as in docker.io/library/{name}"))
            }
            Error::Source { source } => source.hint(),
            _ => None,
        }
    }
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosted_registries_refuse_comes_with_their_advice() {
        for quirk in quirks::TABLE {
            let registry = quirk.hosts[0].replace('*', "x");
            let answer = |action: &str, status| Error::Answer {
                registry: registry.clone(),
                action: action.to_owned(),
                status,
                code: String::new(),
                message: String::new(),
            };
            let login = quirk.login.unwrap_or("log in with `rbuild login REGISTRY`");
            let login = login.replace("REGISTRY", &registry);
            for status in [401, 403] {
                assert_eq!(answer("reading manifest a", status).hint().as_ref(), Some(&login));
            }
            let denied = answer("writing blob a", 403).hint().unwrap();
            let unknown = answer("writing blob a", 404).hint();
            assert_eq!(unknown.as_deref(), quirk.push, "{}", quirk.name);
            let both = quirk.push.map_or(login.clone(), |push| format!("{push}; else {login}"));
            assert_eq!(denied, both, "{}", quirk.name);
        }
    }
}
