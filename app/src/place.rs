//! From a location as people write it to a source or a sink.

use std::cell::OnceCell;
use std::path::Path;

use image::{Descriptor, Layer, Platform, Reference};
use options::place::location;
use options::sign_copy::Signer;
use options::{Dialect, Failure, Reach};
use registry_client::Client;
use task::{Cause, Kind, Task};
use transport::at::StoreImage;
use transport::{
    CopyOptions, Gate, ImageSelector, Location, Open, Places, Select, Sink, Source, bridge,
};

use crate::App;
use crate::lookup;

/// As [`location`]; a name without a registry may mean several images, and the first that exists
/// counts.
///
/// # Errors
/// The text is not a location, or it is ambiguous.
pub fn remote_locations(app: &App, text: &str) -> Result<Vec<Location>, Failure> {
    if text.parse::<Location>().is_ok() || text.parse::<Reference>().is_err() {
        return Ok(vec![location(text, "docker://")?]);
    }
    Ok(app.meanings(text)?.into_iter().map(Location::Registry).collect())
}

/// Does something with the first of the images that there is.
///
/// # Errors
/// Those of the last one.
pub fn first_there<T>(
    locations: &[Location],
    mut work: impl FnMut(&Location) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut left = locations.iter();
    loop {
        let location = left.next().ok_or_else(|| Failure::usage("there is no image"))?;
        match work(location) {
            // Docker Hub and others deny what is not there.
            Err(failure)
                if left.len() > 0 && matches!(failure.kind, Kind::NotFound | Kind::Denied) =>
            {
                eprintln!("{location} is not there");
            }
            result => return result,
        }
    }
}

/// How one end of a copy is reached.
pub struct Access<'a> {
    /// The store and the configuration.
    pub app: &'a App,
    /// The registries.
    pub reach: Reach,
    /// For which platform images that come into the store are unpacked at once, if for any.
    pub unpack: Option<Platform>,
    client: OnceCell<Client>,
}

impl<'a> Access<'a> {
    /// Reaches registries so, and unpacks nothing.
    pub fn new(app: &'a App, reach: Reach) -> Access<'a> {
        Access { app, reach, unpack: None, client: OnceCell::new() }
    }

    /// As [`Access::new`], and unpacks for this platform what comes into the store.
    pub fn unpacking(app: &'a App, reach: Reach, platform: Platform) -> Access<'a> {
        Access { unpack: Some(platform), ..Access::new(app, reach) }
    }

    /// The one client that reaches the registries of this end.
    ///
    /// # Errors
    /// Certificates cannot be read.
    pub fn client(&self) -> Result<Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = self.app.client(&self.reach)?;
        Ok(self.client.get_or_init(|| client).clone())
    }

    fn with_places<T>(
        &self,
        location: &Location,
        open: impl FnOnce(&Places<'_>) -> transport::Result<T>,
    ) -> Result<T, Failure> {
        let client = match location {
            Location::Registry(_) => Some(self.client()?),
            _ => None,
        };
        let store = match location {
            Location::Store(_) => Some(self.app.store()?.clone()),
            _ => None,
        };
        let machine = self.app.conf.machine(&self.reach)?;
        let places = Places {
            client: &|| Ok(client.clone().expect("a registry was given a client")),
            store: &|| Ok(store.clone().expect("a store location was given the store")),
            machine: &machine,
        };
        Ok(open(&places)?)
    }

    /// Opens a place for reading.
    ///
    /// # Errors
    /// It does not exist; it is malformed.
    pub fn source(&self, location: &Location) -> Result<Box<dyn Source>, Failure> {
        let location = self.in_store(location)?;
        self.with_places(&location, |places| places.source(&location))
    }

    /// Opens a place for writing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn sink(&self, location: &Location, task: &Task) -> Result<Box<dyn Sink>, Failure> {
        match location {
            Location::Store(name) => {
                let name = options::place::local_name(name)?.to_string();
                self.in_store_as(Some(&name), task)
            }
            _ => self.with_places(location, |places| places.sink(location)),
        }
    }

    /// The store, for an image of this name or of none.
    fn in_store_as(&self, name: Option<&str>, task: &Task) -> Result<Box<dyn Sink>, Failure> {
        let image = StoreImage::new(self.app.store()?, name);
        Ok(match &self.unpack {
            Some(platform) => Box::new(image.unpacked(platform.clone(), task.later("unpack"))),
            None => Box::new(image),
        })
    }

    /// The names beside this one.
    ///
    /// # Errors
    /// The place has no list of names.
    pub fn names(&self, location: &Location) -> Result<Vec<String>, Failure> {
        self.with_places(location, |places| Ok(self.app.wait(places.names(location, None))))?
            .and_then(|names| Ok(names?))
    }

    /// Deletes what the location names.
    ///
    /// # Errors
    /// There is nothing of that name; the place does not delete.
    pub fn delete(&self, location: &Location) -> Result<(), Failure> {
        let location = self.in_store(location)?;
        self.with_places(&location, |places| Ok(self.app.wait(places.delete(&location))))?
            .and_then(|deleted| Ok(deleted?))
    }

    /// A short name in the store made whole.
    fn in_store(&self, location: &Location) -> Result<Location, Failure> {
        let Location::Store(name) = location else { return Ok(location.clone()) };
        let found = lookup::require(self.app.store()?, name)?;
        let digest = found.descriptor.digest.to_string();
        Ok(Location::Store(found.name.unwrap_or(digest)))
    }

    /// What an archive or directory holds: where to read each image and what to call it.
    ///
    /// # Errors
    /// It is none of the forms we read.
    pub fn images_in(&self, path: &Path) -> Result<Vec<(Location, String)>, Failure> {
        let at = Location::Directory(path.to_owned());
        self.with_places(&at, |places| Ok(self.app.wait(places.images_in(path))))?
            .and_then(|images| Ok(images?))
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

/// Signs what was copied.
///
/// # Errors
/// The destination holds no signatures.
pub fn sign(
    signer: &Signer,
    sink: &Access<'_>,
    to: &Location,
    root: &Descriptor,
    task: &Task,
) -> Result<(), Failure> {
    let place = sink.source(to)?;
    signer.sign(sink.app, (&*place, &|| sink.sink(to, task)), to, root, task)
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
    // A name by digest is given once the image is here.
    let pinned = match to {
        Location::Store(name) => Some(Reference::parse_with(name, "localhost")?),
        _ => None,
    };
    let pinned = pinned.and_then(|name| Some((name.digest?, name.to_string())));
    let open = source.source(from)?;
    let into = match &pinned {
        Some(_) => sink.in_store_as(None, task)?,
        None => sink.sink(to, task)?,
    };
    let gate = builder::RecordingGate::new(gate);
    let root = source.app.wait(transport::copy(&*open, &*into, &gate, options, task))??;
    if let (Location::Registry(name), Location::Store(_)) = (&from, to) {
        let permitted = gate.permitted().unwrap_or_else(|| root.clone());
        builder::remember_pulled(sink.app.store()?, name, &permitted, &root)
            .map_err(Failure::of)?;
    }
    if let Some((expected, name)) = pinned {
        let verified =
            matches!(from, Location::Registry(reference) if reference.digest == Some(expected));
        if !verified && root.digest != expected {
            return Err(image::Error::DigestMismatch { expected, found: root.digest }.into());
        }
        sink.app.store()?.publish(&name, &root)?;
    }
    Ok(root)
}

/// Fetches an image into the store under its own name.
///
/// # Errors
/// It is not there; the policy refuses it.
pub fn pull(
    app: &App,
    from: &Location,
    platform: &Platform,
    reach: Reach,
    task: &Task,
) -> Result<Descriptor, Failure> {
    let to = Location::Store(from.store_name()?);
    let options = CopyOptions { select: Select::One(platform.clone()), ..CopyOptions::default() };
    Access::unpacking(app, reach, platform.clone()).copy(from, &to, &options, task)
}

/// The bytes of a layer of a source, verified while they are read.
///
/// # Errors
/// The source has no such blob, or fails.
pub fn open_layer(
    app: &App,
    source: &dyn Source,
    layer: &Layer<'_>,
) -> Result<Box<dyn std::io::Read>, Cause> {
    let fetch = async {
        let unverified = source.fetch(layer.descriptor).await?;
        Ok::<_, Cause>(bridge::reader(unverified.verify(layer.descriptor)))
    };
    let fetched = app.wait(fetch).map_err(|failure| store::Error::Stream {
        digest: layer.descriptor.digest,
        source: std::io::Error::other(failure.messages.join(": ")),
    })?;
    Ok(Box::new(fetched?))
}
/// The name that an image from there gets in the store. Where content names images, a path does
/// not: the image of a directory has no name then, nor has one that is nameless in its archive.
///
/// # Errors
/// The archive cannot be read; it has a name that is none.
pub fn own_name_of(app: &App, from: &Location) -> Result<Option<String>, Failure> {
    if !Dialect::spoken().names_by_content() {
        return Ok(Some(from.store_name()?));
    }
    match from {
        Location::DockerArchive(path, ImageSelector::Only)
        | Location::OciArchive(path, ImageSelector::Only) => {
            let access = Access::new(app, Reach::default());
            Ok(access.images_in(path)?.into_iter().next().map(|(_, name)| name))
        }
        Location::Directory(_) | Location::Layout(_, ImageSelector::Only) => Ok(None),
        other => Ok(Some(other.store_name()?)),
    }
}
