//! The file of containers-tls-details.yaml(5), as `--tls-details` names it.

use registry_client::TlsParameters;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TlsDetails {
    min_version: Option<String>,
    cipher_suites: Option<Vec<String>>,
    named_groups: Option<Vec<String>>,
}

/// What a file of TLS details allows.
///
/// # Errors
/// The text is not such a file: why.
pub fn tls_details(text: &str) -> Result<TlsParameters, String> {
    let details: Option<TlsDetails> =
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    Ok(details.map_or_else(TlsParameters::default, |details| TlsParameters {
        min_version: details.min_version,
        cipher_suites: details.cipher_suites,
        named_groups: details.named_groups,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tls_details_says_what_is_allowed() {
        let read = tls_details("minVersion: \"1.3\"\nnamedGroups: [x25519]\n").unwrap();
        assert_eq!(read.min_version.as_deref(), Some("1.3"));
        assert_eq!(read.named_groups, Some(vec!["x25519".to_owned()]));
        assert_eq!(tls_details("{}").unwrap(), TlsParameters::default());
        for wrong in ["minVersion: [1]", "maxVersion: '1.2'", "- a"] {
            assert!(tls_details(wrong).is_err(), "{wrong}");
        }
    }
}
