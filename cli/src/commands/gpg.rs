//! GPG signatures of images, as containers-signature(5) describes them, made and read by `gpg`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use image::{Digest, Reference};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use task::Kind;

use crate::report::Failure;

pub(crate) const TYPE: &str = "atomic container signature";
/// No signature is larger.
pub(crate) const LARGEST: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payload {
    pub critical: Critical,
    optional: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Critical {
    pub identity: Identity,
    pub image: Image,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    #[serde(rename = "docker-reference")]
    pub reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    #[serde(rename = "docker-manifest-digest")]
    pub digest: Digest,
}

/// What `gpg` answered.
pub(crate) struct Answer {
    pub output: Vec<u8>,
    pub status: String,
}

/// Runs `gpg` with `input` and gives back what it wrote and its status lines.
///
/// # Errors
/// There is no `gpg`; it refuses.
pub(crate) fn gpg(
    arguments: &[&str],
    secret: Option<&Path>,
    input: &[u8],
) -> Result<Answer, Failure> {
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

/// Signs that the image with this digest has this name.
///
/// # Errors
/// There is no `gpg`, or no such key.
pub(crate) fn sign(
    digest: Digest,
    reference: &Reference,
    fingerprint: &str,
    passphrase: Option<&Path>,
) -> Result<Vec<u8>, Failure> {
    let payload = Payload {
        critical: Critical {
            identity: Identity { reference: reference.to_string() },
            image: Image { digest },
            kind: TYPE.to_owned(),
        },
        optional: Some(Map::from_iter([
            ("creator".to_owned(), concat!("rcopy ", env!("CARGO_PKG_VERSION")).into()),
            ("timestamp".to_owned(), jiff::Timestamp::now().as_second().into()),
        ])),
    };
    let payload = serde_json::to_vec(&payload)
        .map_err(|error| Failure::new(Kind::System, format!("writing the payload: {error}")))?;
    Ok(gpg(&["--local-user", fingerprint, "--sign"], passphrase, &payload)?.output)
}

/// The fingerprints of the one good signature: of the key that made it and of its primary key.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn signer(status: &str) -> Result<Vec<String>, &'static str> {
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
