//! GPG signatures in a lookaside: a copy with the same digest includes them.

use std::path::{Path, PathBuf};

use image::{Descriptor, Digest};
use task::{Cause, Task};
use transport::Location;

use super::super::place::Access;
use crate::app::App;
use crate::config;
use crate::report::{self, Failure};
use sign::lookaside::{Lookaside, add_signature, signature_file};

/// Where the signatures of a copy are put.
enum Target<'a> {
    Lookaside(&'a image::Reference),
    Directory(&'a Path),
    Nowhere,
}

impl Target<'_> {
    fn of(to: &Location) -> Target<'_> {
        match to {
            Location::Registry(name) => Target::Lookaside(name),
            Location::Directory(path) => Target::Directory(path),
            _ => Target::Nowhere,
        }
    }

    fn directory(&self, all: &Lookaside, image: Digest) -> Result<Option<PathBuf>, Failure> {
        match self {
            Target::Lookaside(name) => Ok(Some(all.directory(name, image)?)),
            Target::Directory(path) => Ok(Some(path.to_path_buf())),
            Target::Nowhere => Ok(None),
        }
    }
}

/// Whether this image can have such signatures, without a request.
pub(crate) fn may_have(all: &Lookaside, from: &Location) -> bool {
    match from {
        Location::Registry(name) => all.may_have(name),
        Location::Directory(path) => path.join("signature-1").exists(),
        _ => false,
    }
}

/// Brings the signatures of a copy, and of the images in it, from beside the source to beside the
/// destination: a registry's lookaside is where `registries.d` says, a `dir:` holds its own. What
/// is there already is not put there twice.
///
/// # Errors
/// They cannot be read or written.
pub(crate) fn carry(
    (app, all): (&App, &Lookaside),
    (from, source): (&Location, &Access<'_>),
    (to, sink): (&Location, &Access<'_>),
    root: &Descriptor,
    task: &Task,
) -> Result<(), Failure> {
    if !may_have(all, from) {
        return Ok(());
    }
    let target = Target::of(to);
    let members = match (from, &target) {
        (Location::Registry(_), Target::Lookaside(_)) => {
            let place = sink.source(to)?;
            app.wait(sign::members(root, &*place, task))??
        }
        // A directory holds the signatures of its one image, and those of the root travel first.
        _ => vec![root.clone()],
    };
    for member in members {
        task.check()?;
        let found = match from {
            Location::Registry(name) => {
                let client = source.client()?;
                let servers = config::Servers::new(move || Ok(client.clone()));
                app.wait(all.signatures(&servers, name, &member.digest))?
            }
            Location::Directory(path) => signatures_in(path),
            _ => Ok(Vec::new()),
        };
        let found = found.map_err(|cause| report::cause(&cause))?;
        if found.is_empty() {
            continue;
        }
        let Some(directory) = target.directory(all, member.digest)? else {
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
