//! From a location as people write it to a source or a sink.

use std::path::Path;

use image::{Descriptor, Platform, Reference};
use registry_client::Client;
use task::{Kind, Task};
use transport::{CopyOptions, Gate, Location, Named, Open, Select, Sink, Source, at};

use super::lookup;
use crate::app::{App, Reach};
use crate::config;
use crate::report::Failure;

/// Reads a location; a text without a transport gets `default` in front.
///
/// # Errors
/// It is no location.
pub fn location(text: &str, default: &str) -> Result<Location, Failure> {
    let here = config::absolute(Path::new("."))?;
    let read = match text.parse::<Location>() {
        Err(_) if !default.is_empty() && text.parse::<Reference>().is_ok() => {
            format!("{default}{text}").parse::<Location>()
        }
        read => read,
    };
    Ok(read?.under(&here))
}

/// The name an image gets in the store when it comes from there.
///
/// # Errors
/// The location says no name.
pub fn store_name(from: &Location) -> Result<String, Failure> {
    match from {
        Location::Registry(reference) => {
            let mut name = reference.clone();
            if name.tag.is_some() {
                name.digest = None;
            }
            Ok(name.or_latest().to_string())
        }
        Location::Store(name) => Ok(name.clone()),
        Location::Layout(path, named)
        | Location::OciArchive(path, named)
        | Location::DockerArchive(path, named) => match named {
            Named::Name(name) => {
                Ok(Reference::parse_with(name, "localhost")?.or_latest().to_string())
            }
            _ => path_name(path),
        },
        other => match other {
            Location::Directory(path) => path_name(path),
            _ => Err(Failure::usage(format!("{other} has no name"))),
        },
    }
}

/// `localhost/STEM:latest` of a file or directory.
fn path_name(path: &Path) -> Result<String, Failure> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let reference = Reference::parse_with(&stem, "localhost").map_err(|_| {
        Failure::usage(format!("{} gives no image name", path.display()))
            .hint("name the image in the location: oci:PATH:NAME")
    })?;
    Ok(reference.or_latest().to_string())
}

/// A name on a registry: short names are Docker Hub's.
///
/// # Errors
/// It is no name.
pub fn remote_name(text: &str) -> Result<Reference, Failure> {
    Ok(text.parse::<Reference>()?.or_latest())
}

/// How one end of a copy is reached.
pub struct Access<'a> {
    /// The store and the configuration.
    pub app: &'a App,
    /// The registries.
    pub reach: Reach,
    /// Whether images that come into the store are unpacked at once.
    pub unpack: bool,
}

impl Access<'_> {
    /// A client that reaches the registries of this end.
    ///
    /// # Errors
    /// Certificates cannot be read.
    pub fn client(&self) -> Result<Client, Failure> {
        self.app.client(&self.reach)
    }

    /// Opens a place for reading.
    ///
    /// # Errors
    /// It does not exist; it is malformed.
    pub fn source(&self, location: &Location) -> Result<Box<dyn Source>, Failure> {
        if let Location::Store(name) = location {
            let found = lookup::require(self.app.store()?, name)?;
            let store = self.app.store()?.clone();
            return Ok(Box::new(at::Store::rooted(&store, &found.descriptor)));
        }
        Ok(at::source(location, &|| self.client_cause())?)
    }

    /// Opens a place for writing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn sink(&self, location: &Location) -> Result<Box<dyn Sink>, Failure> {
        if let Location::Store(name) = location {
            let name = super::bud::local_name(name)?.to_string();
            return Ok(Box::new(at::Store::named(self.app.store()?, &name, self.unpack)));
        }
        Ok(at::sink(location, &|| self.client_cause())?)
    }

    fn client_cause(&self) -> Result<Client, task::Cause> {
        self.app.client(&self.reach).map_err(|failure| failure.into_cause())
    }

    /// Copies within this end, past the policy's gate.
    ///
    /// # Errors
    /// A place fails; the policy refuses the image.
    pub fn copy(
        &self,
        from: &Location,
        to: &Location,
        options: &CopyOptions,
        task: &Task,
    ) -> Result<Descriptor, Failure> {
        copy_between(self, from, self, to, &*self.app.gate()?, options, task)
    }

    /// Copies what is ours already: out of the store.
    ///
    /// # Errors
    /// A place fails.
    pub fn copy_ungated(
        &self,
        from: &Location,
        to: &Location,
        options: &CopyOptions,
        task: &Task,
    ) -> Result<Descriptor, Failure> {
        copy_between(self, from, self, to, &Open, options, task)
    }
}

/// Copies from one end to the other.
///
/// # Errors
/// A place fails; the gate refuses the image.
pub fn copy_between(
    source: &Access<'_>,
    from: &Location,
    sink: &Access<'_>,
    to: &Location,
    gate: &dyn Gate,
    options: &CopyOptions,
    task: &Task,
) -> Result<Descriptor, Failure> {
    let (from, to) = (source.source(from)?, sink.sink(to)?);
    Ok(source.app.wait(transport::copy(&*from, &*to, gate, options, task))??)
}

/// Fetches an image into the store under its own name.
///
/// # Errors
/// It is not there; the policy refuses it.
pub fn pull(
    app: &App,
    reference: &Reference,
    platform: &Platform,
    reach: Reach,
    unpack: bool,
    task: &Task,
) -> Result<Descriptor, Failure> {
    let from = Location::Registry(reference.clone());
    let to = Location::Store(store_name(&from)?);
    let options = CopyOptions { select: Select::One(platform.clone()), ..CopyOptions::default() };
    Access { app, reach, unpack }.copy(&from, &to, &options, task)
}
