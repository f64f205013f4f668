//! Places and names, as people write them.

use std::path::PathBuf;

use clap::Args;
use image::{Descriptor, Digest, Reference};
use transport::{ImageSelector, Location};

use crate::{Dialect, Failure, environment};

/// Reads a text with a transport. As buildah and podman, `containers-storage:NAME` is an image of
/// their own storage, which is the store here.
///
/// # Errors
/// The text has no transport, or what follows is not right for it.
pub fn transported(text: &str) -> Result<Location, Failure> {
    match text.parse::<Location>()? {
        Location::Containers(None, name) if Dialect::spoken().owns_containers_storage() => {
            Ok(Location::Store(name))
        }
        other => Ok(other),
    }
}

/// Reads a location; a text without a transport gets `default` in front.
///
/// # Errors
/// The text is not a location.
pub fn location(text: &str, default: &str) -> Result<Location, Failure> {
    let here = environment::here()?;
    let read = match transported(text) {
        // `docker:NAME` is `docker://NAME` written wrongly rather than an image called docker.
        Err(_)
            if !default.is_empty()
                && !Dialect::spoken().needs_transports()
                && !text.starts_with("docker:")
                && (Dialect::spoken() == Dialect::Crane || !transport::foreign(text))
                && text.parse::<Reference>().is_ok() =>
        {
            transported(&format!("{default}{text}"))
        }
        read => read,
    };
    Ok(read?.under(&here))
}

/// A name on a registry.
///
/// # Errors
/// The text names another place.
pub fn on_registry(text: &str) -> Result<Reference, Failure> {
    match location(text, "docker://")? {
        Location::Registry(reference) => Ok(reference),
        other => Err(Failure::usage(format!("{other}: only registries support blob commands"))),
    }
}

/// A name on a registry with a digest, and the digest.
///
/// # Errors
/// The text names another place, or has no digest.
pub fn pinned(text: &str) -> Result<(Reference, Digest), Failure> {
    let reference = on_registry(text)?;
    let digest = reference.digest.ok_or_else(|| {
        Failure::usage(format!("{text:?} has no digest")).hint("write REPOSITORY@sha256:…")
    })?;
    Ok((reference, digest))
}

/// What an image is called in the archive or layout that it goes to.
pub fn name_where_it_goes(from: &Location) -> String {
    match from {
        Location::Registry(reference) => {
            let plain = Reference { digest: None, ..reference.clone() };
            plain.or_latest().to_string()
        }
        other => other.to_string(),
    }
}

/// A name for the store: without a registry it is `localhost/NAME`, and docker's own as docker.
pub fn local_name(text: &str) -> Result<Reference, Failure> {
    let reference = Reference::parse_with(text, Dialect::spoken().home())?;
    if reference.digest.is_some() {
        return Err(Failure::usage(format!("{text:?}: an image cannot be named by a digest")));
    }
    Ok(reference.or_latest())
}

/// Where to write a new image.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Destination")]
pub struct ToFlags {
    /// The destination: a name on a registry, or transport:…
    #[arg(short, long = "tag", visible_alias = "to", value_name = "NAME")]
    tag: Option<String>,
    /// Write a tarball for `docker load` instead; --tag is the name in it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ToFlags {
    /// The destination; `None` if it is not given.
    ///
    /// # Errors
    /// The name is none.
    pub fn location(&self) -> Result<Option<Location>, Failure> {
        match (&self.output, &self.tag) {
            (Some(file), tag) => {
                let named = tag.clone().map_or(ImageSelector::Only, ImageSelector::Name);
                Ok(Some(Location::DockerArchive(environment::absolute(file)?, named)))
            }
            (None, Some(tag)) => location(tag, "docker://").map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Where to.
    ///
    /// # Errors
    /// There is no destination.
    pub fn required(&self) -> Result<Location, Failure> {
        self.location()?.ok_or_else(|| {
            Failure::usage("there is no destination")
                .hint("name the destination: --tag NAME, or --output FILE")
        })
    }
}

/// The printed name of the new image.
pub fn told(to: &Location, root: &Descriptor) -> String {
    match to {
        Location::Registry(reference) => format!("{}@{}", reference.repository, root.digest),
        _ => root.digest.to_string(),
    }
}

/// The default destination: beside the original, by digest.
///
/// # Errors
/// The original is in no registry.
pub fn beside(from: &Location, root: &Descriptor) -> Result<Location, Failure> {
    match from {
        Location::Registry(reference) => {
            Ok(Location::Registry(reference.repository.pinned(root.digest)))
        }
        _ => Err(Failure::usage("there is no destination")
            .hint("name the destination: --tag NAME, or --output FILE")),
    }
}
