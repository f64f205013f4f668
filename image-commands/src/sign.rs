//! `sign`, `verify` and `generate-key-pair`, the same in `rbuild` and `rcopy`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use app::place::Access;
use app::{App, Runnable, ask, observed};
use clap::{Args, ValueEnum};
use image::Descriptor;
use options::key_file::{passphrase, private_key};
use options::place::location;
use options::progress::Progress;
use options::registry::RegistryFlags;
use options::sealer::{SealerFlags, remote_key};
use options::signer::SignerFlags;
use options::{Failure, flags};
use serde_json::json;
use sign::{Demand, Form, Mismatch, PrivateKey, SignOptions, SignedIdentity, Signer};
use task::{Cause, Kind, Task};
use transport::Location;

/// How to store a signature beside the image.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormName {
    /// A sigstore bundle that refers to the image (cosign 3).
    Bundle,
    /// A tag derived from the digest (cosign 2, skopeo, podman).
    Tag,
}

/// Sign an image with a key or an identity
#[derive(Debug, Args)]
pub struct Sign {
    /// The image: NAME on a registry, or transport:…
    image: String,
    /// Store the signature in this form; repeat for both
    #[arg(long = "form", value_enum, default_value = "bundle")]
    forms: Vec<FormName>,
    /// Sign this name instead of the image's own
    #[arg(long, value_name = "NAME")]
    sign_identity: Option<String>,
    /// Sign every image of an index too
    #[arg(short, long)]
    recursive: bool,
    /// Add an annotation to the signed payload
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    sealer: SealerFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Runnable for Sign {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = image_location(&self.image)?;
        let annotations: BTreeMap<_, _> =
            self.annotation.iter().map(|text| flags::pair(text)).collect();
        let name = match (&self.sign_identity, &location) {
            (Some(name), _) => Some(name.parse()?),
            (None, Location::Registry(reference)) => Some(reference.clone()),
            (None, Location::Store(name)) => name.parse().ok(),
            (None, _) => None,
        };
        let (digest, by) = observed("sign", Progress::Auto, |task| {
            let credentials = self.sealer.credentials(app, task)?;
            let sealer = credentials.sealer();
            let access = Access::new(app, self.registry.reach()?);
            let source = access.source(&location)?;
            let sink = access.sink(&location, task)?;
            app.wait(async {
                let image = source.seal(task).await.map_err(Failure::of)?;
                for form in &self.forms {
                    let options = SignOptions {
                        form: match form {
                            FormName::Bundle => Form::Bundle,
                            FormName::Tag => Form::Tag,
                        },
                        name: name.clone(),
                        annotations: annotations.clone(),
                        created: Some(jiff::Timestamp::now().to_string()),
                    };
                    let all = match self.recursive {
                        true => sign::members(&image, &*source, task).await?,
                        false => vec![image.clone()],
                    };
                    for one in &all {
                        sign::sign_image(one, sealer, &*source, &*sink, &options, task).await?;
                    }
                }
                Ok::<_, Failure>((image.digest, sealer.to_string()))
            })?
        })?;
        outln!("signed {} {digest} {by}", self.image);
        Ok(0)
    }
}

/// Verify that a key or an identity has signed an image
#[derive(Debug, Args)]
pub struct Verify {
    /// The image: NAME on a registry, or transport:…
    image: String,
    /// Require this signed name (default: any, as in cosign)
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Require this signed annotation
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Print JSON
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "text"], default_value = "text")]
    format: String,
    #[command(flatten)]
    signers: SignerFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Runnable for Verify {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = image_location(&self.image)?;
        let demand = self.demand(app, &location)?;
        let (image, verified) =
            observed("verify", Progress::Auto, |task| self.look(app, &location, &demand, task))?;
        if self.format == "json" {
            let list = verified.iter().map(|good| {
                let mut told = json!({
                    "image": good.image(), "form": form(good.form()), "identity": good.name(),
                    "annotations": good.annotations(), "origin": good.origin(),
                });
                match good.signer() {
                    Signer::Key(key) => told["key"] = key.to_string().into(),
                    Signer::Certificate(identity) => told["certificate"] = json!(identity),
                }
                told
            });
            outln!("{:#}", serde_json::Value::from_iter(list));
            return Ok(0);
        }
        outln!("verified {} {}", self.image, image.digest);
        for good in &verified {
            outln!(
                "  signed as {} {} ({})",
                good.name().unwrap_or("(no name)"),
                by(good.signer()),
                form(good.form())
            );
            for (key, value) in good.annotations() {
                outln!("    {key}={value}");
            }
        }
        Ok(0)
    }
}

impl Verify {
    fn demand(&self, app: &App, location: &Location) -> Result<Demand, Failure> {
        let signers = self.signers.signers(app)?;
        let asked = match location {
            Location::Registry(reference) => Some(reference.clone()),
            Location::Store(name) => name.parse().ok(),
            _ => None,
        };
        let identity = match &self.identity {
            Some(name) => {
                SignedIdentity::ExactReference(name.parse::<image::Reference>()?.or_latest())
            }
            None => SignedIdentity::Any,
        };
        let annotations = self.annotation.iter().map(|text| flags::pair(text)).collect();
        Ok(Demand { signers, identity, asked, annotations })
    }

    fn look(
        &self,
        app: &App,
        location: &Location,
        demand: &Demand,
        task: &Task,
    ) -> Result<(Descriptor, Vec<sign::Verified>), Failure> {
        let access = Access::new(app, self.registry.reach()?);
        let source = access.source(location)?;
        app.wait(async {
            let image = source.resolve().await.map_err(nowhere)?;
            let verified = sign::verify_image(&image, demand, &*source, task).await;
            Ok::<_, Failure>((image, verified.map_err(unverified)?))
        })?
    }
}

/// Exit codes of verification, which are cosign's: there is no signature.
const UNSIGNED: u8 = 10;
/// There is no such image.
const NOWHERE: u8 = 11;
/// There are signatures, and none is accepted.
pub(crate) const UNVERIFIED: u8 = 12;
/// A certificate is asked for, and keys made all of them.
const NO_CERTIFICATE: u8 = 13;

/// The image that is to be verified cannot be found.
pub(crate) fn nowhere(error: Cause) -> Failure {
    let failure = Failure::of(error);
    let code = (failure.kind == Kind::NotFound).then_some(NOWHERE);
    Failure { code, ..failure }
}

/// The image is not verified, with the exit code of the reason.
pub(crate) fn unverified(error: sign::Error) -> Failure {
    let code = match &error {
        sign::Error::Unsigned { .. } | sign::Error::Unattested { .. } => Some(UNSIGNED),
        sign::Error::Unverified { rejected, .. } | sign::Error::TooMany { rejected, .. } => {
            let keyed = rejected.iter().all(|one| matches!(one.mismatch, Mismatch::Keyed));
            Some(if keyed { NO_CERTIFICATE } else { UNVERIFIED })
        }
        _ => None,
    };
    Failure { code, ..Failure::from(error) }
}

/// `with key …`, or `by` whom a certificate names.
pub(crate) fn by(signer: &Signer) -> String {
    match signer {
        Signer::Key(key) => format!("with key {}", key.hint()),
        Signer::Certificate(identity) => format!("by {identity}"),
    }
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Bundle => "sigstore bundle",
        Form::Tag => "signature tag",
    }
}

/// Make a key pair in cosign's format: PREFIX.key, encrypted, and PREFIX.pub
#[derive(Debug, Args)]
pub struct GenerateKeyPair {
    /// Prefix of the file names
    #[arg(long, visible_alias = "output-prefix", value_name = "PREFIX", default_value = "cosign")]
    output: PathBuf,
    /// Read the passphrase from a file (default: $COSIGN_PASSWORD, else a prompt)
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl GenerateKeyPair {
    /// Makes the files; never writes over one.
    ///
    /// # Errors
    /// A file exists, or cannot be written.
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let file = |suffix: &str| {
            let mut name = self.output.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (private, public) = (file(".key"), file(".pub"));
        for path in [&private, &public] {
            if path.exists() {
                return Err(Failure::new(Kind::Refused, format!("{} exists", path.display()))
                    .hint("choose another name with --output"));
            }
        }
        let passphrase = match passphrase(self.passphrase_file.as_deref())? {
            Some(passphrase) => passphrase,
            None => {
                let first = ask("Passphrase for the private key: ")?;
                if ask("The same again: ")? != first {
                    return Err(Failure::usage("the two passphrases differ"));
                }
                first.into_bytes()
            }
        };
        let key = PrivateKey::generate()?;
        write_new(&private, &key.to_encrypted_pem(&passphrase)?, 0o600)?;
        write_new(&public, &key.public().to_pem(), 0o644)?;
        outln!("wrote {} and {}", private.display(), public.display());
        Ok(0)
    }
}

/// Print the public key of a private key
#[derive(Debug, Args)]
pub struct PublicKeyOf {
    /// The private key: a file, or a URI of a key service
    #[arg(long, value_name = "FILE|URI")]
    key: PathBuf,
    /// Read the key's passphrase from a file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Runnable for PublicKeyOf {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let public = match remote_key(app, &self.key)? {
            Some(key) => key.public().clone(),
            None => private_key(app, &self.key, self.passphrase_file.as_deref())?.public(),
        };
        out!("{}", public.to_pem());
        Ok(0)
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| Failure::io(format!("writing {}", path.display()), &error))
}

/// A name alone is an image on a registry.
pub(crate) fn image_location(text: &str) -> Result<Location, Failure> {
    location(text, "docker://")
}
