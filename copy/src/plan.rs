use bytes::Bytes;
use image::{Descriptor, Digest, Index, Platform};

use crate::best::best;

/// What a blob is to the manifest that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A configuration.
    Config,
    /// A layer.
    Layer,
    /// Anything else.
    Blob,
}

impl Role {
    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Config => "config",
            Role::Layer => "layer",
            Role::Blob => "blob",
        }
    }
}

/// A blob that a copy moves.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The content, as the source names it.
    pub descriptor: Descriptor,
    /// What it is.
    pub role: Role,
}

/// A document that a copy moves, after conversion.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
    /// Its blobs, by their place in the plan.
    pub(crate) leaves: Vec<usize>,
    /// Its documents, by their place in the plan; all smaller than its own.
    pub(crate) parts: Vec<usize>,
    /// How many levels of documents are below it.
    pub(crate) height: usize,
    /// What it was attached to, if it came along as a referrer.
    pub(crate) subject: Option<Descriptor>,
}

/// What a copy would move: documents are read, no other byte.
#[derive(Debug)]
pub struct Plan {
    /// What the source's name points at.
    pub(crate) named: Descriptor,
    /// The source's own document that the copy is made from.
    pub(crate) chosen: Descriptor,
    /// Children before parents.
    pub(crate) parts: Vec<Part>,
    /// The root, by its place among the parts.
    pub(crate) root: usize,
    pub(crate) leaves: Vec<Leaf>,
    /// Documents that become others, and to which something refers that is not copied.
    pub(crate) left: Vec<Digest>,
    /// Listed referrers that are not there, each with what it is said to refer to.
    pub(crate) gone: Vec<(Digest, Digest)>,
}

impl Plan {
    /// What the copy will be named by; differs from the source's where something was selected or
    /// converted.
    pub fn root(&self) -> &Descriptor {
        &self.parts[self.root].descriptor
    }

    /// The blobs, each once.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The documents, children before parents.
    pub fn documents(&self) -> impl Iterator<Item = &Descriptor> {
        self.parts.iter().map(|part| &part.descriptor)
    }

    /// Bytes of all blobs and documents, each counted once.
    pub fn size(&self) -> u64 {
        let leaves = self.leaves.iter().map(|leaf| leaf.descriptor.size);
        let sizes = leaves.chain(self.documents().map(|document| document.size));
        sizes.fold(0, u64::saturating_add)
    }

    /// The layers of the best image for a platform; empty if there is none.
    pub fn layers_for(&self, platform: &Platform) -> Vec<&Descriptor> {
        let mut at = self.root;
        loop {
            let part = &self.parts[at];
            if part.descriptor.media_type.is_manifest() {
                let leaves = part.leaves.iter().map(|leaf| &self.leaves[*leaf]);
                let layers = leaves.filter(|leaf| leaf.role == Role::Layer);
                return layers.map(|leaf| &leaf.descriptor).collect();
            }
            let Ok(index) = serde_json::from_slice::<Index>(&part.bytes) else { return Vec::new() };
            let best = best(&index, platform).map(|best| best.digest);
            let below = part.parts.iter().copied();
            let inner = || {
                let mut indexes = part.parts.iter().copied();
                indexes.find(|at| self.parts[*at].descriptor.media_type.is_index())
            };
            let chosen = match best {
                Some(best) => {
                    below.into_iter().find(|at| self.parts[*at].descriptor.digest == best)
                }
                None => inner(),
            };
            match chosen {
                Some(next) => at = next,
                None => return Vec::new(),
            }
        }
    }
}
