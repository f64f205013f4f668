//! Which images of an index are selected.

use image::{Config, Descriptor, Document, Image, Index, Manifest, MediaType, Node, Platform};

use crate::best::best;
use crate::resolved_source::{ResolvedSource, relabelled};
use crate::{Error, Result, Select, Side, Source};

/// The annotation by which BuildKit's attestations name the image they are about.
pub(crate) const ABOUT: &str = "vnd.docker.reference.digest";
/// How many indexes inside indexes are opened.
pub(crate) const MAX_DEPTH: usize = 5;

/// Opens a manifest or index of a source.
///
/// # Errors
/// [`Error::Obsolete`] for forms not read any more, [`Error::Place`] when the source fails or the
/// document is not what the descriptor says.
pub async fn node(source: &dyn Source, descriptor: &Descriptor) -> Result<Node> {
    refuse_obsolete(descriptor)?;
    if !descriptor.media_type.is_node() {
        return Err(descriptor.is_no_node().into());
    }
    let what = if descriptor.media_type.is_index() { "index" } else { "manifest" };
    let at = || Error::at(format!("reading {what} {}", descriptor.digest), Side::Source);
    let unverified = source.fetch(descriptor).await.map_err(at())?;
    let bytes = unverified.verify(descriptor).read().await.map_err(at())?;
    Node::read(descriptor.clone(), bytes).map_err(|error| at()(error.into()))
}

/// Opens the image a source names, or the one of its index that serves the platform best: two or
/// three documents, after which everything but layer bytes is plain data. Also gives what the
/// name itself points at.
///
/// # Errors
/// As [`node`]; [`Error::NoPlatform`].
pub async fn open(source: &dyn Source, platform: &Platform) -> Result<(Descriptor, Image)> {
    match open_named(source, platform).await {
        Err(error) => match relabelled(&error) {
            Some(named) => {
                Box::pin(open_named(&ResolvedSource::new(source, named), platform)).await
            }
            None => Err(error),
        },
        opened => opened,
    }
}

async fn open_named(source: &dyn Source, platform: &Platform) -> Result<(Descriptor, Image)> {
    let resolved = source.resolve().await;
    let named = resolved.map_err(Error::resolve)?;
    let manifest = match choose(source, &named, &Select::One(platform.clone())).await? {
        Choice { node: Some(Node::Manifest(manifest)), .. } => manifest,
        Choice { root, .. } => match node(source, &root).await? {
            Node::Manifest(manifest) => manifest,
            Node::Index(index) => {
                return Err(no_platform(&index, std::slice::from_ref(platform)));
            }
        },
    };
    Ok((named, with_config(source, manifest).await?))
}

/// Opens the image that a descriptor names.
///
/// # Errors
/// As [`node`]; [`Error::Content`] when its documents do not agree.
pub async fn image(source: &dyn Source, descriptor: &Descriptor) -> Result<Image> {
    match node(source, descriptor).await? {
        Node::Manifest(manifest) => with_config(source, manifest).await,
        Node::Index(_) => Err(descriptor.is_no_node().into()),
    }
}

async fn with_config(source: &dyn Source, manifest: Document<Manifest>) -> Result<Image> {
    let at = || Error::at(format!("reading config {}", manifest.config.digest), Side::Source);
    let unverified = source.fetch(&manifest.config).await.map_err(at())?;
    let bytes = unverified.verify(&manifest.config).read().await.map_err(at())?;
    let config = Document::<Config>::read(manifest.config.clone(), bytes);
    let config = config.map_err(|error| at()(error.into()))?;
    Ok(Image::new(manifest, config)?)
}

/// What a copy starts from.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// The root of the copy.
    pub(crate) root: Descriptor,
    /// The root's document where it had to be read or made already.
    pub(crate) node: Option<Node>,
    /// Whether the source has the root; else it was made here.
    pub(crate) made: bool,
}

/// Finds the root of a copy; reads no more documents than the answer takes.
pub(crate) async fn choose(
    source: &dyn Source,
    named: &Descriptor,
    select: &Select,
) -> Result<Choice> {
    refuse_obsolete(named)?;
    let untouched = Choice { root: named.clone(), node: None, made: false };
    if !named.media_type.is_index() {
        return Ok(untouched);
    }
    match select {
        Select::All | Select::IndexOnly => Ok(untouched),
        Select::One(platform) => {
            let root = one(source, named, platform).await?;
            Ok(Choice { root, node: None, made: false })
        }
        Select::List(platforms) => {
            let index = index(source, named).await?;
            let kept = several(&index, platforms)?;
            if kept.len() == index.manifests.len() {
                return Ok(Choice { node: Some(Node::Index(index)), ..untouched });
            }
            let media_type = named.media_type.clone();
            let mut smaller = index.into_value();
            smaller.manifests = kept;
            let made = Document::write(media_type, smaller);
            let root = made.descriptor().clone();
            Ok(Choice { root, node: Some(Node::Index(made)), made: true })
        }
    }
}

/// Refuses an image for none of these platforms, if there are any. Artifacts have no platform.
pub(crate) async fn check_platform(
    source: &dyn Source,
    choice: &Choice,
    platforms: &[Platform],
) -> Result<()> {
    if platforms.is_empty() || !choice.root.media_type.is_manifest() {
        return Ok(());
    }
    let Node::Manifest(manifest) = node(source, &choice.root).await? else { return Ok(()) };
    if !manifest.config.media_type.is_config() {
        return Ok(());
    }
    let found = with_config(source, manifest).await?.platform();
    if platforms.iter().any(|wanted| found.serves(wanted).is_some()) {
        return Ok(());
    }
    let wanted: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    let (wanted, digest) = (wanted.join(", "), choice.root.digest);
    Err(Error::OtherPlatform { wanted, digest, found: found.to_string() })
}

async fn index(source: &dyn Source, descriptor: &Descriptor) -> Result<Document<Index>> {
    match node(source, descriptor).await? {
        Node::Index(index) => Ok(index),
        Node::Manifest(_) => Err(descriptor.is_no_node().into()),
    }
}

/// The best image for one platform; indexes inside the index are opened only when nothing beside
/// them fits.
async fn one(source: &dyn Source, named: &Descriptor, platform: &Platform) -> Result<Descriptor> {
    let first = index(source, named).await?;
    let mut open = vec![(1, first.clone())];
    while let Some((depth, index)) = open.pop() {
        if let Some(best) = best(&index, platform) {
            return Ok(best.clone());
        }
        if depth == MAX_DEPTH {
            let what = format!("indexes nested deeper than {MAX_DEPTH}");
            return Err(Error::TooComplex { digest: index.digest(), what });
        }
        let inner = index.manifests.iter().filter(|child| child.media_type.is_index());
        for child in inner.rev().take(64) {
            open.push((depth + 1, self::index(source, child).await?));
        }
    }
    Err(no_platform(&first, std::slice::from_ref(platform)))
}

fn several(index: &Document<Index>, platforms: &[Platform]) -> Result<Vec<Descriptor>> {
    let mut chosen = Vec::with_capacity(platforms.len());
    for platform in platforms {
        let best = best(index, platform)
            .ok_or_else(|| no_platform(index, std::slice::from_ref(platform)))?;
        chosen.push(best.digest);
    }
    let about = |child: &Descriptor| child.annotations.get(ABOUT).cloned();
    let keep = |child: &&Descriptor| match about(child) {
        Some(subject) => chosen.iter().any(|digest| digest.to_string() == subject),
        None => chosen.contains(&child.digest),
    };
    Ok(index.manifests.iter().filter(keep).cloned().collect())
}

fn no_platform(index: &Index, wanted: &[Platform]) -> Error {
    let join = |platforms: Vec<String>| platforms.join(", ");
    let offered = index.manifests.iter().filter_map(|child| child.platform.as_ref());
    let offered: Vec<_> = offered.filter(|p| p.os != "unknown").map(ToString::to_string).collect();
    let offered = if offered.is_empty() { vec!["none".to_owned()] } else { offered };
    let mut offered = offered;
    offered.truncate(32);
    Error::NoPlatform {
        wanted: join(wanted.iter().map(ToString::to_string).collect()),
        offered: join(offered),
    }
}

fn refuse_obsolete(descriptor: &Descriptor) -> Result<()> {
    let media_type = descriptor.media_type.as_str();
    let schema1 = "application/vnd.docker.distribution.manifest.v1+";
    if descriptor.media_type == MediaType::DOCKER_V1_SIGNED || media_type.starts_with(schema1) {
        let media_type = media_type.to_owned();
        return Err(Error::Obsolete { digest: descriptor.digest, media_type });
    }
    Ok(())
}
