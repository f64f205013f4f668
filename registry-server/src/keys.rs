//! The names of objects. Everything in them was parsed: digests, tags, repository names.
//!
//! ```text
//! blobs/<algorithm>/<hex>                              content, manifests included
//! names/<repository, / as %>                           which repositories there are
//! repositories/<repository>/_blobs/<digest>            link and lease (its time)
//! repositories/<repository>/_manifests/<digest>        a manifest's entry
//! repositories/<repository>/_tags/<tag>                what a tag stands for
//! repositories/<repository>/_pulls/<tag>               when it was last pulled (its time)
//! repositories/<repository>/_referrers/<subject>/<digest>   what refers to a manifest
//! uploads/<session>/...                                a blob on its way in
//! gc/condemned/<digest>, gc/lease, gc/clock            collections
//! ```
//!
//! A digest in a name is `<algorithm>-<hex>`. No part of a repository's name begins with `_`.

use image::Digest;

use crate::storage::Key;

pub(crate) const NAMES: &str = "names/";
pub(crate) const REPOSITORIES: &str = "repositories/";
pub(crate) const BLOBS: &str = "blobs/";
pub(crate) const UPLOADS: &str = "uploads/";
pub(crate) const CONDEMNED: &str = "gc/condemned/";
pub(crate) const LEASE: &str = "gc/lease";

/// A digest as a part of a key.
pub(crate) fn part(digest: Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

/// The digest of a part.
pub(crate) fn digest(part: &str) -> Option<Digest> {
    part.replacen('-', ":", 1).parse().ok()
}

pub(crate) fn blob(digest: Digest) -> Key {
    format!("{BLOBS}{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// The digest of a blob's key.
pub(crate) fn blob_digest(key: &str) -> Option<Digest> {
    let (algorithm, hex) = key.strip_prefix(BLOBS)?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

pub(crate) fn name(repository: &str) -> Key {
    format!("{NAMES}{}", repository.replace('/', "%"))
}

pub(crate) fn link(repository: &str, digest: Digest) -> Key {
    format!("{REPOSITORIES}{repository}/_blobs/{}", part(digest))
}

pub(crate) fn manifest(repository: &str, digest: Digest) -> Key {
    format!("{REPOSITORIES}{repository}/_manifests/{}", part(digest))
}

pub(crate) fn tags(repository: &str) -> Key {
    format!("{REPOSITORIES}{repository}/_tags/")
}

pub(crate) fn tag(repository: &str, tag: &str) -> Key {
    format!("{REPOSITORIES}{repository}/_tags/{tag}")
}

pub(crate) fn pull(repository: &str, tag: &str) -> Key {
    format!("{REPOSITORIES}{repository}/_pulls/{tag}")
}

pub(crate) fn referrers(repository: &str, subject: Digest) -> Key {
    format!("{REPOSITORIES}{repository}/_referrers/{}/", part(subject))
}

pub(crate) fn condemned(digest: Digest) -> Key {
    format!("{CONDEMNED}{}", part(digest))
}

/// Where what a repository has is: its links, manifests and tags.
pub(crate) fn parts(repository: &str) -> [String; 3] {
    ["_blobs", "_manifests", "_tags"].map(|kind| format!("{REPOSITORIES}{repository}/{kind}/"))
}

/// Repository, kind (`_tags`) and the rest of a key of a repository.
pub(crate) fn of_repository(key: &str) -> Option<(&str, &str, &str)> {
    let rest = key.strip_prefix(REPOSITORIES)?;
    let at = rest.find("/_")?;
    let (kind, rest_) = rest[at + 1..].split_once('/')?;
    Some((&rest[..at], kind, rest_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let sum = Digest::of(b"x");
        assert_eq!(digest(&part(sum)), Some(sum));
        assert_eq!(blob_digest(&blob(sum)), Some(sum));
        let key = manifest("team/app", sum);
        assert_eq!(of_repository(&key), Some(("team/app", "_manifests", part(sum).as_str())));
        assert_eq!(of_repository(&tag("a", "v1")), Some(("a", "_tags", "v1")));
        assert_eq!(of_repository("names/a"), None);
    }
}
