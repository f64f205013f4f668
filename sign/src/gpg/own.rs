//! GPG signatures that are made and looked at with the user's own keyring.

use std::path::Path;

use image::{Digest, Reference};
use serde_json::json;

use super::{GpgChild, GpgOutput, MAX_GPG, TYPE, command, on_thread, run, signer};
use crate::error::{Error, Result};
use crate::printable::printable;
use crate::simple_signing;

/// No message is larger that `gpg` makes of a payload, or a payload that it takes out of one.
const LIMIT: u64 = 8 << 20;

/// The claim of a good signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedClaim {
    /// The fingerprints of the key that signed, and of its primary key.
    pub signer: Vec<String>,
    /// The name that was signed.
    pub name: String,
    /// The digest that was signed.
    pub digest: String,
}

fn failed(reason: impl Into<String>) -> Error {
    Error::GpgFailed { reason: reason.into() }
}

fn gpg(
    arguments: &[&str],
    secret: Option<&Path>,
    input: &[u8],
    running: &GpgChild,
) -> Result<GpgOutput> {
    let mut command = command();
    if let Some(secret) = secret {
        command.args(["--pinentry-mode", "loopback", "--passphrase-file"]).arg(secret);
    }
    let answer = run(command.args(arguments), input, LIMIT, running);
    let answer = answer.map_err(|error| failed(format!("running it: {error}")))?;
    if answer.success {
        return Ok(answer);
    }
    let said = answer.status.lines().filter(|line| !line.starts_with("[GNUPG:]"));
    let said: Vec<&str> = said.take(5).collect();
    Err(failed(printable(&said.join("; "))))
}

/// Signs that the image with this digest has this name, with a key of the user's keyring.
/// `creator` and `time`, in seconds since 1970, are for people. If this is not waited for to its
/// end, `gpg` is ended.
///
/// # Errors
/// [`Error::GpgFailed`]: there is no `gpg`, or no such key.
pub async fn sign(
    digest: &Digest,
    name: &Reference,
    fingerprint: &str,
    passphrase: Option<&Path>,
    (creator, time): (&str, i64),
) -> Result<Vec<u8>> {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": name.to_string() },
            "image": { "docker-manifest-digest": digest },
            "type": TYPE,
        },
        "optional": { "creator": creator, "timestamp": time },
    });
    let payload = payload.to_string().into_bytes();
    let (key, passphrase) = (fingerprint.to_owned(), passphrase.map(Path::to_owned));
    on_thread(move |running| {
        let arguments = ["--local-user", &key, "--sign"];
        Ok(gpg(&arguments, passphrase.as_deref(), &payload, running)?.output)
    })
    .await
}

/// Reads a signature and checks it with the user's keyring. If this is not waited for to its end,
/// `gpg` is ended.
///
/// # Errors
/// [`Error::GpgFailed`]: it is not good, or malformed.
pub async fn open(message: &[u8]) -> Result<SignedClaim> {
    if message.len() as u64 > MAX_GPG {
        return Err(failed(format!("it has more than {MAX_GPG} bytes")));
    }
    let message = message.to_owned();
    let opened = on_thread(move |running| gpg(&["--decrypt"], None, &message, running)).await?;
    let signer = signer(&opened.status).map_err(failed)?;
    let claims = simple_signing::read(&opened.output)
        .map_err(|error| failed(printable(&format!("its payload is malformed: {error}"))))?;
    if claims.kind != TYPE {
        return Err(failed(printable(&format!("it is a {:?}", claims.kind))));
    }
    Ok(SignedClaim { signer, name: claims.name, digest: claims.digest })
}
