//! How a [`Plan`] is made: the documents below a root are read, level by level.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use image::{Descriptor, Digest, Node};
use task::{Fault, Kind, Task};

use crate::plan::Part;
use crate::select::{self, Choice, MAX_DEPTH};
use crate::stop::Stop;
use crate::{
    CopyOptions, Error, Leaf, Plan, Result, Role, Select, Side, Source, attached, convert,
};

/// Documents one plan may hold.
const MAX_NODES: usize = 20_000;
/// Bytes of documents one plan may hold.
const MAX_BYTES: u64 = 32 << 20;
/// Blobs one plan may hold.
const MAX_LEAVES: usize = 200_000;
/// Documents read at a time.
const READS: usize = 8;

impl Plan {
    /// Resolves, selects and walks; reads documents only.
    ///
    /// # Errors
    /// [`Error`] when the source fails or its documents are not acceptable.
    pub async fn new(source: &dyn Source, options: &CopyOptions, task: &Task) -> Result<Plan> {
        let stop = Stop::new(task);
        let planning = async {
            let resolved = source.resolve().await;
            let named = resolved.map_err(Error::resolve)?;
            let choice = select::choose(source, &named, &options.select).await?;
            Plan::walk(source, named, choice, options).await
        };
        tokio::select! {
            biased;
            () = stop.wait() => Err(Error::Cancelled),
            plan = planning => plan,
        }
    }

    pub(crate) async fn walk(
        source: &dyn Source,
        named: Descriptor,
        choice: Choice,
        options: &CopyOptions,
    ) -> Result<Plan> {
        if options.preserve_digests && choice.made {
            let reason = "choosing several platforms makes a new index".to_owned();
            return Err(Error::WouldChange { reason });
        }
        let chosen = if choice.made { named.clone() } else { choice.root.clone() };
        let root = choice.root;
        let node = async {
            match choice.node {
                Some(node) => Ok(node),
                None => select::node(source, &root).await,
            }
        };
        // What is attached to the root is asked for while the root is read.
        let attached = async {
            match options.referrers && !choice.made {
                true => referrers(source, &root).await.map(Some),
                false => Ok(None),
            }
        };
        let (node, attached) = futures::try_join!(node, attached)?;
        let mut walker = Walker::new(source, options);
        walker.listed = attached.map(|list| (root.digest, list));
        let root = node.digest();
        walker.read_below(node, options.select != Select::IndexOnly).await?;
        let root = walker.place(root, 0)?;
        if options.referrers {
            walker.add_referrers().await?;
        }
        let Walker { parts, leaves, left, gone, .. } = walker;
        Ok(Plan { named, chosen, parts, root, leaves, left, gone })
    }
}

/// Reads a graph of documents, level by level, and puts it in order.
struct Walker<'a> {
    source: &'a dyn Source,
    options: &'a CopyOptions,
    nodes: BTreeMap<Digest, Node>,
    bytes: u64,
    /// Children of the root that are left out.
    skipped: BTreeSet<Digest>,
    parts: Vec<Part>,
    placed: BTreeMap<Digest, usize>,
    leaves: Vec<Leaf>,
    leaf_places: BTreeMap<Digest, usize>,
    became: BTreeMap<Digest, Descriptor>,
    left: Vec<Digest>,
    gone: Vec<(Digest, Digest)>,
    /// What refers to a document, where that is known already.
    listed: Option<(Digest, Vec<Descriptor>)>,
}

impl<'a> Walker<'a> {
    fn new(source: &'a dyn Source, options: &'a CopyOptions) -> Self {
        Walker {
            source,
            options,
            nodes: BTreeMap::new(),
            bytes: 0,
            skipped: BTreeSet::new(),
            parts: Vec::new(),
            placed: BTreeMap::new(),
            leaves: Vec::new(),
            leaf_places: BTreeMap::new(),
            became: BTreeMap::new(),
            left: Vec::new(),
            gone: Vec::new(),
            listed: None,
        }
    }

    async fn read_below(&mut self, root: Node, children: bool) -> Result<()> {
        if !children {
            self.skipped.extend(root.children().iter().map(|child| child.digest));
        }
        let mut level = vec![root];
        while !level.is_empty() {
            let mut next = BTreeMap::new();
            for node in level {
                if let Node::Index(index) = &node {
                    let below = index.manifests.iter().filter(|child| self.is_new(child));
                    next.extend(below.map(|child| (child.digest, child.clone())));
                }
                self.bytes += node.bytes().len() as u64;
                self.check_limits(node.digest(), next.len())?;
                self.nodes.insert(node.digest(), node);
            }
            next.retain(|digest, _| !self.nodes.contains_key(digest));
            let source = self.source;
            let reads =
                next.into_values().map(|child| async move { select::node(source, &child).await });
            let mut reads = stream::iter(reads).buffer_unordered(READS);
            level = Vec::new();
            let mut bytes = self.bytes;
            while let Some(node) = reads.try_next().await? {
                bytes += node.bytes().len() as u64;
                if bytes > MAX_BYTES {
                    return Err(too_large(node.digest()));
                }
                level.push(node);
            }
        }
        Ok(())
    }

    fn is_new(&self, child: &Descriptor) -> bool {
        child.media_type.is_node()
            && !self.nodes.contains_key(&child.digest)
            && !self.skipped.contains(&child.digest)
    }

    fn check_limits(&self, digest: Digest, coming: usize) -> Result<()> {
        if self.nodes.len() + coming > MAX_NODES {
            let what = format!("more than {MAX_NODES} documents");
            return Err(Error::TooComplex { digest, what });
        }
        if self.bytes > MAX_BYTES { Err(too_large(digest)) } else { Ok(()) }
    }

    /// Puts a node and everything below it in order, children first.
    fn place(&mut self, digest: Digest, depth: usize) -> Result<usize> {
        if let Some(place) = self.placed.get(&digest) {
            return Ok(*place);
        }
        if depth > MAX_DEPTH {
            return Err(too_deep(digest));
        }
        let node = self.nodes[&digest].clone();
        let (mut leaves, mut parts) = (Vec::new(), Vec::new());
        for (position, child) in node.children().into_iter().enumerate() {
            if self.skipped.contains(&child.digest) {
                continue;
            }
            match &node {
                Node::Index(_) if child.media_type.is_node() => {
                    parts.push(self.place(child.digest, depth + 1)?);
                }
                Node::Index(_) => leaves.push(self.leaf(child, Role::Blob)?),
                Node::Manifest(_) if position == 0 => leaves.push(self.leaf(child, Role::Config)?),
                Node::Manifest(_) if child.media_type.layer_encoding().is_some() => {
                    leaves.push(self.leaf(child, Role::Layer)?);
                }
                Node::Manifest(_) => leaves.push(self.leaf(child, Role::Blob)?),
            }
        }
        // The same whatever the order in which the children are listed.
        let height = parts.iter().map(|child| self.parts[*child].height + 1).max().unwrap_or(0);
        if height > MAX_DEPTH {
            return Err(too_deep(digest));
        }
        let node = self.converted(node)?;
        self.became.insert(digest, node.descriptor().clone());
        let (descriptor, bytes) = (node.descriptor().clone(), node.bytes().clone());
        self.parts.push(Part { descriptor, bytes, leaves, parts, height, subject: None });
        self.placed.insert(digest, self.parts.len() - 1);
        Ok(self.parts.len() - 1)
    }

    fn leaf(&mut self, descriptor: Descriptor, role: Role) -> Result<usize> {
        if let Some(place) = self.leaf_places.get(&descriptor.digest) {
            let known = &self.leaves[*place].descriptor;
            if known.size != descriptor.size {
                return Err(image::Error::SizeMismatch {
                    digest: descriptor.digest,
                    expected: known.size,
                    found: descriptor.size,
                }
                .into());
            }
            return Ok(*place);
        }
        if self.leaves.len() == MAX_LEAVES {
            let what = format!("more than {MAX_LEAVES} blobs");
            return Err(Error::TooComplex { digest: descriptor.digest, what });
        }
        self.leaf_places.insert(descriptor.digest, self.leaves.len());
        self.leaves.push(Leaf { descriptor, role });
        Ok(self.leaves.len() - 1)
    }

    fn converted(&self, node: Node) -> Result<Node> {
        let Some(format) = self.options.format else { return Ok(node) };
        let Some(converted) = convert::convert(&node, format, &self.became)? else {
            return Ok(node);
        };
        if self.options.preserve_digests {
            let reason = format!("{} is of the other format", node.digest());
            return Err(Error::WouldChange { reason });
        }
        Ok(converted)
    }

    /// Adds what refers to the documents so far, and what refers to that.
    async fn add_referrers(&mut self) -> Result<()> {
        let mut from = 0;
        for level in 0..MAX_DEPTH {
            let known = |part: &Part| self.nodes.contains_key(&part.descriptor.digest);
            let mut subjects: Vec<_> = self.parts[from..]
                .iter()
                .filter(|part| known(part))
                .map(|part| part.descriptor.clone())
                .collect();
            if level == 0 {
                let changed = self.became.iter().filter(|(old, new)| **old != new.digest);
                subjects.extend(changed.map(|(old, _)| self.nodes[old].descriptor().clone()));
            }
            from = self.parts.len();
            let source = self.source;
            let mut listed = self.listed.take();
            let lists = subjects.into_iter().map(|subject| {
                let known = listed.take_if(|(digest, _)| *digest == subject.digest);
                async move {
                    let list = match known {
                        Some((_, list)) => list,
                        None => referrers(source, &subject).await?,
                    };
                    Ok::<_, Error>((subject, list))
                }
            });
            // The closure changes what is known: all are made before the first is asked.
            let lists = stream::iter(lists.collect::<Vec<_>>());
            let mut lists = lists.buffered(READS);
            while let Some((subject, list)) = lists.try_next().await? {
                if self.became.get(&subject.digest).is_some_and(|new| new.digest != subject.digest)
                {
                    self.left.extend((!list.is_empty()).then_some(subject.digest));
                    continue;
                }
                for referrer in list {
                    self.add_referrer(&subject, referrer, level == 0).await?;
                }
            }
            if self.parts.len() == from {
                break;
            }
        }
        Ok(())
    }

    /// With `filtered` only a referrer of the types asked for; what refers to those comes along
    /// whatever it is.
    async fn add_referrer(
        &mut self,
        subject: &Descriptor,
        referrer: Descriptor,
        filtered: bool,
    ) -> Result<()> {
        if self.placed.contains_key(&referrer.digest) || !referrer.media_type.is_node() {
            return Ok(());
        }
        let node = match select::node(self.source, &referrer).await {
            Err(error) if error.kind() == Kind::NotFound => {
                self.gone.push((referrer.digest, subject.digest));
                return Ok(());
            }
            node => node?,
        };
        // A list may claim anything; only a document that says so itself is a referrer.
        if node.subject().is_none_or(|about| about.digest != subject.digest) {
            return Ok(());
        }
        let (types, this) = (&self.options.artifact_types, artifact_type(&node));
        if filtered && !types.is_empty() && !types.contains(&this)
            || !self.options.signatures && attached::is_signature(&this)
        {
            return Ok(());
        }
        self.read_below(node, true).await?;
        let place = self.place(referrer.digest, 0)?;
        self.parts[place].subject = Some(subject.bare());
        Ok(())
    }
}

async fn referrers(source: &dyn Source, subject: &Descriptor) -> Result<Vec<Descriptor>> {
    let at = Error::at(format!("listing referrers of {}", subject.digest), Side::Source);
    source.referrers(subject).await.map_err(at)
}

/// What an artifact is (distribution-spec, "Listing Referrers").
fn artifact_type(node: &Node) -> String {
    match node {
        Node::Index(index) => index.artifact_type.clone().unwrap_or_default(),
        Node::Manifest(manifest) => {
            let config = || manifest.config.media_type.to_string();
            manifest.artifact_type.clone().unwrap_or_else(config)
        }
    }
}

fn too_deep(digest: Digest) -> Error {
    Error::TooComplex { digest, what: format!("indexes nested deeper than {MAX_DEPTH}") }
}

fn too_large(digest: Digest) -> Error {
    Error::TooComplex { digest, what: format!("more than {} MiB of documents", MAX_BYTES >> 20) }
}
