//! GPG signatures of copies: they travel from beside the source to beside the destination.

use std::path::{Path, PathBuf};

use copy::{Location, Source};
use image::{Descriptor, Digest};
use task::{Cause, Task};

use crate::image::members;
use crate::lookaside::{Lookaside, Servers, add_signature, signature_file};

/// Where the signatures of a copy are put.
enum Holder<'a> {
    Lookaside(&'a image::Reference),
    Directory(&'a Path),
    Nothing,
}

impl Holder<'_> {
    fn of(to: &Location) -> Holder<'_> {
        match to {
            Location::Registry(name) => Holder::Lookaside(name),
            Location::Directory(path) => Holder::Directory(path),
            _ => Holder::Nothing,
        }
    }

    fn directory(&self, all: &Lookaside, image: Digest) -> Result<Option<PathBuf>, Cause> {
        match self {
            Holder::Lookaside(name) => Ok(Some(all.directory(name, image)?)),
            Holder::Directory(path) => Ok(Some(path.to_path_buf())),
            Holder::Nothing => Ok(None),
        }
    }
}

impl Lookaside {
    /// Whether an image there can have GPG signatures beside it, without a request.
    pub fn may_have_at(&self, from: &Location) -> bool {
        match from {
            Location::Registry(name) => self.may_have(name),
            Location::Directory(path) => path.join("signature-1").exists(),
            _ => false,
        }
    }

    /// Brings the signatures of a copy with the same digest, and of the images in it, from beside
    /// the source to beside the destination: a registry's lookaside is where `registries.d` says, a
    /// `dir:` holds its own. What is there already is not put there twice. `copied` reads the copy;
    /// `servers` reads lookasides of the source that are on servers.
    ///
    /// # Errors
    /// They cannot be read or written.
    pub async fn carry(
        &self,
        (from, servers): (&Location, &dyn Servers),
        (to, copied): (&Location, &dyn Source),
        root: &Descriptor,
        task: &Task,
    ) -> Result<(), Cause> {
        if !self.may_have_at(from) {
            return Ok(());
        }
        let holder = Holder::of(to);
        let members = match (from, &holder) {
            (Location::Registry(_), Holder::Lookaside(_)) => members(root, copied, task).await?,
            // A directory holds the signatures of its one image, and those of the root travel first.
            _ => vec![root.clone()],
        };
        for member in members {
            task.check()?;
            let found = match from {
                Location::Registry(name) => self.signatures(servers, name, &member.digest).await?,
                Location::Directory(path) => signatures_in(path)?,
                _ => Vec::new(),
            };
            if found.is_empty() {
                continue;
            }
            let Some(directory) = holder.directory(self, member.digest)? else {
                let told = match found.len() {
                    1 => "1 GPG signature stays".to_owned(),
                    count => format!("{count} GPG signatures stay"),
                };
                task.warn(format!("{told} behind: {to} holds none"));
                return Ok(());
            };
            for (_, signature) in &found {
                add_signature(&directory, signature)?;
            }
        }
        Ok(())
    }
}

/// The signatures that a `dir:` holds, by the names of their files.
fn signatures_in(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, Cause> {
    let mut found = Vec::new();
    for number in 1..=Lookaside::MOST {
        let path = directory.join(format!("signature-{number}")).display().to_string();
        let Some(bytes) = signature_file(&path)? else { break };
        found.push((path, bytes));
    }
    Ok(found)
}
