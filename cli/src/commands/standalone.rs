//! `rcopy standalone-sign` and `standalone-verify`: GPG signatures of a manifest in a file.

use std::path::PathBuf;

use clap::Args;
use image::{Digest, Reference};
use task::Kind;

use super::gpg::{LARGEST, Payload, TYPE, gpg, sign, signer};
use super::tags::read_bounded;
use crate::report::Failure;

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
        let passphrase = self.passphrase_file.as_deref();
        let signed = sign(Digest::of(&manifest), &reference, &self.fingerprint, passphrase)?;
        std::fs::write(&self.output, signed)
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
