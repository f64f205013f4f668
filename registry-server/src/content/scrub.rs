//! Whether what is stored is what it should be.

use std::io;

use futures::TryStreamExt;
use image::Digest;

use super::Content;
use super::protocol::CollectionWorld;
use crate::keys;

/// What a scrub found.
#[derive(Debug, Clone, Default)]
pub struct ScrubReport {
    /// Blobs and manifests read.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Content that is not what its name says.
    pub broken: Vec<Digest>,
    /// Manifests that lack something: repository, manifest, what is missing.
    pub missing: Vec<(String, Digest, Digest)>,
}

impl Content {
    /// Reads and hashes everything. With `repair`, what is broken is removed, so that the next push
    /// brings it again.
    pub(crate) async fn scrub(&self, repair: bool) -> io::Result<ScrubReport> {
        let mut found = ScrubReport::default();
        let mut walk = self.storage.walk(keys::BLOBS).await?;
        while let Some(stat) = walk.try_next().await? {
            let Some(digest) = keys::blob_digest(&stat.key) else { continue };
            // It may have been collected since it was listed.
            let Some(hashed) = self.hashed(&stat.key, digest).await? else { continue };
            found.checked += 1;
            found.bytes += stat.size;
            if hashed != digest {
                found.broken.push(digest);
                if repair {
                    self.storage.delete(&stat.key).await?;
                }
            }
        }
        drop(walk);
        let survey = self.survey().await?;
        self.entries.lock().clear();
        for ((id, repo), listed) in &survey.manifests {
            for part in listed.children.iter().chain([id]) {
                let there = survey.content.contains(part);
                if !there && self.storage.stat(&keys::blob(*part)).await?.is_none() {
                    found.missing.push((repo.to_string(), *id, *part));
                }
            }
        }
        Ok(found)
    }
}
