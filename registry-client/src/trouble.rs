//! What a transport failure means.

use std::time::{Duration, UNIX_EPOCH};

use rustls::{AlertDescription, CertificateError, InvalidMessage};
use url::Url;

use crate::Error;
use crate::connect::authority_of;
use crate::error::{Flaw, causes};
use crate::inner::ClientInner;

impl ClientInner {
    /// Why a URL could not be reached; the proxy on the way may be to blame.
    pub(crate) fn unreached(
        &self,
        url: &Url,
        registry: &str,
        action: &str,
        source: reqwest::Error,
    ) -> Error {
        let Ok(Some(proxy)) = self.options.proxies.of(url) else {
            return connection(registry, action, source);
        };
        let said = causes(&source).find_map(|cause| tunnel(&cause.to_string()));
        let (reason, refused) = match said {
            Some(reason) => (reason, true),
            None if source.is_connect() && tls(&source).is_none() => ("cannot be reached", false),
            None => return connection(registry, action, source),
        };
        Error::Proxy {
            proxy: authority_of(proxy),
            registry: registry.to_owned(),
            action: action.to_owned(),
            reason: reason.to_owned(),
            refused,
            cause: Some(source.without_url()),
        }
    }
}

/// The message of the HTTP library for a proxy that refuses a tunnel; its error type is not public.
fn tunnel(message: &str) -> Option<&'static str> {
    match message.strip_prefix("tunnel error: ")? {
        "proxy authorization required" => Some("wants credentials"),
        "unsuccessful" => Some("refuses to connect to it"),
        "unexpected end of file" => Some("closes the connection"),
        _ => None,
    }
}

/// A transport failure without the URL, which may carry a signature.
pub(crate) fn connection(registry: &str, action: &str, source: reqwest::Error) -> Error {
    let (registry, action, source) = (registry.to_owned(), action.to_owned(), source.without_url());
    match tls(&source) {
        Some(rustls::Error::InvalidCertificate(error)) => {
            let flaw = flaw(error);
            Error::Certificate { registry, action, flaw, cause: source }
        }
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            Error::NoTls { registry, action, cause: source }
        }
        Some(rustls::Error::AlertReceived(alert)) if is_about_ours(*alert) => {
            Error::ClientCertificate { registry, action, cause: source }
        }
        _ => Error::Connection { registry, action, source },
    }
}

/// Whether a connection was ended for the certificate that we showed or did not show.
pub(crate) fn is_about_our_certificate(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(alert)) if is_about_ours(*alert))
}

/// Whether an alert is about the certificate that we showed or did not show.
fn is_about_ours(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

fn flaw(error: &CertificateError) -> Flaw {
    let date = |seconds: u64| {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)))
    };
    match error {
        CertificateError::Expired => Flaw::Expired(None),
        CertificateError::ExpiredContext { not_after, .. } => {
            Flaw::Expired(Some(date(not_after.as_secs())))
        }
        CertificateError::NotValidYet => Flaw::NotYet(None),
        CertificateError::NotValidYetContext { not_before, .. } => {
            Flaw::NotYet(Some(date(not_before.as_secs())))
        }
        CertificateError::NotValidForName => Flaw::Name(Vec::new()),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = presented.iter().take(8);
            Flaw::Name(names.map(|name| crate::wire::printable(&bare(name))).collect())
        }
        CertificateError::UnknownIssuer => Flaw::Issuer,
        CertificateError::Revoked => Flaw::Revoked,
        CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => Flaw::Authority,
            _ => Flaw::Other,
        },
        _ => Flaw::Other,
    }
}

/// `DnsName("a.example")` and `IpAddress(…)` as people write them.
fn bare(presented: &str) -> String {
    let inside = presented.split_once('(').map_or(presented, |(_, rest)| rest);
    inside.trim_end_matches(')').trim_matches('"').to_owned()
}

/// The TLS failure inside, if that is what it is.
fn tls(error: &reqwest::Error) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_as_what_it_is() {
        let at =
            |seconds| rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext { time: at(2), not_after: at(784_111_777) };
        assert_eq!(flaw(&expired).to_string(), "expired on Sun, 06 Nov 1994 08:49:37 GMT");
        let name = CertificateError::NotValidForNameContext {
            expected: "r.example".try_into().unwrap(),
            presented: vec!["DnsName(\"a.example\")".into(), "IpAddress(10.0.0.1)".into()],
        };
        assert_eq!(flaw(&name).to_string(), "is for a.example, 10.0.0.1 only");
        let other = CertificateError::Other(rustls::OtherError(std::sync::Arc::new(
            webpki::Error::CaUsedAsEndEntity,
        )));
        assert_eq!(flaw(&other), Flaw::Authority);
    }
}
