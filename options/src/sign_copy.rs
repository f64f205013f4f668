//! How a copy is signed.

use std::path::{Path, PathBuf};

use clap::Args;
use image::{Descriptor, Reference};
use sign::lookaside::{Lookaside, add_signature};
use sign::{Form, PrivateKey, Sealer, SignOptions, SigningParameters};
use task::Task;
use transport::{Location, Sink, Source};

use crate::key_file::private_key;
use crate::sealer::{Credentials, IdentityFlags};
use crate::{EffectiveConfig, Failure, Program, environment};

/// How to sign a copy.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signing")]
pub struct SignFlags {
    /// Sign with this private key in cosign's format; the signature is a tag beside the image
    #[arg(long, value_name = "FILE")]
    sign_by_sigstore_private_key: Option<PathBuf>,
    /// Read the key's passphrase from a file (default: $COSIGN_PASSWORD, else a prompt)
    #[arg(long, value_name = "FILE")]
    sign_passphrase_file: Option<PathBuf>,
    /// Sign this name instead of the destination's
    #[arg(long, value_name = "NAME")]
    sign_identity: Option<String>,
    /// Sign with this GPG key; the signature goes where registries.d says, or into a dir:
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "sign_by_sigstore_private_key")]
    sign_by: Option<String>,
    /// Sign with the parameters in this containers-sigstore-signing-params.yaml; it must name a
    /// private key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sign_by", "sign_by_sigstore_private_key"])]
    sign_by_sigstore: Option<PathBuf>,
    #[arg(long, value_name = "FINGERPRINT", hide = true)]
    sign_by_sq_fingerprint: Option<String>,
    /// Sign keyless, by identity; the signature is a bundle beside the image
    #[arg(long, conflicts_with_all = ["sign_by", "sign_by_sigstore_private_key", "sign_by_sigstore"])]
    sign: bool,
    #[command(flatten)]
    identity: IdentityFlags,
}

/// Opens the place of a copy for writing.
pub type OpenSink<'a> = &'a dyn Fn() -> Result<Box<dyn Sink>, Failure>;

/// A copy's signature that is ready to be made.
pub struct Signer {
    key: SigningKey,
    name: Reference,
}

enum SigningKey {
    Sigstore(PrivateKey),
    Identity(Credentials),
    Gpg { fingerprint: String, passphrase: Option<PathBuf>, lookaside: Lookaside },
}

impl SignFlags {
    /// Signs with a GPG key and nothing else said.
    pub fn with_gpg(fingerprint: Option<&str>) -> SignFlags {
        SignFlags { sign_by: fingerprint.map(str::to_owned), ..SignFlags::default() }
    }

    /// Refuses flags that cannot apply to many images, each of which is signed under its own name.
    ///
    /// # Errors
    /// A name to sign was given.
    pub fn check_many(&self, named: bool) -> Result<(), Failure> {
        if named && self.sign_identity.is_some() {
            return Err(Failure::usage(
                "--sign-identity is for one image: here each is signed under its own name",
            ));
        }
        Ok(())
    }

    /// Reads the key before anything is copied; `None` where nothing is to be signed.
    ///
    /// # Errors
    /// The key cannot be read; there is no name to sign; an unsupported form of signature.
    pub fn signer(
        &self,
        program: &impl Program,
        conf: &EffectiveConfig,
        to: &Location,
    ) -> Result<Option<Signer>, Failure> {
        if self.sign_by_sq_fingerprint.is_some() {
            return Err(Failure::usage("--sign-by-sq-fingerprint is not supported")
                .hint("sign with --sign-by-sigstore-private-key FILE or --sign-by FINGERPRINT"));
        }
        if let Some(file) = &self.sign_by_sigstore {
            let given = parameters(file)?;
            let passphrase = given.passphrase.or_else(|| self.sign_passphrase_file.clone());
            let flags = SignFlags {
                sign_by_sigstore_private_key: Some(given.private_key),
                sign_passphrase_file: passphrase,
                sign_identity: self.sign_identity.clone(),
                ..SignFlags::default()
            };
            return flags.signer(program, conf, to);
        }
        if !self.sign && self.sign_by.is_none() && self.sign_by_sigstore_private_key.is_none() {
            let flags = [
                ("--sign-identity", self.sign_identity.is_some()),
                ("--sign-passphrase-file", self.sign_passphrase_file.is_some()),
            ];
            return match flags.iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(Failure::usage(format!("{flag} needs a key to sign with"))
                    .hint("give --sign-by-sigstore-private-key FILE or --sign-by FINGERPRINT")),
                None => Ok(None),
            };
        }
        let name = match (&self.sign_identity, to) {
            (Some(name), _) => name.parse::<Reference>()?,
            (None, Location::Registry(reference)) => reference.clone(),
            (None, _) => {
                return Err(Failure::usage(format!("{to} is not a name that could be signed"))
                    .hint("set the name to sign with --sign-identity NAME"));
            }
        };
        let key = match (&self.sign_by_sigstore_private_key, &self.sign_by) {
            _ if self.sign => SigningKey::Identity(
                program.observed("sign in", |task| self.identity.credentials(program, task))?,
            ),
            (Some(file), _) => SigningKey::Sigstore(private_key(
                program,
                file,
                self.sign_passphrase_file.as_deref(),
            )?),
            (None, fingerprint) => {
                if !matches!(to, Location::Registry(_) | Location::Directory(_)) {
                    return Err(Failure::usage(format!("--sign-by: {to} holds no GPG signatures")));
                }
                SigningKey::Gpg {
                    fingerprint: fingerprint.clone().unwrap_or_default(),
                    passphrase: self.sign_passphrase_file.clone(),
                    lookaside: conf.lookaside()?,
                }
            }
        };
        Ok(Some(Signer { key, name }))
    }
}

fn parameters(file: &Path) -> Result<SigningParameters, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
    Ok(SigningParameters::read(file, &text)?)
}

impl Signer {
    /// The same for another name.
    pub fn named(self, name: Reference) -> Signer {
        Signer { name, ..self }
    }

    /// Signs the copy that is in `place`, and of an index every image as well; `sink` opens the same
    /// place for writing.
    ///
    /// # Errors
    /// The destination holds no signatures.
    pub fn sign(
        &self,
        program: &impl Program,
        (place, sink): (&dyn Source, OpenSink<'_>),
        to: &Location,
        root: &Descriptor,
        task: &Task,
    ) -> Result<(), Failure> {
        let members = program.wait(async {
            let here = place.resolve().await.map_err(Failure::of)?;
            match here.digest == root.digest {
                true => Ok::<_, Failure>(sign::members(root, place, task).await?),
                false => Ok(vec![root.clone()]),
            }
        })??;
        match &self.key {
            SigningKey::Sigstore(key) => {
                let written = sink()?;
                let sealer = (Sealer::Key(key), Form::Tag);
                program.wait(self.with_sigstore(sealer, place, &*written, &members, task))?
            }
            SigningKey::Identity(credentials) => {
                let written = sink()?;
                let sealer = (credentials.sealer(), Form::Bundle);
                program.wait(self.with_sigstore(sealer, place, &*written, &members, task))?
            }
            SigningKey::Gpg { fingerprint, passphrase, lookaside } => {
                for member in &members {
                    let made = (concat!("rcopy ", env!("CARGO_PKG_VERSION")), environment::now());
                    let passphrase = passphrase.as_deref();
                    let digest = &member.digest;
                    let signed = sign::gpg::sign(digest, &self.name, fingerprint, passphrase, made);
                    let signed = program.wait(signed)??;
                    let directory = match to {
                        Location::Directory(directory) => directory.clone(),
                        _ => lookaside.directory(&self.name_there(to), member.digest)?,
                    };
                    add_signature(&directory, &signed)?;
                    if matches!(to, Location::Directory(_)) {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// Where signatures of the copy are looked for: by the name it has, not by the one signed.
    fn name_there(&self, to: &Location) -> Reference {
        match to {
            Location::Registry(reference) => reference.clone(),
            _ => self.name.clone(),
        }
    }

    async fn with_sigstore(
        &self,
        (sealer, form): (Sealer<'_>, Form),
        place: &dyn Source,
        written: &dyn Sink,
        members: &[Descriptor],
        task: &Task,
    ) -> Result<(), Failure> {
        for member in members {
            let options = SignOptions {
                form,
                name: Some(self.name.clone()),
                annotations: std::collections::BTreeMap::new(),
                created: Some(jiff::Timestamp::now().to_string()),
            };
            sign::sign_image(member, sealer, place, written, &options, task).await?;
        }
        Ok(())
    }
}
