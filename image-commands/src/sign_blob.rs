//! `sign-blob` and `verify-blob`: signatures of files.

use std::path::PathBuf;

use app::{App, Runnable, observed};
use clap::Args;
use options::Failure;
use options::environment::read_bounded;
use options::progress::Progress;
use options::sealer::SealerFlags;
use options::signer::SignerFlags;
use task::Kind;

use crate::sign::by;

/// No larger file is signed: it is read whole.
const MAX_BLOB: u64 = 512 << 20;

/// Sign a file with a key or an identity
#[derive(Debug, Args)]
pub struct SignBlob {
    /// The file
    file: PathBuf,
    /// Write the signature to this file as a sigstore bundle
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    #[command(flatten)]
    sealer: SealerFlags,
}

impl Runnable for SignBlob {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let content = read_bounded(&self.file, MAX_BLOB)?;
        let (bundle, by) = observed("sign", Progress::Auto, |task| {
            let credentials = self.sealer.credentials(app, task)?;
            let sealer = credentials.sealer();
            let bundle = app.wait(sign::sign_blob(&content, sealer, task))??;
            Ok::<_, Failure>((bundle, sealer.to_string()))
        })?;
        std::fs::write(&self.bundle, bundle)
            .map_err(|error| Failure::io(format!("writing {}", self.bundle.display()), &error))?;
        outln!("signed {} {by}", self.file.display());
        Ok(0)
    }
}

/// Verify the signature of a file
#[derive(Debug, Args)]
pub struct VerifyBlob {
    /// The file
    file: PathBuf,
    /// Read the signature from this sigstore bundle
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    #[command(flatten)]
    signers: SignerFlags,
}

impl Runnable for VerifyBlob {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let signers = self.signers.signers(app)?;
        let content = read_bounded(&self.file, MAX_BLOB)?;
        let bundle = read_bounded(&self.bundle, sign::bundle::MAX_BUNDLE)?;
        let signer = sign::verify_blob(&content, &bundle, &signers).map_err(|mismatch| {
            let (file, bundle) = (self.file.display(), self.bundle.display());
            let what = format!("verifying {file}: its signature in {bundle} is not accepted");
            Failure::new(Kind::Refused, format!("{what}: {mismatch}"))
        })?;
        outln!("verified {} signed {}", self.file.display(), by(&signer));
        Ok(0)
    }
}
