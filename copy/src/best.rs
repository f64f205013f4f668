use image::{Descriptor, Index, Platform};

/// The image of an index that serves a platform best.
pub(crate) fn best<'a>(index: &'a Index, platform: &Platform) -> Option<&'a Descriptor> {
    let manifests = || index.manifests.iter().filter(|child| child.media_type.is_manifest());
    let ranked = manifests().filter_map(|child| {
        let rank = child.platform.as_ref()?.serves(platform)?;
        Some((rank, child))
    });
    let nameless = || {
        let mut all = manifests();
        all.next().filter(|only| only.platform.is_none() && all.next().is_none())
    };
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, child)| child).or_else(nameless)
}
