//! Attestations of an image: in-toto statements with its packages and its provenance, attached as
//! referrers or kept in the index as in BuildKit.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use image::{Config, Descriptor, Digest, Document, Image, Index, Manifest, MediaType, Node};
use image::{MAX_DOCUMENT, Platform, RootFs};
use sbom::Subject;
use serde_json::{Value, json};
use store::Store;
use task::Task;
use transport::at::StoreImage;
use transport::{Artifact, bridge};

use crate::assemble::{BuildDocuments, rfc3339};
use transport::{IN_TOTO, PREDICATE_TYPE};

use crate::attestation::{ABOUT, ABOUT_TYPE, SPDX, STATEMENT_V1};
use crate::error::ErrorContext;
use crate::job::Build;
use crate::plan::Target;
use crate::provenance::{self, Facts, SLSA_V1, image_purl};
use crate::{Format, Result, contents, images};

/// One statement about one image.
#[derive(Debug, Clone)]
struct Statement {
    predicate_type: &'static str,
    bytes: Bytes,
}

/// Writes a statement about these subjects, each a name and a digest.
pub(crate) fn statement(
    names: &[String],
    digest: Digest,
    kind: &str,
    predicate: &Value,
) -> Vec<u8> {
    let digests = json!({ digest.algorithm().as_str(): digest.hex() });
    let subjects: Vec<_> = match names {
        [] => vec![json!({ "digest": digests })],
        names => names.iter().map(|name| json!({ "name": name, "digest": digests })).collect(),
    };
    let statement = json!({
        "_type": STATEMENT_V1,
        "subject": subjects,
        "predicateType": kind,
        "predicate": predicate,
    });
    serde_json::to_vec(&statement).expect("JSON values can be written")
}

/// Says what was asked for about each image, and attaches it. With the index form what comes back
/// has an index that holds the statements; it is not published yet.
pub(crate) async fn attest(
    build: &Arc<Build>,
    made: BuildDocuments,
    task: &Arc<Task>,
) -> Result<BuildDocuments> {
    if !build.request.attest.any() {
        return Ok(made);
    }
    let mut all = Vec::new();
    for (image, target) in made.images.iter().zip(&build.plan.targets) {
        all.push(statements(build, image, target, task).await?);
    }
    if build.request.attest.in_index {
        return in_index(build, made, &all);
    }
    for (image, statements) in made.images.iter().zip(&all) {
        for statement in statements {
            refer(&build.env.store, image.descriptor(), statement, task).await?;
        }
    }
    Ok(made)
}

async fn statements(
    build: &Arc<Build>,
    image: &Image,
    target: &Target,
    task: &Arc<Task>,
) -> Result<Vec<Statement>> {
    let request = &build.request;
    let platform = image.platform();
    let names: Vec<_> =
        request.tags.iter().map(|tag| image_purl(&tag.to_string(), Some(&platform))).collect();
    let digest = image.descriptor().digest;
    let mut said = Vec::new();
    if request.attest.sbom {
        if let Some(key) = &target.image.base {
            images::fetch(&build.env, &build.bases[key], task).await?;
        }
        let document = packages(build, image, task).await?;
        let bytes = statement(&names, digest, SPDX, &document).into();
        said.push(Statement { predicate_type: SPDX, bytes });
    }
    if let Some(options) = &request.attest.provenance {
        let facts = Facts {
            request,
            options,
            platform: &target.platform,
            plan: &build.plan,
            inputs: &build.used(),
            exchanges: &build.exchanges(),
            started: rfc3339(build.now),
            finished: rfc3339(build.env.now()),
        };
        let bytes = statement(&names, digest, SLSA_V1, &provenance::predicate(&facts)?).into();
        said.push(Statement { predicate_type: SLSA_V1, bytes });
    }
    Ok(said)
}

/// The packages as SPDX. The time is the image's: the same image has the same document.
async fn packages(build: &Arc<Build>, image: &Image, task: &Arc<Task>) -> Result<Value> {
    let tag = build.request.tags.first();
    let name = tag.map_or_else(|| image.descriptor().digest.to_string(), ToString::to_string);
    let version = build.request.attest.version.clone();
    let (store, image, task) = (build.env.store.clone(), image.clone(), Arc::clone(task));
    let work = move || {
        let mut open = |layer: &image::Layer<'_>| contents::open_stored(&store, layer);
        let inventory = contents::inventory(&store, &image, &mut open, &task)?;
        let diff_ids: Vec<_> = image.layers().map(|layer| layer.diff_id).collect();
        let created = image.config().created.clone();
        let subject = Subject {
            name: &name,
            digest: image.descriptor().digest,
            diff_ids: &diff_ids,
            platform: &image.platform().to_string(),
            created: created.as_deref().unwrap_or("1970-01-01T00:00:00Z"),
            version: &version,
        };
        Ok(sbom::spdx(&inventory, &subject))
    };
    bridge::blocking(work).await
}

/// Attaches a statement to an image of the store, unless the same is said already.
async fn refer(
    store: &Store,
    subject: &Descriptor,
    statement: &Statement,
    task: &Task,
) -> Result<()> {
    let action = format!("attaching {}", statement.predicate_type);
    if said_already(store, subject, statement).during(action.clone())? {
        return Ok(());
    }
    let about = BTreeMap::from([(PREDICATE_TYPE.to_owned(), statement.predicate_type.to_owned())]);
    let artifact = Artifact {
        artifact_type: IN_TOTO.to_owned(),
        blobs: vec![(media_type(), statement.bytes.clone(), about.clone())],
        annotations: about,
        ..Artifact::default()
    };
    // The image itself comes later: a referrer may be there before its subject.
    let sink = StoreImage::new(store, None);
    transport::attach(&sink, subject, &artifact, task).await.during(action)?;
    Ok(())
}

fn media_type() -> MediaType {
    MediaType::from(IN_TOTO.to_owned())
}

/// Whether the store has a statement about this image that differs in nothing but the run.
fn said_already(store: &Store, subject: &Descriptor, new: &Statement) -> store::Result<bool> {
    let timeless = |bytes: &[u8]| {
        let mut value: Value = serde_json::from_slice(bytes).ok()?;
        if let Some(Value::Object(metadata)) = value.pointer_mut("/predicate/runDetails/metadata") {
            for field in ["invocationId", "startedOn", "finishedOn"] {
                metadata.remove(field);
            }
        }
        Some(value)
    };
    for referrer in store.referrers(subject.digest)? {
        let kind = referrer.annotations.get(PREDICATE_TYPE).map(String::as_str);
        if kind != Some(new.predicate_type) {
            continue;
        }
        let Ok(Node::Manifest(manifest)) = Node::read(referrer.clone(), store.read(&referrer)?)
        else {
            continue;
        };
        let [layer] = &manifest.layers[..] else { continue };
        if layer.digest == Digest::of(&new.bytes) {
            return Ok(true);
        }
        if layer.size > MAX_DOCUMENT {
            continue;
        }
        if timeless(&store.read(layer)?) == timeless(&new.bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An index of the images and, for each, a manifest with its statements that no runtime takes
/// for an image: its platform is `unknown`.
fn in_index(
    build: &Build,
    made: BuildDocuments,
    statements: &[Vec<Statement>],
) -> Result<BuildDocuments> {
    let action = "keeping attestations";
    let unknown: Platform = "unknown/unknown".parse().during(action)?;
    let mut entries = match &made.index {
        Some(index) => index.manifests.clone(),
        None => made
            .images
            .iter()
            .map(|image| Descriptor {
                platform: Some(image.platform()),
                ..image.descriptor().bare()
            })
            .collect(),
    };
    let store = &build.env.store;
    for (image, statements) in made.images.iter().zip(statements) {
        let (config, layers) = parts(statements, &unknown);
        let config = Document::write(MediaType::OCI_CONFIG, config);
        let manifest = Manifest::new(MediaType::OCI_MANIFEST, config.descriptor().clone(), layers);
        let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
        for statement in statements {
            store.insert(&statement.bytes).during(action)?;
        }
        store.insert(config.bytes()).during(action)?;
        store.insert(manifest.bytes()).during(action)?;
        let mut entry = manifest.descriptor().bare();
        entry.platform = Some(unknown.clone());
        let digest = image.descriptor().digest.to_string();
        entry.annotations.insert(ABOUT.to_owned(), digest);
        entry.annotations.insert(ABOUT_TYPE.to_owned(), "attestation-manifest".to_owned());
        entries.push(entry);
    }
    let mut index = match made.index {
        Some(index) => index.into_value(),
        None => Index::new(Vec::new()),
    };
    index.manifests = entries;
    let media_type = match build.request.format {
        Format::Oci => MediaType::OCI_INDEX,
        Format::Docker => MediaType::DOCKER_INDEX,
    };
    index.media_type = Some(media_type.clone());
    Ok(BuildDocuments { index: Some(Document::write(media_type, index)), images: made.images })
}

/// A config as BuildKit writes it for attestations, and the statements as layers.
fn parts(statements: &[Statement], unknown: &Platform) -> (Config, Vec<Descriptor>) {
    let layers: Vec<_> = statements
        .iter()
        .map(|statement| {
            let mut layer = Descriptor::of(media_type(), &statement.bytes);
            let kind = statement.predicate_type.to_owned();
            layer.annotations.insert(PREDICATE_TYPE.to_owned(), kind);
            layer
        })
        .collect();
    let diff_ids = layers.iter().map(|layer| layer.digest).collect();
    let config = Config {
        architecture: unknown.architecture.clone(),
        os: unknown.os.clone(),
        rootfs: RootFs { diff_ids, ..RootFs::default() },
        ..Config::default()
    };
    (config, layers)
}
