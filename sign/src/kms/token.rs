//! Keys in hardware, by PKCS #11: OpenSC's `pkcs11-tool` talks to the token, so that our programs,
//! which are static, need not load its library.

use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use super::request::{SigningRequest, refuse};
use crate::error::{Error, Result};
use crate::key::PublicKey;
use crate::printable::printable;
use crate::spki::{Scheme, Spki};

/// The variable in which `pkcs11-tool` gets the PIN, which is on no command line.
const PIN: &str = "RBUILD_PKCS11_PIN";
/// What stands before a SHA-256 in a signature of RSA (RFC 8017, section 9.2).
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// How tokens are reached.
#[derive(Clone, Default)]
pub struct TokenAccess {
    /// `COSIGN_PKCS11_MODULE_PATH`: the token's library, where the URI does not say.
    pub module: Option<String>,
    /// `COSIGN_PKCS11_PIN`: the PIN, where the URI does not say.
    pub pin: Option<String>,
}

/// A key, by a URI of RFC 7512.
pub(super) struct TokenKey {
    module: String,
    pin: Option<String>,
    /// What chooses the token and the key.
    chosen: Vec<String>,
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes
}

impl TokenKey {
    fn read(uri: &str, access: &TokenAccess) -> Result<TokenKey> {
        let (mut module, mut pin, mut chosen) =
            (access.module.clone(), access.pin.clone(), Vec::new());
        let mut named = false;
        for part in uri.split([';', '?', '&']).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let bytes = decoded(value);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            match name {
                "token" => chosen.extend(["--token-label".to_owned(), text]),
                "slot-id" => chosen.extend(["--slot".to_owned(), text]),
                "object" => {
                    named = true;
                    chosen.extend(["--label".to_owned(), text]);
                }
                "id" => {
                    named = true;
                    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    chosen.extend(["--id".to_owned(), hex]);
                }
                "module-path" => module = Some(text),
                "pin-value" => pin = Some(text),
                "type" => {}
                other => {
                    return Err(refuse(format!("pkcs11:{uri}: {other:?} is not supported")));
                }
            }
        }
        if !named {
            return Err(refuse(format!("pkcs11:{uri} names no key: add object= or id=")));
        }
        let module = module.ok_or_else(|| {
            refuse("the token's library is not known: add ?module-path= or set COSIGN_PKCS11_MODULE_PATH")
        })?;
        Ok(TokenKey { module, pin, chosen })
    }

    pub(super) async fn open(uri: &str, access: &TokenAccess) -> Result<(TokenKey, PublicKey)> {
        let key = TokenKey::read(uri, access)?;
        let directory = scratch()?;
        let output = directory.path().join("public");
        key.run(&["--read-object", "--type", "pubkey"], &output, None).await?;
        let der = read(&output)?;
        let spki = Spki::read(&der).map_err(refuse)?;
        Ok((key, PublicKey::from(spki)))
    }

    pub(super) async fn sign(&self, request: &SigningRequest<'_>) -> Result<Vec<u8>> {
        let directory = scratch()?;
        let (input, output) = (directory.path().join("input"), directory.path().join("output"));
        let (mechanism, bytes) = match request.scheme {
            Scheme::P256 | Scheme::P384 | Scheme::P521 => ("ECDSA", request.hash.clone()),
            Scheme::Rsa => ("RSA-PKCS", [&SHA256_INFO[..], &request.hash].concat()),
            Scheme::Ed25519 => ("EDDSA", request.message.to_vec()),
        };
        std::fs::write(&input, bytes).map_err(|error| refuse(error.to_string()))?;
        let mut words = vec!["--sign", "--mechanism", mechanism];
        if mechanism == "ECDSA" {
            words.extend(["--signature-format", "openssl"]);
        }
        self.run(&words, &output, Some(&input)).await?;
        read(&output)
    }

    async fn run(&self, words: &[&str], output: &PathBuf, input: Option<&PathBuf>) -> Result<()> {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(&self.module).args(&self.chosen).args(words);
        command.arg("--output-file").arg(output);
        if let Some(input) = input {
            command.arg("--input-file").arg(input);
        }
        if let Some(pin) = &self.pin {
            command.args(["--login", "--pin", &format!("env:{PIN}")]).env(PIN, pin);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let ran = command.output().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => refuse("pkcs11-tool is not installed (OpenSC)"),
            _ => refuse(format!("running pkcs11-tool: {error}")),
        })?;
        match ran.status.success() && output.exists() {
            true => Ok(()),
            false => {
                let said = printable(String::from_utf8_lossy(&ran.stderr).trim());
                Err(refuse(format!("pkcs11-tool: {said}")))
            }
        }
    }
}

fn scratch() -> Result<TempDir> {
    tempfile::tempdir().map_err(|error| refuse(format!("making a directory: {error}")))
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    let what = "the token's answer";
    std::fs::read(path).map_err(|source| Error::File { what, path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_choose_token_key_library_and_pin() {
        let access = TokenAccess { module: Some("/lib/usual.so".to_owned()), pin: None };
        let key =
            TokenKey::read("token=my%20team;object=a%3Bb;id=%01%ff?pin-value=12", &access).unwrap();
        assert_eq!(key.chosen, ["--token-label", "my team", "--label", "a;b", "--id", "01ff"]);
        assert_eq!((&*key.module, key.pin.as_deref()), ("/lib/usual.so", Some("12")));
        let own = TokenKey::read("object=a?module-path=/lib/own.so&pin-value=1", &access).unwrap();
        assert_eq!(own.module, "/lib/own.so");
        for (uri, words) in
            [("token=a", "names no key"), ("object=a;x=1", "\"x\" is not supported")]
        {
            let error = TokenKey::read(uri, &access).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(TokenKey::read("object=a", &TokenAccess::default()).is_err());
    }
}
