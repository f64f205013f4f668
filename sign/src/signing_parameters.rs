//! `containers-sigstore-signing-params.yaml`(5): how tools of containers/image sign.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};

/// What the file says, as far as it can be done: a private key, and where its passphrase is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningParameters {
    /// The private key.
    pub private_key: PathBuf,
    /// The file with its passphrase.
    pub passphrase: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ParametersFile {
    private_key_file: Option<PathBuf>,
    private_key_passphrase_file: Option<PathBuf>,
    fulcio: Option<IgnoredAny>,
    #[serde(rename = "rekorURL")]
    rekor_url: Option<String>,
}

impl SigningParameters {
    /// Reads the file; `path` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Parameters`]: it breaks the grammar, names no private key, or asks for signing by
    /// identity or for a log.
    pub fn read(path: &Path, text: &str) -> Result<SigningParameters> {
        let refuse = |reason: String| Error::Parameters { path: path.to_owned(), reason };
        let read: ParametersFile =
            serde_saphyr::from_str(text).map_err(|error| refuse(error.to_string()))?;
        for (key, given) in
            [("fulcio", read.fulcio.is_some()), ("rekorURL", read.rekor_url.is_some())]
        {
            if given {
                return Err(refuse(format!("{key} is not supported")));
            }
        }
        let private_key = read.private_key_file;
        let private_key =
            private_key.ok_or_else(|| refuse("it names no privateKeyFile".to_owned()))?;
        Ok(SigningParameters { private_key, passphrase: read.private_key_passphrase_file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_read_and_the_rest_is_refused_by_name() {
        let read = |text: &str| SigningParameters::read(Path::new("params.yaml"), text);
        let good = read("privateKeyFile: /k\nprivateKeyPassphraseFile: /p\n").unwrap();
        assert_eq!((good.private_key, good.passphrase), ("/k".into(), Some("/p".into())));
        for (text, word) in [
            ("privateKeyFile: /k\nrekorURL: https://r\n", "rekorURL"),
            ("fulcio: {}\n", "fulcio"),
            ("privateKeyPassphraseFile: /p\n", "privateKeyFile"),
            ("other: 1\n", "other"),
        ] {
            let refused = read(text).unwrap_err().to_string();
            assert!(refused.contains("params.yaml") && refused.contains(word), "{refused}");
        }
    }
}
