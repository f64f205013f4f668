//! Entries of a manifest list: images from the store or elsewhere, and their annotations.

use app::lists::update;
use app::place::{self, Access};
use app::{App, lookup, observed};
use image::Descriptor;
use options::list::{ArtifactFlags, EntryFlags};
use options::place::{location, transported};
use options::progress::Progress;
use options::{Dialect, Failure, Reach};
use transport::at::{Memory, StoreImage};
use transport::{CopyOptions, Location, Open, Select};

/// buildah says nothing of what a list needs.
fn progress() -> Progress {
    if Dialect::spoken() == Dialect::Buildah { Progress::Quiet } else { Progress::Auto }
}

/// The entries that an image makes, all of it in the store then.
///
/// # Errors
/// There is no such image, or none for the platform; it cannot be fetched.
pub(crate) fn entries(
    app: &App,
    text: &str,
    all: bool,
    flags: &EntryFlags,
    reach: Reach,
) -> Result<Vec<Descriptor>, Failure> {
    let store = app.store()?;
    let named = transported(text).ok();
    let root = match named {
        None => match lookup::find(store, text)? {
            Some(found) => found.descriptor,
            None => {
                let from = place::remote_locations(app, text)?;
                place::first_there(&from, |from| fetch(app, from, all, flags, reach.clone()))?
            }
        },
        Some(Location::Store(name)) => lookup::require(store, &name)?.descriptor,
        Some(_) => fetch(app, &location(text, "")?, all, flags, reach)?,
    };
    // A list names manifests by their digests, so these must be final.
    let root = observed("compress", progress(), |task| Ok(store.seal(&root, task)?))?;
    let mut entries = store.list_entries(&root, all, &flags.wanted())?;
    for entry in &mut entries {
        flags.describe(entry)?;
    }
    Ok(entries)
}

/// Brings an image into the store without a name; the list keeps it.
fn fetch(
    app: &App,
    from: &Location,
    all: bool,
    flags: &EntryFlags,
    reach: Reach,
) -> Result<Descriptor, Failure> {
    let select = if all { Select::All } else { Select::One(flags.wanted()) };
    let options = CopyOptions { select, ..CopyOptions::default() };
    observed(&format!("fetch {from}"), progress(), |task| {
        let source = Access::new(app, reach).source(from)?;
        let sink = StoreImage::new(app.store()?, None);
        let gate = app.gate()?;
        Ok(app.wait(transport::copy(&*source, &sink, &*gate, &options, task))??)
    })
}

/// Adds images to a list.
///
/// # Errors
/// As [`entries`]; there is no such list.
pub(crate) fn add(
    app: &App,
    name: &str,
    images: &[String],
    all: bool,
    flags: &EntryFlags,
    reach: &Reach,
) -> Result<(Descriptor, Vec<Descriptor>), Failure> {
    let store = app.store()?;
    // What is fetched is pinned until the list keeps it.
    let _lease = store.lease()?;
    let known: Vec<_> =
        store.published()?.into_iter().map(|known| known.descriptor.digest).collect();
    let mut added = Vec::new();
    for image in images {
        added.extend(entries(app, image, all, flags, reach.clone())?);
    }
    let root = put(app, name, &added)?;
    for published in store.published()? {
        let digest = published.descriptor.digest;
        // Fetched for this list: it needs no place of its own among the images.
        if !known.contains(&digest) && digest != root.digest && published.names.is_empty() {
            store.forget(digest, None)?;
        }
    }
    Ok((root, added))
}

/// Makes an artifact of files in the store; gives its entry for a list.
///
/// # Errors
/// A file cannot be read; there is no such subject.
pub(crate) fn artifact(
    app: &App,
    flags: &ArtifactFlags,
    files: &[String],
    reach: Reach,
) -> Result<Descriptor, Failure> {
    let subject = match &flags.artifact_subject {
        None => None,
        Some(image) => entries(app, image, false, &EntryFlags::default(), reach)?.pop(),
    };
    let parts = flags.parts(files)?;
    observed("add artifact", progress(), |task| {
        let nothing = Memory::new().image("none");
        let made = parts.overlay(&nothing, subject.as_ref())?;
        let sink = StoreImage::new(app.store()?, None);
        let options = CopyOptions { select: Select::All, ..CopyOptions::default() };
        let root = app.wait(transport::copy(&made, &sink, &Open, &options, task))??;
        Ok(Descriptor { artifact_type: flags.artifact_type.clone(), ..root.bare() })
    })
}

/// Puts entries that are in the store into a list.
///
/// # Errors
/// There is no such list.
pub(crate) fn put(app: &App, name: &str, added: &[Descriptor]) -> Result<Descriptor, Failure> {
    update(app.store()?, name, |index| {
        added.iter().cloned().for_each(|entry| index.put(entry));
        Ok(())
    })
}
