//! What an exported cache looks like on the wire: an image manifest of our own artifact type,
//! whose config lists the steps and whose layers are theirs.
//!
//! A record is trusted for one statement only: "this step, whose key I computed myself, gave this
//! layer". Records do not refer to each other, so there is no graph to walk, and a record cannot
//! replace a step that was not asked for.

use std::collections::{BTreeMap, BTreeSet};

use image::{Config, Descriptor, Digest, Manifest, MediaType};
use layers::LayerInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a cache manifest is.
pub(super) const ARTIFACT: &str = "application/vnd.rbuild.cache.v1";
/// The list of steps.
pub(super) const CONFIG: &str = "application/vnd.rbuild.cache.config.v1+json";
/// What decided each step, for explanations.
pub(super) const FACTS: &str = "application/vnd.rbuild.cache.facts.v1+json.zstd";
/// Where an image's configuration holds the cache that travels within it.
pub(crate) const INLINE: &str = "rbuild.cache.v1";
/// The most mounts that are read.
pub(super) const MOST_MOUNTS: usize = 1000;
/// More records than this are not read.
const MOST: usize = 20_000;

/// The config of a cache manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Listing {
    /// The steps.
    #[serde(default)]
    pub(super) steps: Vec<Record>,
    /// The blob with the facts of the steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) facts: Option<Digest>,
    /// The cache mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<MountRecord>,
}

/// A cache mount in a cache manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MountRecord {
    /// Its id.
    pub(super) id: String,
    /// When it was used last, seconds since 1970.
    pub(super) used: i64,
    /// The blob that lists its pieces.
    pub(super) index: Digest,
    /// Permission bits, owner and group of the directory itself.
    pub(super) attributes: (u32, u32, u32),
    /// The keys of the steps that use the mount, and of everything they depend on. The mount is for
    /// steps that depend on one of these keys.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) keys: BTreeSet<Digest>,
}

/// What one step gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The step.
    pub(super) key: Digest,
    /// When it ran, seconds since 1970.
    pub(super) created: i64,
    /// Its layer, one of those of the manifest.
    pub(super) layer: Digest,
    /// Digest of the layer uncompressed.
    pub(super) diff_id: Digest,
    /// Length of the layer uncompressed.
    pub(super) uncompressed: u64,
    /// How the layer's bytes were made; see [`crate::layer::LayerForm`].
    pub(super) form: String,
}

/// The cache that an image's configuration holds: the steps of its topmost layers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Inline {
    /// How the bytes of the layers were made.
    pub(crate) form: String,
    /// Key and time of the step of each layer, the topmost last.
    pub(crate) steps: Vec<(Digest, i64)>,
}

/// A step's result as a cache elsewhere has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// The cache, by its place in the list.
    pub(crate) cache: usize,
    /// The layer.
    pub(crate) layer: LayerInfo,
    /// How its bytes were made.
    pub(crate) form: String,
    /// When the step ran.
    pub(crate) created: i64,
}

/// The steps of a cache by key, as far as the listing makes sense.
pub(super) fn steps(
    listing: &Listing,
    listed: &[&Descriptor],
    cache: usize,
) -> BTreeMap<Digest, Remote> {
    let layers: BTreeMap<Digest, &Descriptor> =
        listed.iter().map(|layer| (layer.digest, *layer)).collect();
    let mut steps = BTreeMap::new();
    for record in listing.steps.iter().take(MOST) {
        let Some(descriptor) = layers.get(&record.layer) else { continue };
        let Some(encoding) = descriptor.media_type.layer_encoding() else { continue };
        let media_type = MediaType::layer(encoding, false);
        let layer = LayerInfo {
            descriptor: Descriptor { media_type, ..descriptor.bare() },
            diff_id: record.diff_id,
            uncompressed: record.uncompressed,
        };
        let (form, created) = (record.form.clone(), record.created);
        steps.entry(record.key).or_insert(Remote { cache, layer, form, created });
    }
    steps
}

/// The steps that an image's own configuration tells of.
pub(super) fn inline(
    config: &Config,
    manifest: &Manifest,
    cache: usize,
) -> BTreeMap<Digest, Remote> {
    let value = config.rest.get(INLINE).cloned().unwrap_or_default();
    let inline: Inline = serde_json::from_value(value).unwrap_or_default();
    let (layers, diff_ids) = (&manifest.layers, &config.rootfs.diff_ids);
    let mut steps = BTreeMap::new();
    if layers.len() != diff_ids.len() {
        return steps;
    }
    let own = layers.iter().zip(diff_ids).rev();
    for ((descriptor, diff_id), (key, created)) in own.zip(inline.steps.iter().rev()) {
        let Some(encoding) = descriptor.media_type.layer_encoding() else { continue };
        let mut descriptor = descriptor.bare();
        descriptor.media_type = MediaType::layer(encoding, false);
        let layer = LayerInfo { descriptor, diff_id: *diff_id, uncompressed: 0 };
        let (form, created) = (inline.form.clone(), *created);
        steps.entry(*key).or_insert(Remote { cache, layer, form, created });
    }
    steps
}

impl Inline {
    /// As it is kept in a configuration.
    pub(crate) fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], layer: &Descriptor) -> Record {
        Record {
            key: Digest::of(key),
            created: 1,
            layer: layer.digest,
            diff_id: Digest::of(b"plain"),
            uncompressed: 5,
            form: "gzip".to_owned(),
        }
    }

    #[test]
    fn records_that_make_no_sense_are_not_there() {
        let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"layer");
        let odd = Descriptor::of("text/plain".into(), b"text");
        let elsewhere = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"not listed");
        let mut second = record(b"a", &layer);
        second.diff_id = Digest::of(b"another");
        let listing = Listing {
            steps: vec![record(b"a", &layer), second, record(b"b", &odd), record(b"c", &elsewhere)],
            ..Listing::default()
        };
        let steps = steps(&listing, &[&layer, &odd], 3);
        assert_eq!(steps.len(), 1);
        let found = &steps[&Digest::of(b"a")];
        assert_eq!((found.cache, found.layer.diff_id), (3, Digest::of(b"plain")));
    }

    /// Pseudo-random, the same every time.
    fn noise(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    #[test]
    fn no_damage_to_a_listing_is_more_than_fewer_records() {
        let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"layer");
        let listing = Listing {
            steps: (0..20u8).map(|n| record(&[n], &layer)).collect(),
            facts: Some(Digest::of(b"facts")),
            ..Listing::default()
        };
        let keys: Vec<Digest> = listing.steps.iter().map(|record| record.key).collect();
        let whole = serde_json::to_vec(&listing).unwrap();
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        let at = |seed: &mut u64, length: usize| {
            usize::try_from(noise(seed) % length as u64).unwrap_or(0)
        };
        let mut understood = 0;
        for round in 0..5_000 {
            let mut bytes = whole.clone();
            for _ in 0..=round % 3 {
                let position = at(&mut seed, bytes.len());
                match noise(&mut seed) % 8 {
                    0 => bytes[position] = noise(&mut seed).to_le_bytes()[0],
                    4.. => bytes[position] = b"0123456789abcdef"[at(&mut seed, 16)],
                    1 => bytes.truncate(position.max(1)),
                    2 => drop(bytes.remove(position)),
                    _ => {
                        let end = (position + at(&mut seed, 40)).min(bytes.len());
                        let piece = bytes[position..end].to_vec();
                        let to = at(&mut seed, bytes.len());
                        bytes.splice(to..to, piece);
                    }
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let Ok(listing) = serde_json::from_slice::<Listing>(&bytes) else { continue };
            understood += 1;
            let found = steps(&listing, &[&layer], 0);
            assert!(found.values().all(|remote| remote.layer.descriptor == layer));
            // A key can be damaged into an unknown one; it never means other bytes.
            assert!(found.len() <= keys.len() + 3);
        }
        assert!(understood > 100, "the damage is too great to show anything: {understood}");
    }

    #[test]
    fn an_image_tells_of_its_topmost_layers() {
        let layer = |bytes: &[u8]| Descriptor::of(MediaType::DOCKER_LAYER_GZIP, bytes);
        let layers = vec![layer(b"base"), layer(b"one"), layer(b"two")];
        let own = Descriptor::of(MediaType::DOCKER_CONFIG, b"{}");
        let manifest = Manifest::new(MediaType::DOCKER_MANIFEST, own, layers);
        let mut config = Config::default();
        config.rootfs.diff_ids = [b"0", b"1", b"2"].map(|text| Digest::of(text)).to_vec();
        assert!(inline(&config, &manifest, 0).is_empty());
        let inline_cache = Inline {
            form: "gzip".to_owned(),
            steps: vec![(Digest::of(b"a"), 1), (Digest::of(b"b"), 2)],
        };
        config.rest.insert(INLINE.to_owned(), inline_cache.to_value());
        let steps = inline(&config, &manifest, 0);
        assert_eq!(steps[&Digest::of(b"a")].layer.diff_id, Digest::of(b"1"));
        let last = &steps[&Digest::of(b"b")].layer;
        assert_eq!((last.diff_id, last.descriptor.digest), (Digest::of(b"2"), Digest::of(b"two")));
        assert_eq!(last.descriptor.media_type, MediaType::OCI_LAYER_GZIP);
        config.rest.insert(INLINE.to_owned(), serde_json::json!([1, 2]));
        assert!(inline(&config, &manifest, 0).is_empty());
    }
}
