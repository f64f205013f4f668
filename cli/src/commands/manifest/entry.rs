//! Entries of a manifest list: images from the store or elsewhere, and their annotations.

use clap::Args;
use image::{Descriptor, Platform};
use options::place::local_name;
use options::place::location;
use options::progress::Progress;
use options::{Failure, Reach, flags};
use transport::at::StoreImage;
use transport::{CopyOptions, Location, Select};

use super::{find, update};
use crate::app::{App, observed};
use crate::commands::lookup;
use crate::commands::place::{self, Access};

/// What the list states about an image, in place of the image's own values.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EntryFlags {
    /// Add an annotation to the entry of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Set the operating system
    #[arg(long, value_name = "OS")]
    pub os: Option<String>,
    /// Set the architecture
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Set the variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<String>,
    /// Set the version of the operating system
    #[arg(long, value_name = "VERSION")]
    pub os_version: Option<String>,
    /// Set the required features of the operating system
    #[arg(long, value_name = "FEATURE,…", value_delimiter = ',')]
    pub os_features: Vec<String>,
    /// Not supported: the OCI image index has no such field
    #[arg(long, value_name = "FEATURE,…", hide = true)]
    pub features: Vec<String>,
}

impl EntryFlags {
    /// Refuses what cannot be kept.
    ///
    /// # Errors
    /// `--features` is given; an annotation is malformed.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if !self.features.is_empty() {
            return Err(Failure::usage(
                "--features is not supported: the OCI image index has no such field",
            )
            .hint("--os-features is kept"));
        }
        annotations(&self.annotation).map(drop)
    }

    /// Whether anything is said at all.
    pub(crate) fn says_anything(&self) -> bool {
        self.platform(None).is_some() || !self.annotation.is_empty()
    }

    /// The platform with what the flags say laid over it.
    fn platform(&self, own: Option<Platform>) -> Option<Platform> {
        let silent = self.os.is_none()
            && self.arch.is_none()
            && self.variant.is_none()
            && self.os_version.is_none()
            && self.os_features.is_empty();
        if silent {
            return own;
        }
        let mut platform = own.unwrap_or_else(|| Platform {
            architecture: String::new(),
            os: String::new(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        });
        if let Some(os) = &self.os {
            platform.os.clone_from(os);
        }
        if let Some(architecture) = &self.arch {
            platform.architecture.clone_from(architecture);
        }
        if let Some(variant) = &self.variant {
            platform.variant = Some(variant.clone()).filter(|variant| !variant.is_empty());
        }
        if let Some(version) = &self.os_version {
            platform.os_version = Some(version.clone()).filter(|version| !version.is_empty());
        }
        if !self.os_features.is_empty() {
            platform.os_features.clone_from(&self.os_features);
        }
        Some(platform)
    }

    /// The requested image of an index.
    fn wanted(&self) -> Platform {
        let os = self.os.as_deref().unwrap_or(std::env::consts::OS);
        let architecture = self.arch.as_deref().unwrap_or(std::env::consts::ARCH);
        Platform::new(os, architecture, self.variant.as_deref())
    }

    /// Says it of an entry.
    ///
    /// # Errors
    /// An annotation is malformed.
    pub(crate) fn describe(&self, entry: &mut Descriptor) -> Result<(), Failure> {
        entry.platform = self.platform(entry.platform.take());
        entry.annotations.extend(annotations(&self.annotation)?);
        Ok(())
    }
}

/// `KEY=VALUE` pairs, each with a key.
///
/// # Errors
/// One has none.
pub(crate) fn annotations(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| match flags::pair(text) {
        (key, _) if key.is_empty() || !text.contains('=') => {
            Err(Failure::usage(format!("--annotation {text:?}: expected KEY=VALUE")))
        }
        pair => Ok(pair),
    };
    texts.iter().map(pair).collect()
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
    let named = text.parse::<Location>().ok();
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
    let root = observed("compress", Progress::Auto, |task| Ok(store.seal(&root, task)?))?;
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
    observed(&format!("fetch {from}"), Progress::Auto, |task| {
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
) -> Result<Descriptor, Failure> {
    let store = app.store()?;
    // What is fetched is pinned until the list keeps it.
    let _lease = store.lease()?;
    let known: Vec<_> =
        store.published()?.into_iter().map(|known| known.descriptor.digest).collect();
    let mut added = Vec::new();
    for image in images {
        added.extend(entries(app, image, all, flags, reach.clone())?);
    }
    let root = update(store, name, |index| {
        added.iter().cloned().for_each(|entry| index.put(entry));
        Ok(())
    })?;
    for published in store.published()? {
        let digest = published.descriptor.digest;
        // Fetched for this list: it needs no place of its own among the images.
        if !known.contains(&digest) && digest != root.digest && published.names.is_empty() {
            store.forget(digest, None)?;
        }
    }
    Ok(root)
}

/// Puts an image of the store into a list, which is made if there is none.
///
/// # Errors
/// The name is a single image's; the store cannot be written.
pub(crate) fn add_to_list(app: &App, text: &str, image: &Descriptor) -> Result<(), Failure> {
    let store = app.store()?;
    if find(store, text)?.is_none() {
        store.create_manifest_list(&local_name(text)?.to_string())?;
    }
    let entry = store.list_entry(image.bare())?;
    update(store, text, |index| {
        index.put(entry.clone());
        Ok(())
    })?;
    Ok(())
}
