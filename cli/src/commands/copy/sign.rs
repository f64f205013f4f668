//! Signing what was copied.

use std::path::PathBuf;

use clap::Args;
use image::{Descriptor, Reference};
use sign::{Form, PrivateKey, SignOptions};
use task::Task;
use transport::Location;

use super::super::place::Access;
use super::super::sign::private_key;
use crate::app::App;
use crate::report::{self, Failure};

/// How a copy is signed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signing")]
pub(crate) struct SignFlags {
    /// Sign with this private key, as cosign makes it; the signature is a tag beside the image
    #[arg(long, value_name = "FILE")]
    sign_by_sigstore_private_key: Option<PathBuf>,
    /// A file with the key's passphrase (default: $COSIGN_PASSWORD, or asked for)
    #[arg(long, value_name = "FILE", requires = "sign_by_sigstore_private_key")]
    sign_passphrase_file: Option<PathBuf>,
    /// Sign this name instead of the destination's
    #[arg(long, value_name = "NAME")]
    sign_identity: Option<String>,
    /// Refused: needs a lookaside store of GPG signatures
    #[arg(long, value_name = "FINGERPRINT", hide = true)]
    sign_by: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    sign_by_sigstore: Option<PathBuf>,
    #[arg(long, value_name = "FINGERPRINT", hide = true)]
    sign_by_sq_fingerprint: Option<String>,
}

/// A copy's signature that is ready to be made.
pub(crate) struct Signer {
    key: PrivateKey,
    name: Reference,
}

impl SignFlags {
    /// Reads the key before anything is copied; `None` where nothing is to be signed.
    ///
    /// # Errors
    /// The key cannot be read; there is no name to sign; a form of signing that we do not have.
    pub(crate) fn signer(&self, to: &Location) -> Result<Option<Signer>, Failure> {
        let refused = [
            ("--sign-by", self.sign_by.is_some()),
            ("--sign-by-sigstore", self.sign_by_sigstore.is_some()),
            ("--sign-by-sq-fingerprint", self.sign_by_sq_fingerprint.is_some()),
        ];
        if let Some((flag, _)) = refused.iter().find(|(_, given)| *given) {
            return Err(Failure::usage(format!("{flag} is not supported"))
                .hint("sign with --sign-by-sigstore-private-key FILE"));
        }
        let Some(file) = &self.sign_by_sigstore_private_key else {
            return match self.sign_identity {
                Some(_) => Err(Failure::usage("--sign-identity needs a key to sign with")),
                None => Ok(None),
            };
        };
        let name = match (&self.sign_identity, to) {
            (Some(name), _) => name.parse::<Reference>()?,
            (None, Location::Registry(reference)) => reference.clone(),
            (None, _) => {
                return Err(Failure::usage(format!("{to} is no name that could be signed"))
                    .hint("say which name to sign with --sign-identity NAME"));
            }
        };
        let key = private_key(file, self.sign_passphrase_file.as_deref())?;
        Ok(Some(Signer { key, name }))
    }
}

impl Signer {
    /// The same for another name.
    pub(crate) fn named(self, name: Reference) -> Signer {
        Signer { name, ..self }
    }

    /// Signs the copy, and of an index every image as well.
    ///
    /// # Errors
    /// The destination holds no signatures.
    pub(crate) fn sign(
        &self,
        app: &App,
        sink: &Access<'_>,
        to: &Location,
        root: &Descriptor,
        task: &Task,
    ) -> Result<(), Failure> {
        let (place, written) = (sink.source(to)?, sink.sink(to, task)?);
        app.wait(async {
            let here = place.resolve().await.map_err(|cause| report::cause(&cause))?;
            let members = match here.digest == root.digest {
                true => sign::members(root, &*place, task).await?,
                false => vec![root.clone()],
            };
            for member in members {
                let options = SignOptions {
                    form: Form::Tag,
                    name: Some(self.name.clone()),
                    annotations: std::collections::BTreeMap::new(),
                    created: Some(jiff::Timestamp::now().to_string()),
                };
                sign::sign_image(&member, &self.key, &*place, &*written, &options, task).await?;
            }
            Ok::<_, Failure>(())
        })?
    }
}
