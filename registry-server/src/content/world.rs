//! The storage as the protocol of pushes and collections sees it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use image::Digest;

use super::protocol::{CollectionWorld, Survey, SurveyedManifest, World};
use super::{AT_ONCE, Content, Entry};
use crate::keys;
use crate::storage::{WriteCondition, listed};

/// More condemnations than this are looked up one by one.
const FEW: usize = 1_000;

impl World for Content {
    type Id = Digest;
    type Repo = Arc<str>;

    async fn now(&self) -> io::Result<Duration> {
        self.time().await
    }

    fn grace(&self) -> Duration {
        self.grace
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }

    async fn linked(&self, repo: &Arc<str>, id: Digest) -> io::Result<Option<Duration>> {
        Ok(self.storage.stat(&keys::link(repo, id)).await?.map(|stat| stat.modified))
    }

    async fn link(&self, repo: &Arc<str>, id: Digest) -> io::Result<()> {
        self.storage
            .put(&keys::link(repo, id), Bytes::new(), WriteCondition::Always)
            .await
            .map(drop)
    }

    async fn condemned(&self, ids: &[Digest]) -> io::Result<bool> {
        if let [id] = ids {
            return Ok(self.storage.stat(&keys::condemned(*id)).await?.is_some());
        }
        let names = self.storage.names(keys::CONDEMNED, None, FEW).await?;
        if names.len() < FEW {
            return Ok(ids.iter().any(|id| names.contains(&keys::part(*id))));
        }
        for id in ids {
            if self.storage.stat(&keys::condemned(*id)).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn content(&self, id: Digest) -> io::Result<bool> {
        Ok(self.storage.stat(&keys::blob(id)).await?.is_some())
    }

    async fn enlist(&self, _: &Arc<str>, _: Digest) -> io::Result<()> {
        // What is to be listed is known to an `Admission`.
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn enlisted(&self, repo: &Arc<str>, id: Digest) -> io::Result<bool> {
        Ok(self.storage.stat(&keys::manifest(repo, id)).await?.is_some())
    }

    async fn delist(&self, repo: &Arc<str>, id: Digest) -> io::Result<()> {
        let subject = self.entry(repo, id).await?.and_then(|entry| entry.subject);
        self.drop_manifest(repo, id, subject).await
    }
}

/// The world of one manifest that is being taken in.
pub(super) struct Admission<'a> {
    pub(super) content: &'a Content,
    pub(super) entry: &'a Entry,
}

impl World for Admission<'_> {
    type Id = Digest;
    type Repo = Arc<str>;

    async fn now(&self) -> io::Result<Duration> {
        self.content.now().await
    }

    fn grace(&self) -> Duration {
        self.content.grace
    }

    async fn pause(&self) {
        self.content.pause().await;
    }

    async fn linked(&self, repo: &Arc<str>, id: Digest) -> io::Result<Option<Duration>> {
        self.content.linked(repo, id).await
    }

    async fn link(&self, repo: &Arc<str>, id: Digest) -> io::Result<()> {
        self.content.link(repo, id).await
    }

    async fn condemned(&self, ids: &[Digest]) -> io::Result<bool> {
        self.content.condemned(ids).await
    }

    async fn content(&self, id: Digest) -> io::Result<bool> {
        World::content(self.content, id).await
    }

    async fn enlist(&self, repo: &Arc<str>, id: Digest) -> io::Result<()> {
        let key = keys::manifest(repo, id);
        let entry = super::json(self.entry)?;
        self.content.storage.put(&key, entry, WriteCondition::Always).await.map(drop)
    }

    async fn enlisted(&self, repo: &Arc<str>, id: Digest) -> io::Result<bool> {
        self.content.enlisted(repo, id).await
    }

    async fn delist(&self, repo: &Arc<str>, id: Digest) -> io::Result<()> {
        self.content.delist(repo, id).await
    }
}

impl Content {
    /// An entry, read once per collection.
    async fn remembered(&self, key: &str) -> io::Result<Option<Arc<Entry>>> {
        if let Some(entry) = self.entries.lock().get(key) {
            return Ok(Some(Arc::clone(entry)));
        }
        let Some(entry) = self.document::<Entry>(key).await? else { return Ok(None) };
        let entry = Arc::new(entry);
        self.entries.lock().insert(key.to_owned(), Arc::clone(&entry));
        Ok(Some(entry))
    }
}

impl CollectionWorld for Content {
    async fn survey(&self) -> io::Result<Survey<Digest, Arc<str>>> {
        let mut survey = Survey::default();
        let mut manifests = Vec::new();
        let mut tags = Vec::new();
        let mut repo: Arc<str> = Arc::from("");
        let mut walk = self.storage.walk(keys::REPOSITORIES).await?;
        while let Some(stat) = walk.try_next().await? {
            let Some((name, kind, rest)) = keys::of_repository(&stat.key) else { continue };
            if *repo != *name {
                repo = Arc::from(name);
                if (self.tidy)(name) {
                    survey.tidy.insert(Arc::clone(&repo));
                }
            }
            match (kind, keys::digest(rest)) {
                ("_blobs", Some(digest)) => {
                    survey.links.insert((digest, Arc::clone(&repo)), stat.modified);
                }
                ("_manifests", Some(digest)) => {
                    manifests.push((digest, Arc::clone(&repo), stat.key, stat.modified));
                }
                ("_tags", _) => tags.push((Arc::clone(&repo), rest.to_owned())),
                _ => {}
            }
        }
        drop(walk);
        let read = stream::iter(manifests).map(|(digest, repo, key, modified)| async move {
            let entry = self.remembered(&key).await?;
            Ok::<_, io::Error>(entry.map(|entry| {
                let children = entry.children.clone();
                ((digest, repo), SurveyedManifest { children, subject: entry.subject, modified })
            }))
        });
        survey.manifests = read
            .buffer_unordered(2 * AT_ONCE)
            .try_filter_map(|listed| async { Ok(listed) })
            .try_collect()
            .await?;
        // Where nothing untagged is collected it does not matter what is tagged.
        let tidy = &survey.tidy;
        let tags = stream::iter(tags.into_iter().filter(|(repo, _)| tidy.contains(repo)));
        let read = tags.map(|(repo, tag)| async move {
            let tagged = self.tag(&repo, &tag).await?;
            Ok::<_, io::Error>(tagged.map(|tagged| (tagged.digest, repo)))
        });
        survey.tagged = read
            .buffer_unordered(2 * AT_ONCE)
            .try_filter_map(|tagged| async { Ok(tagged) })
            .try_collect()
            .await?;
        let blobs = listed(self.storage.as_ref(), keys::BLOBS).await?;
        survey.content = blobs.iter().filter_map(|stat| keys::blob_digest(&stat.key)).collect();
        Ok(survey)
    }

    async fn sentences(&self) -> io::Result<Vec<Digest>> {
        let names = self.storage.names(keys::CONDEMNED, None, usize::MAX).await?;
        Ok(names.iter().filter_map(|name| keys::digest(name)).collect())
    }

    async fn condemn(&self, id: Digest) -> io::Result<()> {
        self.mine().await?;
        self.storage.put(&keys::condemned(id), Bytes::new(), WriteCondition::Always).await.map(drop)
    }

    async fn pardon(&self, id: Digest) -> io::Result<()> {
        self.mine().await?;
        self.storage.delete(&keys::condemned(id)).await
    }

    async fn unlink(&self, repo: &Arc<str>, id: Digest) -> io::Result<()> {
        self.mine().await?;
        self.storage.delete(&keys::link(repo, id)).await
    }

    async fn erase(&self, id: Digest) -> io::Result<()> {
        self.mine().await?;
        self.storage.delete(&keys::blob(id)).await
    }

    async fn mine(&self) -> io::Result<()> {
        self.lease.lock().await.mine(self.storage.as_ref()).await
    }
}
