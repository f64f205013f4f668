//! Which TLS is spoken: versions, cipher suites and named groups.

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

/// What TLS may use. What is `None` is as usual. Names are those of IANA's registries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsParameters {
    /// The lowest version: `1.2` or `1.3`. Older ones are never spoken.
    pub min_version: Option<String>,
    /// The cipher suites: `TLS_AES_128_GCM_SHA256`.
    pub cipher_suites: Option<Vec<String>>,
    /// The named groups of key exchanges: `x25519`.
    pub named_groups: Option<Vec<String>>,
}

impl TlsParameters {
    /// The cryptography that is allowed.
    pub(crate) fn provider(&self) -> Result<CryptoProvider, String> {
        let mut provider = rustls::crypto::ring::default_provider();
        if let Some(names) = &self.cipher_suites {
            let name = |suite: &rustls::SupportedCipherSuite| {
                suite.suite().as_str().unwrap_or_default().replace("TLS13_", "TLS_")
            };
            provider.cipher_suites = chosen("cipher suite", names, &provider.cipher_suites, name)?;
        }
        if let Some(names) = &self.named_groups {
            let name = |group: &&'static dyn rustls::crypto::SupportedKxGroup| {
                group.name().as_str().unwrap_or_default().to_owned()
            };
            provider.kx_groups = chosen("named group", names, &provider.kx_groups, name)?;
        }
        Ok(provider)
    }

    /// The versions that are allowed.
    pub(crate) fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
        match self.min_version.as_deref() {
            None | Some("1.0" | "1.1" | "1.2") => Ok(vec![&TLS13, &TLS12]),
            Some("1.3") => Ok(vec![&TLS13]),
            Some(other) => Err(format!("there is no TLS {other}; the versions are 1.2 and 1.3")),
        }
    }
}

/// Those of `all` that have one of these names.
fn chosen<T: Clone>(
    what: &str,
    names: &[String],
    all: &[T],
    name: impl Fn(&T) -> String,
) -> Result<Vec<T>, String> {
    let known: Vec<String> = all.iter().map(&name).collect();
    let is = |wanted: &String, at: &T| name(at).eq_ignore_ascii_case(wanted);
    for wanted in names {
        if !all.iter().any(|at| is(wanted, at)) {
            return Err(format!("there is no {what} {wanted}, only {}", known.join(", ")));
        }
    }
    Ok(all.iter().filter(|at| names.iter().any(|wanted| is(wanted, at))).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_what_tls_may_use() {
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let some = TlsParameters {
            min_version: Some("1.3".to_owned()),
            cipher_suites: names(&["TLS_AES_128_GCM_SHA256"]),
            named_groups: names(&["x25519", "secp256r1"]),
        };
        let provider = some.provider().unwrap();
        assert_eq!((provider.cipher_suites.len(), provider.kx_groups.len()), (1, 2));
        assert_eq!(some.versions().unwrap().len(), 1);
        assert_eq!(TlsParameters::default().versions().unwrap().len(), 2);
        let none = TlsParameters { named_groups: names(&["X25519MLKEM768"]), ..some.clone() };
        let error = none.provider().unwrap_err();
        assert!(error.contains("X25519MLKEM768") && error.contains("secp384r1"), "{error}");
        assert!(TlsParameters { min_version: Some("2".to_owned()), ..some }.versions().is_err());
    }
}
