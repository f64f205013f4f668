//! `rcopy download` and `clean`: the signatures, attestations and SBOMs beside an image.

use app::place::Access;
use app::{App, Runnable, observed};
use clap::{Args, Subcommand, ValueEnum};
use image::{Descriptor, Reference};
use options::Failure;
use options::progress::Progress;
use options::registry::RegistryFlags;
use registry_client::Target;
use sign::beside::{self, Attachment};
use sign::predicate::predicate_type;
use task::Kind;
use transport::Location;

use crate::sign::image_location;
use crate::tags::agreed;

/// Download what is attached to an image
#[derive(Debug, Subcommand)]
pub enum Download {
    /// Print the signatures of an image, one JSON document per line, unverified
    Signature(SubjectFlags),
    /// Print the attestations of an image, one DSSE envelope per line, unverified
    Attestation(AttestationsOf),
    /// Print the SBOM documents of an image, one per line, unverified
    Sbom(SubjectFlags),
}

/// An image.
#[derive(Debug, Args)]
pub struct SubjectFlags {
    /// The image: NAME on a registry, or transport:…
    image: String,
    #[command(flatten)]
    registry: RegistryFlags,
}

/// The attestations of an image.
#[derive(Debug, Args)]
pub struct AttestationsOf {
    #[command(flatten)]
    of: SubjectFlags,
    /// Print attestations of this predicate type only: a URI, or a name of `attest --type`
    #[arg(long, value_name = "TYPE", value_parser = predicate_type)]
    predicate_type: Option<String>,
}

impl Runnable for Download {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let (asked, what) = match &self {
            Download::Signature(asked) => (asked, "signature"),
            Download::Attestation(asked) => (&asked.of, "attestation"),
            Download::Sbom(asked) => (asked, "SBOM"),
        };
        let location = image_location(&asked.image)?;
        let (image, lines) = observed("download", Progress::Auto, |task| {
            let source = Access::new(app, asked.registry.reach()?).source(&location)?;
            app.wait(async {
                let image = source.resolve().await.map_err(Failure::of)?;
                let lines = match &self {
                    Download::Signature(_) => beside::signatures(&image, &*source, task).await?,
                    Download::Attestation(asked) => {
                        let kind = asked.predicate_type.as_deref();
                        beside::envelopes(&image, kind, &*source, task).await?
                    }
                    Download::Sbom(_) => beside::sboms(&image, &*source, task).await?,
                };
                Ok::<_, Failure>((image, lines))
            })?
        })?;
        if lines.is_empty() {
            let text = format!("{} has no {what}", image.digest);
            return Err(Failure::new(Kind::NotFound, text));
        }
        for line in lines {
            outln!("{line}");
        }
        Ok(0)
    }
}

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kinds {
    /// Signatures
    Signature,
    /// Attestations
    Attestation,
    /// The `.sbom` tag of cosign 1
    Sbom,
    /// All of these
    All,
}

impl Kinds {
    fn attachments(self) -> &'static [Attachment] {
        match self {
            Kinds::Signature => &[Attachment::Signature],
            Kinds::Attestation => &[Attachment::Attestation],
            Kinds::Sbom => &[Attachment::Sbom],
            Kinds::All => &[Attachment::Signature, Attachment::Attestation, Attachment::Sbom],
        }
    }
}

/// Remove the signatures, attestations or SBOMs of an image from a registry
#[derive(Debug, Args)]
pub struct Clean {
    /// The image: NAME on a registry
    image: String,
    /// Remove this
    #[arg(long = "type", value_enum, default_value = "all")]
    kind: Kinds,
    /// Do not ask
    #[arg(short, long, visible_alias = "force", short_alias = 'f')]
    yes: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Runnable for Clean {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = image_location(&self.image)?;
        let Location::Registry(name) = &location else {
            return Err(Failure::usage(format!("{location} is not on a registry")));
        };
        let access = Access::new(app, self.registry.reach()?);
        let source = access.source(&location)?;
        let (image, found) = app.wait(async {
            let image = source.resolve().await.map_err(Failure::of)?;
            let found = beside::attached(&image, self.kind.attachments(), &*source).await?;
            Ok::<_, Failure>((image, found))
        })??;
        let question =
            format!("remove {} of {}@{}?", count(found.len()), name.repository, image.digest);
        if !found.is_empty() && !self.yes && !agreed(&question)? {
            return Err(Failure::new(Kind::Cancelled, "nothing was removed"));
        }
        let repo = access.client()?.repo(&name.repository);
        for digest in &found {
            app.wait(repo.delete_manifest(&Target::Digest(*digest)))??;
        }
        outln!("removed {} of {}", count(found.len()), pinned(name, &image));
        Ok(0)
    }
}

fn pinned(name: &Reference, image: &Descriptor) -> String {
    format!("{}@{}", name.repository, image.digest)
}

fn count(number: usize) -> String {
    match number {
        1 => "1 manifest".to_owned(),
        more => format!("{more} manifests"),
    }
}
