use std::path::{Path, PathBuf};

use registry_client::Client;
use store::Store;
use task::Cause;

use crate::at::{
    Archive, ArchiveSource, ContainersImage, ContainersSink, Daemon, DaemonSink, DaemonSource,
    DaemonTls, Directory, Form, LayoutImage, Registry, StoreImage, Tarball, archive_names,
};
use crate::{Error, ImageSelector, Location, Result, Side, Sink, Source, StorageAt};

/// What locations need to be opened; each is used only if a location needs it.
pub struct Places<'a> {
    /// The client for `docker://`.
    pub client: &'a (dyn Fn() -> Result<Client, Cause> + Sync),
    /// The store for `store:`.
    pub store: &'a (dyn Fn() -> Result<Store, Cause> + Sync),
    /// Where others keep images on this machine.
    pub machine: &'a Machine,
}

/// Where others keep images on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The socket of the Docker daemon: `unix:///path`, `tcp://host:port` or `https://host:port`.
    pub daemon: String,
    /// How TLS is spoken with the daemon.
    pub daemon_tls: DaemonTls,
    /// Where podman and buildah keep images; the first place that has one counts.
    pub containers: Vec<PathBuf>,
    /// The driver with which they write new layers, if it is set.
    pub containers_driver: Option<String>,
    /// Where large files are put for a while.
    pub scratch: PathBuf,
    /// A directory with the blobs of OCI layouts, if they are not in them.
    pub shared_blobs: Option<PathBuf>,
    /// Whether layouts and directories are written without waiting for the disk.
    pub unsynced: bool,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            daemon: "unix:///var/run/docker.sock".to_owned(),
            daemon_tls: DaemonTls::default(),
            containers: vec!["/var/lib/containers/storage".into()],
            containers_driver: None,
            scratch: "/var/tmp".into(),
            shared_blobs: None,
            unsynced: false,
        }
    }
}

fn layout(path: &Path, named: &ImageSelector, places: &Places<'_>) -> LayoutImage {
    let Machine { shared_blobs, unsynced, .. } = places.machine;
    LayoutImage::new(path, named.clone()).sharing(shared_blobs.as_deref()).unsynced(*unsynced)
}

fn daemon(places: &Places<'_>) -> Result<Daemon, Cause> {
    let Machine { daemon, daemon_tls, scratch, .. } = places.machine;
    Daemon::new(daemon, daemon_tls, scratch)
}

fn containers(at: Option<&StorageAt>, name: &str, places: &Places<'_>) -> ContainersImage {
    ContainersImage::new(at, name, &places.machine.containers)
}

impl Places<'_> {
    /// The image there, to be read. Nothing is opened yet but the client or the store; of a path
    /// the real one is taken, so that a policy decides about what will be opened.
    ///
    /// # Errors
    /// [`Error::Place`] without a client or store.
    pub fn source(&self, location: &Location) -> Result<Box<dyn Source>> {
        let at = Error::at(format!("opening {location}"), Side::Source);
        self.try_source(location).map_err(at)
    }

    fn try_source(&self, location: &Location) -> Result<Box<dyn Source>, Cause> {
        Ok(match &location.real() {
            Location::Registry(reference) => Box::new(Registry::new(&(self.client)()?, reference)),
            Location::Layout(path, named) => Box::new(layout(path, named, self)),
            Location::OciArchive(path, named) => {
                Box::new(ArchiveSource::new(path, Form::Oci, named.clone()))
            }
            Location::DockerArchive(path, named) => {
                Box::new(ArchiveSource::new(path, Form::Docker, named.clone()))
            }
            Location::Directory(path) => Box::new(Directory::new(path)),
            Location::Tarball(paths) => Box::new(Tarball::new(paths)),
            Location::Store(name) => Box::new(StoreImage::new(&(self.store)()?, Some(name))),
            Location::Daemon(name) => Box::new(DaemonSource::new(daemon(self)?, name)),
            Location::Containers(at, name) => Box::new(containers(at.as_ref(), name, self)),
        })
    }

    /// The image there, to be written. What is there now stays until the new one is published.
    ///
    /// # Errors
    /// [`Error::Place`] without a client or store, or if an archive cannot be started.
    pub fn sink(&self, location: &Location) -> Result<Box<dyn Sink>> {
        let at = Error::at(format!("opening {location}"), Side::Destination);
        self.try_sink(location).map_err(at)
    }

    fn try_sink(&self, location: &Location) -> Result<Box<dyn Sink>, Cause> {
        if let Location::Layout(path, _) | Location::Directory(path) = location
            && path.exists()
            && !path.is_dir()
        {
            let reason = "it is not a directory".to_owned();
            return Err(Error::Malformed { place: path.display().to_string(), reason }.into());
        }
        Ok(match location {
            Location::Registry(reference) => Box::new(Registry::new(&(self.client)()?, reference)),
            Location::Layout(path, named) => Box::new(layout(path, named, self)),
            Location::OciArchive(path, named) => {
                Box::new(Archive::create(path, Form::Oci)?.only_image(named.clone()))
            }
            Location::DockerArchive(path, named) => {
                Box::new(Archive::create(path, Form::Docker)?.only_image(named.clone()))
            }
            Location::Directory(path) => {
                Box::new(Directory::new(path).unsynced(self.machine.unsynced))
            }
            Location::Tarball(_) => return Err(cannot(location, "writing an image").into()),
            Location::Store(name) => Box::new(StoreImage::new(&(self.store)()?, Some(name))),
            Location::Daemon(name) => Box::new(DaemonSink::new(daemon(self)?, name)?),
            Location::Containers(at, name) => {
                let Machine { containers: roots, containers_driver, .. } = self.machine;
                let driver = containers_driver.as_deref();
                Box::new(ContainersSink::new(at.as_ref(), name, roots, driver)?)
            }
        })
    }

    /// The names beside this one: tags of the repository, images of the layout or archive; the
    /// first `limit` ones.
    ///
    /// # Errors
    /// [`Error::Place`]; [`Error::Unsupported`] where a place holds one image without a name.
    pub async fn names(&self, location: &Location, limit: Option<usize>) -> Result<Vec<String>> {
        let at = Error::at(format!("listing the names in {location}"), Side::Source);
        let mut names = self.try_names(location, limit).await.map_err(at)?;
        names.truncate(limit.unwrap_or(usize::MAX));
        Ok(names)
    }

    async fn try_names(
        &self,
        location: &Location,
        limit: Option<usize>,
    ) -> Result<Vec<String>, Cause> {
        match location {
            Location::Registry(reference) => {
                Registry::new(&(self.client)()?, reference).tags(limit).await
            }
            Location::Layout(path, named) => LayoutImage::new(path, named.clone()).names().await,
            Location::OciArchive(path, _) => archive_names(path, Form::Oci).await,
            Location::DockerArchive(path, _) => archive_names(path, Form::Docker).await,
            Location::Store(_) => {
                let names = (self.store)()?.names()?;
                Ok(names.into_iter().map(|name| name.name).collect())
            }
            Location::Containers(at, name) => containers(at.as_ref(), name, self).names().await,
            Location::Directory(_) | Location::Tarball(_) | Location::Daemon(_) => {
                Err(cannot(location, "listing names").into())
            }
        }
    }

    /// What an archive or directory holds, whatever its form: where to read each image, and its
    /// name for a store.
    ///
    /// # Errors
    /// [`Error::Place`] for what is none of these forms, [`Error::Location`] for a file whose name
    /// cannot name an image.
    pub async fn images_in(&self, path: &Path) -> Result<Vec<(Location, String)>> {
        let path = path.to_owned();
        let whole = if path.is_dir() {
            match path.join("oci-layout").exists() {
                true => Location::Layout(path, ImageSelector::Only),
                false => {
                    let directory = Location::Directory(path);
                    let name = directory.store_name()?;
                    return Ok(vec![(directory, name)]);
                }
            }
        } else {
            let docker = Location::DockerArchive(path.clone(), ImageSelector::Only);
            match self.names(&docker, None).await {
                Ok(_) => docker,
                Err(_) => Location::OciArchive(path, ImageSelector::Only),
            }
        };
        let names = self.names(&whole, None).await?;
        if names.is_empty() {
            let name = whole.store_name()?;
            return Ok(vec![(whole, name)]);
        }
        let one = |name: String| {
            let named = ImageSelector::Name(name);
            let from = match &whole {
                Location::Layout(path, _) => Location::Layout(path.clone(), named),
                Location::DockerArchive(path, _) => Location::DockerArchive(path.clone(), named),
                Location::OciArchive(path, _) => Location::OciArchive(path.clone(), named),
                other => other.clone(),
            };
            let name = from.store_name()?;
            Ok((from, name))
        };
        names.into_iter().map(one).collect()
    }

    /// Deletes what the location names: in a registry the manifest (by digest) or the tag, elsewhere the
    /// name.
    ///
    /// # Errors
    /// [`Error::Place`]; [`Error::NoImage`] when there is nothing of that name;
    /// [`Error::Unsupported`] for archives and directories.
    pub async fn delete(&self, location: &Location) -> Result<()> {
        let at = Error::at(format!("deleting {location}"), Side::Destination);
        self.try_delete(location).await.map_err(at)
    }

    async fn try_delete(&self, location: &Location) -> Result<(), Cause> {
        let deleted = match location {
            Location::Registry(reference) => {
                Registry::new(&(self.client)()?, reference).delete().await?;
                true
            }
            Location::Layout(path, named) => LayoutImage::new(path, named.clone()).delete().await?,
            Location::Store(name) => (self.store)()?.unname(name)?,
            _ => return Err(cannot(location, "deleting an image").into()),
        };
        if deleted {
            return Ok(());
        }
        let (name, place) = (location.to_string(), "its place".to_owned());
        Err(Error::NoImage { name, place, known: Vec::new() }.into())
    }
}

fn cannot(location: &Location, action: &str) -> Error {
    Error::Unsupported { action: action.to_owned(), place: location.to_string() }
}
