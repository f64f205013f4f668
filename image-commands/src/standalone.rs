//! `rcopy standalone-sign` and `standalone-verify`: GPG signatures of a manifest in a file.

use std::path::PathBuf;

use app::{App, Runnable};
use clap::Args;
use image::{Digest, Reference};
use options::Failure;
use options::environment::{now, read_bounded};
use task::Kind;

/// Sign a manifest in a file with a GPG key
#[derive(Debug, Args)]
pub struct StandaloneSign {
    /// The manifest
    manifest: PathBuf,
    /// The name to sign: registry.example/team/app:tag
    reference: String,
    /// The key
    fingerprint: String,
    /// Write the signature to this file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Read the key's passphrase from a file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Runnable for StandaloneSign {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let manifest = read_bounded(&self.manifest, image::MAX_DOCUMENT)?;
        let reference: Reference = self.reference.parse()?;
        let passphrase = self.passphrase_file.as_deref();
        let made = (concat!("rcopy ", env!("CARGO_PKG_VERSION")), now());
        let digest = Digest::of(&manifest);
        let signed = sign::gpg::sign(&digest, &reference, &self.fingerprint, passphrase, made);
        let signed = app.wait(signed)??;
        std::fs::write(&self.output, signed)
            .map_err(|error| Failure::io(format!("writing {}", self.output.display()), &error))?;
        Ok(0)
    }
}

/// Verify a GPG signature of a manifest in a file
#[derive(Debug, Args)]
pub struct StandaloneVerify {
    /// The manifest
    manifest: PathBuf,
    /// The name that the signature must contain
    reference: String,
    /// The full fingerprint of the key that must have signed, or `any` key of the keyring
    fingerprint: String,
    /// The signature
    signature: PathBuf,
}

impl Runnable for StandaloneVerify {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let manifest = read_bounded(&self.manifest, image::MAX_DOCUMENT)?;
        let signature = read_bounded(&self.signature, sign::MAX_GPG)?;
        let doing = format!("verifying {}", self.signature.display());
        let refuse = |why: String| Failure::new(Kind::Refused, format!("{doing}: {why}"));
        let opened = app
            .wait(sign::gpg::open(&signature))?
            .map_err(|error| Failure::from(error).context(doing.clone()))?;
        let signer = &opened.signer;
        let wanted = self.fingerprint.replace(' ', "").to_ascii_uppercase();
        if self.fingerprint != "any" && !signer.contains(&wanted) {
            return Err(refuse(format!("it was made by {}", signer.join(" of "))));
        }
        let reference: Reference = self.reference.parse()?;
        if opened.name.parse::<Reference>().ok().as_ref() != Some(&reference) {
            return Err(refuse(format!("it is of {}", opened.name)));
        }
        let found = Digest::of(&manifest);
        if opened.digest != found.to_string() {
            return Err(refuse(format!("it is of {}, not of {found}", opened.digest)));
        }
        outln!("Signature verified using fingerprint {}, digest {found}", signer[0]);
        Ok(0)
    }
}
