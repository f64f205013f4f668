//! `rcopy standalone-sign` and `standalone-verify`: GPG signatures of a manifest in a file, as
//! containers-signature(5) describes them. The program `gpg` makes and reads them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use image::{Digest, Reference};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use task::Kind;

use super::tags::read_bounded;
use crate::report::Failure;

const TYPE: &str = "atomic container signature";
/// No signature is larger.
const LARGEST: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    optional: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// What `gpg` answered.
struct Answer {
    output: Vec<u8>,
    status: String,
}

/// Runs `gpg` with `input` and gives back what it wrote and its status lines.
fn gpg(arguments: &[&str], secret: Option<&Path>, input: &[u8]) -> Result<Answer, Failure> {
    let mut command = Command::new("gpg");
    command.args(["--batch", "--no-tty", "--status-fd", "2"]);
    if let Some(secret) = secret {
        command.args(["--pinentry-mode", "loopback", "--passphrase-file"]).arg(secret);
    }
    let failed = |error: &std::io::Error| {
        Failure::io("running gpg", error).hint("install GnuPG: `apt install gnupg`")
    };
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut stdin = child.stdin.take();
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || {
        // Where gpg stops reading it says why itself.
        let _ = stdin.as_mut().map(|stdin| stdin.write_all(&input));
    });
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    let _ = feeding.join();
    let status = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(Answer { output: output.stdout, status });
    }
    let said: Vec<&str> =
        status.lines().filter(|line| !line.starts_with("[GNUPG:]")).take(5).collect();
    Err(Failure::new(Kind::Refused, format!("gpg failed: {}", said.join("; "))))
}

/// Sign a manifest in a file with a GPG key
#[derive(Debug, Args)]
pub(crate) struct StandaloneSign {
    /// The manifest
    manifest: PathBuf,
    /// The name that is signed: registry.example/team/app:tag
    reference: String,
    /// The key
    fingerprint: String,
    /// Where the signature goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A file with the key's passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl StandaloneSign {
    /// Signs.
    ///
    /// # Errors
    /// There is no such key; the file cannot be written.
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let manifest = read_bounded(&self.manifest, image::MAX_DOCUMENT)?;
        let reference: Reference = self.reference.parse()?;
        let payload = Payload {
            critical: Critical {
                identity: Identity { reference: reference.to_string() },
                image: Image { digest: Digest::of(&manifest) },
                kind: TYPE.to_owned(),
            },
            optional: Some(Map::from_iter([
                ("creator".to_owned(), concat!("rcopy ", env!("CARGO_PKG_VERSION")).into()),
                ("timestamp".to_owned(), jiff::Timestamp::now().as_second().into()),
            ])),
        };
        let payload = serde_json::to_vec(&payload)
            .map_err(|error| Failure::new(Kind::System, format!("writing the payload: {error}")))?;
        // A name that starts with a hyphen is no option behind its flag.
        let arguments = ["--local-user", self.fingerprint.as_str(), "--sign"];
        let signed = gpg(&arguments, self.passphrase_file.as_deref(), &payload)?;
        std::fs::write(&self.output, signed.output)
            .map_err(|error| Failure::io(format!("writing {}", self.output.display()), &error))?;
        Ok(0)
    }
}

/// Verify a GPG signature of a manifest in a file
#[derive(Debug, Args)]
pub(crate) struct StandaloneVerify {
    /// The manifest
    manifest: PathBuf,
    /// The name that must have been signed
    reference: String,
    /// The key that must have signed: its full fingerprint, or `any` of the keyring
    fingerprint: String,
    /// The signature
    signature: PathBuf,
}

impl StandaloneVerify {
    /// Verifies.
    ///
    /// # Errors
    /// The signature is not good, or of something else.
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let manifest = read_bounded(&self.manifest, image::MAX_DOCUMENT)?;
        let signature = read_bounded(&self.signature, LARGEST)?;
        let refuse = |why: String| {
            Failure::new(Kind::Refused, format!("verifying {}: {why}", self.signature.display()))
        };
        let opened = gpg(&["--decrypt"], None, &signature)?;
        let signer = signer(&opened.status).map_err(|why| refuse(why.to_owned()))?;
        let wanted = self.fingerprint.replace(' ', "").to_ascii_uppercase();
        if self.fingerprint != "any" && !signer.contains(&wanted) {
            return Err(refuse(format!("it was made by {}", signer.join(" of "))));
        }
        let payload: Payload = serde_json::from_slice(&opened.output)
            .map_err(|error| refuse(format!("its payload is malformed: {error}")))?;
        let critical = payload.critical;
        if critical.kind != TYPE {
            return Err(refuse(format!("it is a {:?}", critical.kind)));
        }
        let reference: Reference = self.reference.parse()?;
        if critical.identity.reference.parse::<Reference>().ok().as_ref() != Some(&reference) {
            return Err(refuse(format!("it is of {}", critical.identity.reference)));
        }
        let found = Digest::of(&manifest);
        if critical.image.digest != found {
            return Err(refuse(format!("it is of {}, not of {found}", critical.image.digest)));
        }
        outln!("Signature verified using fingerprint {}, digest {found}", signer[0]);
        Ok(0)
    }
}

/// The fingerprints of the one good signature: of the key that made it and of its primary key.
fn signer(status: &str) -> Result<Vec<String>, &'static str> {
    let lines: Vec<Vec<&str>> = status
        .lines()
        .filter_map(|line| line.strip_prefix("[GNUPG:] "))
        .map(|line| line.split(' ').collect())
        .collect();
    let named = |word: &str| lines.iter().filter(|line| line[0] == word).collect::<Vec<_>>();
    let bad = ["BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA", "DECRYPTION_OKAY"];
    if bad.iter().any(|word| !named(word).is_empty()) {
        return Err("it is not good, expired or revoked, or no signature");
    }
    match (&named("GOODSIG")[..], &named("VALIDSIG")[..]) {
        ([_], [valid]) if valid.len() > 1 => {
            // The primary key's fingerprint is the last word.
            let ends = [valid.get(1), valid.last()];
            Ok(ends.into_iter().flatten().map(|word| (*word).to_owned()).collect())
        }
        _ => Err("it does not have exactly one good signature"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_good_signature_is_good() {
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AB me\n[GNUPG:] VALIDSIG AAAB 2026-01-01 1 0 4 0 1 10 00 CCCD\n";
        assert_eq!(signer(good).unwrap(), ["AAAB", "CCCD"]);
        let twice = format!("{good}{good}");
        let expired = good.replace("GOODSIG", "EXPKEYSIG");
        let forged = good.replace("[GNUPG:] GOODSIG", "gpg: [GNUPG:] GOODSIG");
        let bad = format!("{good}[GNUPG:] BADSIG AB me\n");
        for status in ["", &twice, &expired, &forged, &bad] {
            assert!(signer(status).is_err(), "{status}");
        }
    }
}
