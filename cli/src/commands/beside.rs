//! `rcopy download` and `clean`: the signatures, attestations and SBOMs beside an image.

use std::collections::BTreeSet;

use clap::{Args, Subcommand, ValueEnum};
use image::{Descriptor, Digest, Node, Reference, Tag};
use registry_client::Target;
use serde_json::Value;
use sign::Evidence;
use task::{Kind, Task};
use transport::{Location, Source};

use super::attest::predicate_type;
use super::place::Access;
use super::registry_flags::RegistryFlags;
use super::sign::image_location;
use super::tags::agreed;
use crate::app::{App, observed};
use crate::render::Progress;
use crate::report::{self, Failure};

/// Download what is attached to an image
#[derive(Debug, Subcommand)]
pub(crate) enum Download {
    /// Print the signatures of an image, one JSON document per line, unverified
    Signature(Image),
    /// Print the attestations of an image, one DSSE envelope per line, unverified
    Attestation(AttestationsOf),
    /// Print the SBOM documents of an image, one per line, unverified
    Sbom(Image),
}

/// An image.
#[derive(Debug, Args)]
pub(crate) struct Image {
    /// The image: NAME on a registry, or transport:…
    image: String,
    #[command(flatten)]
    registry: RegistryFlags,
}

/// The attestations of an image.
#[derive(Debug, Args)]
pub(crate) struct AttestationsOf {
    #[command(flatten)]
    of: Image,
    /// Print attestations of this predicate type only: a URI, or a name of `attest --type`
    #[arg(long, value_name = "TYPE", value_parser = predicate_type)]
    predicate_type: Option<String>,
}

impl Download {
    /// Prints.
    ///
    /// # Errors
    /// The image is not there; nothing of the kind is attached to it.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let (asked, what) = match &self {
            Download::Signature(asked) => (asked, "signature"),
            Download::Attestation(asked) => (&asked.of, "attestation"),
            Download::Sbom(asked) => (asked, "SBOM"),
        };
        let location = image_location(&asked.image)?;
        let (image, lines) = observed("download", Progress::Auto, |task| {
            let source = Access::new(app, asked.registry.reach()?).source(&location)?;
            app.wait(async {
                let image = source.resolve().await.map_err(|error| report::cause(&error))?;
                let lines = match &self {
                    Download::Signature(_) => signatures(&image, &*source, task).await?,
                    Download::Attestation(asked) => {
                        envelopes(&image, asked.predicate_type.as_deref(), &*source, task).await?
                    }
                    Download::Sbom(_) => sboms(&image, &*source, task).await?,
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

/// Bundles as they are; payloads as cosign prints them.
async fn signatures(
    image: &Descriptor,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Value>, Failure> {
    let found = sign::collect(image, &[], source, task).await?;
    let lines = found.candidates.into_iter().filter_map(|candidate| match candidate.evidence {
        Evidence::Bundle(bytes) => serde_json::from_slice(&bytes).ok(),
        Evidence::Payload(payload, annotations) => {
            Some(sign::simple_signing::document(&payload, &annotations))
        }
        _ => None,
    });
    Ok(lines.collect())
}

async fn envelopes(
    image: &Descriptor,
    kind: Option<&str>,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Value>, Failure> {
    let found = sign::attestations(image, kind, source, task).await?;
    let envelope = |bytes: bytes::Bytes| {
        let read: Value = serde_json::from_slice(&bytes).ok()?;
        Some(if read["dsseEnvelope"].is_object() { read["dsseEnvelope"].clone() } else { read })
    };
    Ok(found.into_iter().filter_map(|(_, bytes)| envelope(bytes)).collect())
}

/// What SBOM attestations say, signed or not, and what lies under the `.sbom` tag.
async fn sboms(
    image: &Descriptor,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Value>, Failure> {
    let is_sbom = |statement: &Value| {
        let kind = statement["predicateType"].as_str().unwrap_or_default();
        kind.starts_with("https://spdx.dev/") || kind.starts_with("https://cyclonedx.org/")
    };
    let mut found = Vec::new();
    let mut keep = |statement: &[u8]| {
        let statement: Value = serde_json::from_slice(statement).unwrap_or_default();
        if is_sbom(&statement) && !found.contains(&statement["predicate"]) {
            found.push(statement["predicate"].clone());
        }
    };
    for member in sign::members(image, source, task).await? {
        for said in builder::attestations(source, image, &member, builder::SPDX).await? {
            keep(&said);
        }
        for envelope in envelopes(&member, None, source, task).await? {
            keep(&sign::dsse::payload(&envelope));
        }
    }
    if let Some(place) = Attachment::Sbom.tag(&image.digest).and_then(|tag| source.sibling(&tag))
        && let Ok(root) = place.resolve().await
        && let Ok(Node::Manifest(manifest)) = transport::node(&*place, &root).await
    {
        for layer in manifest.layers.iter().filter(|layer| layer.size <= sign::MAX_ATTESTATION) {
            let fetched = place.fetch(layer).await.map_err(|error| report::cause(&error))?;
            let bytes = fetched.verify(layer).read().await;
            let bytes = bytes.map_err(|error| report::cause(&error))?;
            found.extend(serde_json::from_slice::<Value>(&bytes).ok());
        }
    }
    Ok(found)
}

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Attachment {
    /// Signatures
    Signature,
    /// Attestations
    Attestation,
    /// The `.sbom` tag of cosign 1
    Sbom,
    /// All of these
    All,
}

impl Attachment {
    /// The tag under which cosign 1 and 2 keep it.
    fn tag(self, image: &Digest) -> Option<Tag> {
        let end = match self {
            Attachment::Signature => "sig",
            Attachment::Attestation => "att",
            Attachment::Sbom => "sbom",
            Attachment::All => return None,
        };
        format!("{}-{}.{end}", image.algorithm().as_str(), image.hex()).parse().ok()
    }
}

/// Remove the signatures, attestations or SBOMs of an image from a registry
#[derive(Debug, Args)]
pub(crate) struct Clean {
    /// The image: NAME on a registry
    image: String,
    /// Remove this
    #[arg(long = "type", value_enum, default_value = "all")]
    kind: Attachment,
    /// Do not ask
    #[arg(short, long, visible_alias = "force", short_alias = 'f')]
    yes: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Clean {
    /// Removes.
    ///
    /// # Errors
    /// The image is not on a registry, or not there; the registry does not delete.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let location = image_location(&self.image)?;
        let Location::Registry(name) = &location else {
            return Err(Failure::usage(format!("{location} is not on a registry")));
        };
        let access = Access::new(app, self.registry.reach()?);
        let source = access.source(&location)?;
        let (image, found) = app.wait(async {
            let image = source.resolve().await.map_err(|error| report::cause(&error))?;
            let found = self.found(&image, &*source).await?;
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

    /// The manifests that are to go.
    async fn found(
        &self,
        image: &Descriptor,
        source: &dyn Source,
    ) -> Result<BTreeSet<Digest>, Failure> {
        let mut found = BTreeSet::new();
        for kind in [Attachment::Signature, Attachment::Attestation, Attachment::Sbom] {
            if self.kind != kind && self.kind != Attachment::All {
                continue;
            }
            if let Some(place) = kind.tag(&image.digest).and_then(|tag| source.sibling(&tag)) {
                match place.resolve().await {
                    Ok(root) => drop(found.insert(root.digest)),
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(report::cause(&error)),
                }
            }
        }
        let listed = source.referrers(image).await.map_err(|error| report::cause(&error))?;
        for referrer in listed {
            let signature = sign::is_signature(&referrer);
            let wanted = match self.kind {
                Attachment::Signature => signature == Some(true),
                Attachment::Attestation => signature == Some(false),
                Attachment::All => signature.is_some(),
                Attachment::Sbom => false,
            };
            if wanted {
                found.insert(referrer.digest);
            }
        }
        Ok(found)
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
