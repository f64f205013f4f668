//! What is attached to an image and not part of its copy.

use image::{Descriptor, Digest};

use crate::attached;
use crate::copy::CopyEndpoints;
use crate::stop::Stop;

/// Warns of what stays behind because the destination cannot hold it, or because it is attached to
/// an index of which only one image was copied. A query is sent only if something may be missed; a
/// source that cannot answer is not queried twice.
pub(crate) async fn tell(ends: &CopyEndpoints<'_>, named: &Descriptor, chosen: Digest) {
    let options = ends.options;
    let carried = options.referrers || options.digest_tags;
    if !options.tell_left || (carried && named.digest == chosen) {
        return;
    }
    let why = match carried {
        true => "the copy is one of its images",
        false => "the destination does not hold it",
    };
    let stop = Stop::new(ends.task);
    let referrers = async {
        let listed = stop.guard(ends.source.referrers(named)).await.unwrap_or_default();
        listed.len()
    };
    let tags = async {
        let digest = std::iter::once(named.digest);
        attached::tags_of(ends.source, digest, true, &stop).await.unwrap_or_default().len()
    };
    let (referrers, tags) = futures::join!(referrers, tags);
    let things = match referrers + tags {
        0 => return,
        1 => "1 thing (a signature, an SBOM)".to_owned(),
        count => format!("{count} things (signatures, SBOMs)"),
    };
    ends.task.warn(format!("{things} attached to {} left behind: {why}", named.digest));
}
