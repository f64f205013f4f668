//! GPG signatures of images in the older form of containers/image: an OpenPGP message that has the
//! payload in it (containers-signature(5)). The program `gpg` checks them, with a keyring that
//! holds the policy's keys and nothing else.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use image::{Digest, Reference};

use crate::policy::SignedIdentity;
use crate::verify::printable;
use crate::{Candidate, Error, Evidence, Mismatch, Rejected, Result, simple_signing};

/// What a payload must say it is.
const TYPE: &str = "atomic container signature";
/// No signature larger than this is looked at.
pub const MAX_GPG: u64 = 1 << 20;
/// No key file larger than this is read.
pub(crate) const MAX_KEYS: u64 = 4 << 20;
/// The most that `gpg` is listened to.
const SAID: u64 = 256 << 10;

/// A keyring of a policy's keys, which is gone when this is.
struct Keyring(tempfile::TempDir);

/// What `gpg` answered.
struct Answer {
    success: bool,
    output: Vec<u8>,
    status: String,
}

impl Keyring {
    fn of(keys: &[Vec<u8>]) -> Result<Keyring, String> {
        let directory = tempfile::Builder::new().prefix("gpg-").tempdir_in("/tmp");
        let ring = Keyring(directory.map_err(|error| format!("making a keyring: {error}"))?);
        for (index, key) in keys.iter().enumerate() {
            let imported = ring.run(&["--import"], key)?;
            if !imported.status.lines().any(|line| line.starts_with("[GNUPG:] IMPORT_OK ")) {
                return Err(format!("key {} of the policy is no GPG key", index + 1));
            }
        }
        Ok(ring)
    }

    /// Runs `gpg` on this keyring alone.
    fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Answer, String> {
        let path = self.0.path();
        let file = path.join("input");
        fs::write(&file, input).map_err(|error| format!("writing to a keyring: {error}"))?;
        let mut child = gpg(path)
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("running gpg: {error}"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let listening = std::thread::spawn(move || {
            let mut status = Vec::new();
            let read = stderr.map(|stderr| stderr.take(SAID).read_to_end(&mut status));
            read.and_then(std::io::Result::ok).map(|_| status).unwrap_or_default()
        });
        let mut output = Vec::new();
        // One byte more than a payload has: what is larger is refused, and not read to its end.
        let limit = simple_signing::MAX_PAYLOAD + 1;
        let read = stdout.map(|stdout| stdout.take(limit).read_to_end(&mut output));
        if !matches!(read, Some(Ok(n)) if (n as u64) < limit) {
            let _ = child.kill();
        }
        let ended = child.wait().map_err(|error| format!("waiting for gpg: {error}"))?;
        let status = listening.join().unwrap_or_default();
        let status = String::from_utf8_lossy(&status).into_owned();
        Ok(Answer { success: ended.success(), output, status })
    }
}

fn gpg(home: &Path) -> Command {
    let mut command = Command::new("gpg");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
    command.env("HOME", home).arg("--homedir").arg(home);
    command.args(["--batch", "--no-tty", "--no-autostart", "--no-options", "--status-fd", "2"]);
    command.args(["--trust-model", "always", "--no-auto-key-retrieve", "--no-auto-key-locate"]);
    command
}

/// The fingerprint of the one good signature of a message.
fn signer(status: &str) -> Result<String, &'static str> {
    let lines = status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(' ').collect()).collect();
    let named = |word: &str| lines.iter().filter(|line| line[0] == word).collect::<Vec<_>>();
    for (word, why) in [
        ("BADSIG", "it was changed after it was made"),
        ("ERRSIG", "none of the policy's keys made it"),
        ("EXPSIG", "it has expired"),
        ("EXPKEYSIG", "its key has expired"),
        ("REVKEYSIG", "its key was revoked"),
        ("NODATA", "it is no OpenPGP message"),
        ("DECRYPTION_OKAY", "it is encrypted"),
    ] {
        if !named(word).is_empty() {
            return Err(why);
        }
    }
    match (&named("GOODSIG")[..], &named("VALIDSIG")[..]) {
        // The last word is the fingerprint of the primary key.
        ([_], [valid]) if valid.len() > 1 => {
            Ok(valid.last().map(ToString::to_string).unwrap_or_default())
        }
        _ => Err("it does not have exactly one good signature"),
    }
}

/// Checks one message; gives back the fingerprint of the key that signed.
fn check(
    ring: &Keyring,
    image: &Digest,
    message: &[u8],
    (identity, asked): (&SignedIdentity, Option<&Reference>),
) -> Result<Result<String, Mismatch>, String> {
    let size = message.len() as u64;
    if size > MAX_GPG {
        return Ok(Err(Mismatch::TooLarge { size, limit: MAX_GPG }));
    }
    let opened = ring.run(&["--decrypt"], message)?;
    let signer = match signer(&opened.status) {
        Ok(signer) if opened.success => signer,
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
    identity: &SignedIdentity,
    asked: Option<&Reference>,
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
    let ring = Keyring::of(keys).map_err(failed)?;
    let mut rejected = Vec::new();
    for (candidate, message) in messages {
        match check(&ring, image, message, (identity, asked)).map_err(failed)? {
            Ok(signer) => return Ok(signer),
            Err(mismatch) => {
                rejected.push(Rejected { origin: candidate.origin.clone(), mismatch });
            }
        }
    }
    Err(Error::Unverified { image: *image, rejected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_good_signature_is_good() {
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AB me\n[GNUPG:] VALIDSIG AAAB 2026-01-01 1 0 4 0 1 10 00 CCCD\n";
        assert_eq!(signer(good).unwrap(), "CCCD");
        let with = |line: &str| format!("{good}[GNUPG:] {line}\n");
        for status in [
            String::new(),
            format!("{good}{good}"),
            good.replace("GOODSIG", "EXPKEYSIG"),
            good.replace("[GNUPG:] GOODSIG", "gpg: [GNUPG:] GOODSIG"),
            with("BADSIG AB me"),
            with("REVKEYSIG AB me"),
            with("DECRYPTION_OKAY"),
        ] {
            assert!(signer(&status).is_err(), "{status}");
        }
    }
}
