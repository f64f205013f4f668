//! GPG signatures that a policy asks for: `gpg` has a keyring of the policy's keys and nothing else.

use image::{Digest, Reference};

use super::{GpgChild, GpgOutput, MAX_GPG, TYPE, command, run, signer};
use crate::error::{Error, RejectedSignature, Result};
use crate::mismatch::Mismatch;
use crate::printable::printable;
use crate::signed_identity::SignedIdentity;
use crate::simple_signing;
use crate::verify::{Candidate, Evidence};

/// A keyring of a policy's keys, which is gone when this is.
struct Keyring<'a> {
    home: tempfile::TempDir,
    running: &'a GpgChild,
}

impl Keyring<'_> {
    fn of<'a>(keys: &[Vec<u8>], running: &'a GpgChild) -> Result<Keyring<'a>, String> {
        let directory = tempfile::Builder::new().prefix("gpg-").tempdir_in("/tmp");
        let home = directory.map_err(|error| format!("making a keyring: {error}"))?;
        let ring = Keyring { home, running };
        for (index, key) in keys.iter().enumerate() {
            let imported = ring.run("--import", key)?;
            if !imported.status.lines().any(|line| line.starts_with("[GNUPG:] IMPORT_OK ")) {
                return Err(format!("key {} of the policy is not a GPG key", index + 1));
            }
        }
        Ok(ring)
    }

    /// Runs `gpg` on this keyring alone, with an empty environment.
    fn run(&self, action: &str, input: &[u8]) -> Result<GpgOutput, String> {
        let home = self.home.path();
        let mut command = command();
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        command.env("HOME", home).arg("--homedir").arg(home);
        command.args(["--no-autostart", "--no-options", "--trust-model", "always"]);
        command.args(["--no-auto-key-retrieve", "--no-auto-key-locate", action]);
        // One byte more than a payload has: what is larger is refused, and not read to its end.
        let limit = simple_signing::MAX_PAYLOAD + 1;
        let ran = run(&mut command, input, limit, self.running);
        ran.map_err(|error| format!("running gpg: {error}"))
    }
}

/// Checks one message; gives back the fingerprint of the key that signed.
fn check(
    ring: &Keyring<'_>,
    image: &Digest,
    message: &[u8],
    (identity, asked): (&SignedIdentity, Option<&Reference>),
) -> Result<Result<String, Mismatch>, String> {
    let size = message.len() as u64;
    if size > MAX_GPG {
        return Ok(Err(Mismatch::TooLarge { size, limit: MAX_GPG }));
    }
    let opened = ring.run("--decrypt", message)?;
    let signer = match signer(&opened.status) {
        Ok(signer) if opened.success => signer.last().cloned().unwrap_or_default(),
        Ok(_) => return Ok(Err(Mismatch::Gpg("gpg failed".to_owned()))),
        Err(why) => return Ok(Err(Mismatch::Gpg(why.to_owned()))),
    };
    let claims = match simple_signing::read(&opened.output) {
        Ok(claims) => claims,
        Err(error) => {
            return Ok(Err(Mismatch::Malformed(printable(&format!("its payload: {error}")))));
        }
    };
    if claims.kind != TYPE {
        return Ok(Err(Mismatch::Type(printable(&claims.kind))));
    }
    if claims.digest != image.to_string() {
        return Ok(Err(Mismatch::Digest { signed: printable(&claims.digest) }));
    }
    Ok(identity.check(asked, Some(&claims.name)).map(|()| signer))
}

/// Checks the GPG signatures among those of an image; gives back who made a good one.
///
/// # Errors
/// [`Error::Unsigned`], [`Error::Unverified`]; [`Error::Gpg`] where `gpg` or a key is of no use.
pub(crate) fn any(
    image: &Digest,
    candidates: &[Candidate],
    keys: &[Vec<u8>],
    (identity, asked): (&SignedIdentity, Option<&Reference>),
    running: &GpgChild,
) -> Result<String> {
    let failed = |reason: String| Error::Gpg { image: *image, reason };
    let messages = candidates.iter().filter_map(|candidate| match &candidate.evidence {
        Evidence::Gpg(message) => Some((candidate, message)),
        _ => None,
    });
    let messages: Vec<_> = messages.collect();
    if messages.is_empty() {
        return Err(Error::Unsigned { image: *image });
    }
    let ring = Keyring::of(keys, running).map_err(failed)?;
    let mut rejected = Vec::new();
    for (candidate, message) in messages {
        match check(&ring, image, message, (identity, asked)).map_err(failed)? {
            Ok(signer) => return Ok(signer),
            Err(mismatch) => {
                rejected.push(RejectedSignature { origin: candidate.origin.clone(), mismatch });
            }
        }
    }
    Err(Error::Unverified { image: *image, rejected })
}
