//! Keys in files, and their passphrases.

use std::path::Path;

use sign::{PrivateKey, PublicKey};
use task::Kind;

use crate::environment::absolute;
use crate::{Failure, Program};

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let size = std::fs::metadata(path).map(|meta| meta.len());
    match size {
        Ok(0..=65_536) => {}
        Ok(_) => {
            return Err(Failure::new(
                Kind::Invalid,
                format!("{} is too large for a key", path.display()),
            ));
        }
        Err(error) => return Err(Failure::io(format!("reading {}", path.display()), &error)),
    }
    std::fs::read(path).map_err(|error| Failure::io(format!("reading {}", path.display()), &error))
}

/// The passphrase of a key: in a file, or in `$COSIGN_PASSWORD`.
///
/// # Errors
/// The file cannot be read.
pub fn passphrase(file: Option<&Path>) -> Result<Option<Vec<u8>>, Failure> {
    match file {
        Some(file) => {
            let mut bytes = read(file)?;
            while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                bytes.pop();
            }
            Ok(Some(bytes))
        }
        None => Ok(std::env::var("COSIGN_PASSWORD").ok().map(String::into_bytes)),
    }
}

/// Reads a private key; prompts for its passphrase if it is not given.
///
/// # Errors
/// It cannot be read or opened.
pub fn private_key(
    program: &impl Program,
    path: &Path,
    passphrase_file: Option<&Path>,
) -> Result<PrivateKey, Failure> {
    let pem = read(&absolute(path)?)?;
    let passphrase = match PrivateKey::is_encrypted(&pem) {
        false => None,
        true => Some(match passphrase(passphrase_file)? {
            Some(passphrase) => passphrase,
            None => {
                program.ask_secret(&format!("Passphrase of {}: ", path.display()))?.into_bytes()
            }
        }),
    };
    PrivateKey::read(&pem, passphrase.as_deref())
        .map_err(|error| Failure::from(error).context(format!("reading key {}", path.display())))
}

/// Reads a public key.
///
/// # Errors
/// It cannot be read, or is none.
pub fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    PublicKey::read(&read(&absolute(path)?)?)
        .map_err(|error| Failure::from(error).context(format!("reading key {}", path.display())))
}
