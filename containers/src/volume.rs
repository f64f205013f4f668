//! Volumes: directories of the store that containers keep data in.
//!
//! A volume is a directory `volumes/NAME` of the store with the data in `_data` and a document
//! `volume.json` beside it, which is written last: a directory without it is not there yet.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use image::Image;
use layers::Root;
use layers::copy::{CopyOptions, copy};
use runtime::{ContainerSpec, Files, ImageVolumes, Mount, Propagation, VolumeMount};
use serde::{Deserialize, Serialize};
use store::Store;
use task::Task;

use crate::image_files::ImageFiles;
use crate::record::MountedVolume;
use crate::{Containers, Error, Result};

const DOCUMENT: &str = "volume.json";
const DATA: &str = "_data";

/// What is known about a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it was made for a container that gave it no name.
    pub anonymous: bool,
    /// Whether it still takes what the image has at the place where it is mounted first.
    pub fresh: bool,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The directory of this machine that holds its data, where that is not in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
    /// Where its data is.
    #[serde(skip)]
    pub path: PathBuf,
}

/// The volumes of a store.
#[derive(Debug, Clone)]
pub struct Volumes {
    store: Store,
}

impl Volumes {
    /// Those of a store.
    pub fn new(store: Store) -> Volumes {
        Volumes { store }
    }

    fn directory(&self) -> PathBuf {
        self.store.path().join("volumes")
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Document`].
    pub fn list(&self) -> Result<Vec<Volume>> {
        let directory = self.directory();
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("reading", &directory)(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file("reading", &directory))?;
            all.extend(self.read(&entry.path())?);
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn read(&self, directory: &Path) -> Result<Option<Volume>> {
        let path = directory.join(DOCUMENT);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("reading", &path)(error)),
        };
        let read: serde_json::Result<Volume> = serde_json::from_slice(&bytes);
        let volume = read.map_err(|source| Error::Document { path, source })?;
        let path = volume.device.clone().unwrap_or_else(|| directory.join(DATA));
        Ok(Some(Volume { path, ..volume }))
    }

    /// The volume of this name, if there is one.
    ///
    /// # Errors
    /// As [`Volumes::list`]; [`Error::Invalid`] for what cannot be a name.
    pub fn find(&self, name: &str) -> Result<Option<Volume>> {
        check(name)?;
        self.read(&self.directory().join(name))
    }

    /// As [`Volumes::find`], and it must be there.
    ///
    /// # Errors
    /// [`Error::NoVolume`]; as [`Volumes::find`].
    pub fn get(&self, name: &str) -> Result<Volume> {
        self.find(name)?.ok_or_else(|| Error::NoVolume { name: name.to_owned() })
    }

    /// Makes an empty volume. It takes the content of the image it is first mounted in.
    ///
    /// # Errors
    /// [`Error::VolumeExists`], [`Error::Invalid`], [`Error::File`].
    pub fn create(&self, name: &str, labels: BTreeMap<String, String>) -> Result<Volume> {
        self.add(&Volume { name: name.to_owned(), labels, fresh: true, ..Volume::default() })
    }

    /// Makes a volume whose data is a directory of this machine. It takes nothing of images, and the
    /// directory stays when it is removed.
    ///
    /// # Errors
    /// As [`Volumes::create`]; there is no such directory.
    pub fn create_at(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        device: &Path,
    ) -> Result<Volume> {
        let found = device.canonicalize().map_err(Error::file("finding", device))?;
        if !found.is_dir() {
            let reason = format!("{} is not a directory", device.display());
            return Err(Error::Invalid { name: name.to_owned(), reason });
        }
        let device = Some(found);
        self.add(&Volume { name: name.to_owned(), labels, device, ..Volume::default() })
    }

    fn make(&self, name: &str, anonymous: bool) -> Result<Volume> {
        self.add(&Volume { name: name.to_owned(), anonymous, fresh: true, ..Volume::default() })
    }

    /// Makes its directory, and writes the document last.
    fn add(&self, wanted: &Volume) -> Result<Volume> {
        let name = wanted.name.as_str();
        check(name)?;
        let directory = self.directory().join(name);
        let data = directory.join(DATA);
        std::fs::create_dir_all(&data).map_err(Error::file("making", &data))?;
        let path = wanted.device.clone().unwrap_or(data);
        let volume = Volume { created: crate::ended::seconds(), path, ..wanted.clone() };
        let new = directory.join(format!("{}.new", task::random_id()));
        std::fs::write(&new, json(&volume)).map_err(Error::file("writing", &new))?;
        let path = directory.join(DOCUMENT);
        // The first caller has made it.
        let linked = std::fs::hard_link(&new, &path);
        let _ = std::fs::remove_file(&new);
        match linked {
            Ok(()) => Ok(volume),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::VolumeExists { name: name.to_owned() })
            }
            Err(error) => Err(Error::file("writing", &path)(error)),
        }
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// [`Error::VolumeInUse`], [`Error::NoVolume`], [`Error::File`].
    pub fn remove(&self, name: &str) -> Result<()> {
        self.get(name)?;
        if let Some(by) = self.users(name)?.pop() {
            return Err(Error::VolumeInUse { name: name.to_owned(), by });
        }
        self.delete(name)
    }

    /// As [`Volumes::remove`]; containers that use it are stopped, killed after `patience`, and removed first.
    ///
    /// # Errors
    /// As there; as [`crate::Container::stop`] and [`crate::Container::remove`].
    pub fn remove_with_users(&self, name: &str, patience: Duration, task: &Task) -> Result<()> {
        self.get(name)?;
        let containers = Containers::new(self.store.clone());
        for user in self.users(name)? {
            // It may be gone by now.
            let Some(container) = containers.find(&user)? else { continue };
            container.stop(Some(patience), task)?;
            container.remove(true, task)?;
        }
        self.remove(name)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let directory = self.directory().join(name);
        let document = directory.join(DOCUMENT);
        match std::fs::remove_file(&document) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(Error::file("removing", &document))?,
        }
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(Error::file("removing", &directory)),
        }
    }

    /// The names of the containers that use a volume.
    ///
    /// # Errors
    /// As [`Containers::list`].
    pub fn users(&self, name: &str) -> Result<Vec<String>> {
        let all = Containers::new(self.store.clone()).list()?;
        let uses = |container: &crate::Container| {
            container.record().volumes.iter().any(|mounted| mounted.volume == name)
        };
        Ok(all.iter().filter(|c| uses(c)).map(|c| c.name().to_owned()).collect())
    }

    /// What a new container has of volumes: those it names and those its image declares. New ones
    /// are made and filled.
    pub(crate) fn prepare(
        &self,
        spec: &ContainerSpec,
        image: Option<&Image>,
        files: ImageFiles<'_>,
        task: &Task,
    ) -> Result<Vec<MountedVolume>> {
        let mut wanted = spec.files.volumes.clone();
        if let Some(image) = image {
            wanted.extend(declared(spec, image)?);
        }
        let mut all = Vec::new();
        for want in wanted {
            match self.mount(&want, files, task) {
                Ok(mounted) => all.push(mounted),
                Err(error) => {
                    self.discard(&all);
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// One volume for a container, made and filled where it is new.
    pub(crate) fn mount(
        &self,
        want: &VolumeMount,
        files: ImageFiles<'_>,
        task: &Task,
    ) -> Result<MountedVolume> {
        let volume = match &want.name {
            None => self.make(&task::random_id(), true)?,
            Some(name) => match self.find(name)? {
                Some(volume) => volume,
                None => match self.make(name, false) {
                    Err(Error::VolumeExists { .. }) => self.get(name)?,
                    made => made?,
                },
            },
        };
        if volume.fresh && !want.no_copy {
            self.fill(&volume, &want.target, files, task)?;
        }
        Ok(MountedVolume {
            volume: volume.name,
            target: want.target.clone(),
            read_only: want.read_only,
            options: want.options.clone(),
            given: want.given,
            anonymous: want.name.is_none(),
        })
    }

    /// Has a volume take nothing of an image any more.
    pub(crate) fn settle(&self, name: &str, task: &Task) -> Result<()> {
        self.fill(&self.get(name)?, Path::new("/"), ImageFiles::Nothing, task)
    }

    /// Copies what the image has at the place where the volume is mounted, once.
    fn fill(
        &self,
        volume: &Volume,
        target: &Path,
        files: ImageFiles<'_>,
        task: &Task,
    ) -> Result<()> {
        let directory = self.directory().join(&volume.name);
        let lock = std::fs::File::open(&directory).map_err(Error::file("opening", &directory))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|errno| Error::file("locking", &directory)(errno.into()))?;
        let Some(now) = self.read(&directory)?.filter(|now| now.fresh) else { return Ok(()) };
        copy_from_image(&self.store, files, target, &now.path, task)?;
        let new = directory.join("volume.json.new");
        let settled = Volume { fresh: false, ..now };
        std::fs::write(&new, json(&settled)).map_err(Error::file("writing", &new))?;
        let path = directory.join(DOCUMENT);
        std::fs::rename(&new, &path).map_err(Error::file("writing", &path))
    }

    /// Removes the anonymous ones of a container that is gone.
    pub(crate) fn discard(&self, volumes: &[MountedVolume]) {
        for mounted in volumes.iter().filter(|mounted| mounted.anonymous) {
            if let Err(error) = self.delete(&mounted.volume) {
                tracing::debug!(%error, "a volume stays");
            }
        }
    }

    /// Where those are that get the user as owner.
    pub(crate) fn given(&self, volumes: &[MountedVolume]) -> Result<Vec<PathBuf>> {
        let given = volumes.iter().filter(|mounted| mounted.given);
        given.map(|mounted| Ok(self.get(&mounted.volume)?.path)).collect()
    }

    /// The mounts of a container's volumes.
    pub(crate) fn mounts(&self, volumes: &[MountedVolume]) -> Result<Vec<Mount>> {
        let bind = |mounted: &MountedVolume| {
            let source = self.get(&mounted.volume)?.path;
            let (propagation, options) = (Propagation::Private, mounted.options.clone());
            let (target, read_only) = (mounted.target.clone(), mounted.read_only);
            Ok(Mount::Bind { source, target, read_only, recursive: false, propagation, options })
        };
        volumes.iter().map(bind).collect()
    }
}

/// A mount of a directory of the store.
pub(crate) fn bind(source: PathBuf, target: PathBuf, read_only: bool) -> Mount {
    let (propagation, options) = (Propagation::Private, Vec::new());
    Mount::Bind { source, target, read_only, recursive: false, propagation, options }
}

/// Copies a directory of an image; nothing where the image has none.
pub(crate) fn copy_from_image(
    store: &Store,
    files: ImageFiles<'_>,
    target: &Path,
    data: &Path,
    task: &Task,
) -> Result<()> {
    let Some(stack) = files.stack(store)? else { return Ok(()) };
    let from = stack.mount()?;
    let inside = target.strip_prefix("/").unwrap_or(target);
    match from.metadata(inside) {
        Ok(stat) if layers::FileType::from_raw_mode(stat.st_mode).is_dir() => {
            let to = Root::open(data)?;
            let stat_owner = (stat.st_uid, stat.st_gid);
            copy(&from, inside, &to, Path::new(""), &CopyOptions::default(), task)?;
            std::os::unix::fs::chown(data, Some(stat_owner.0), Some(stat_owner.1))
                .map_err(Error::file("setting the owner of", data))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(stat.st_mode & 0o7777);
            std::fs::set_permissions(data, mode).map_err(Error::file("setting the mode of", data))
        }
        Ok(_) => Ok(()),
        Err(error) if task::Fault::kind(&error) == task::Kind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The volumes that the image declares and the user mounts nothing over.
pub(crate) fn declared(spec: &ContainerSpec, image: &Image) -> Result<Vec<VolumeMount>> {
    let mut found = Vec::new();
    if spec.files.image_volumes != ImageVolumes::Anonymous {
        return Ok(found);
    }
    for volume in image.config().config.volumes.keys() {
        let target = clean(volume).ok_or_else(|| Error::Invalid {
            name: "of the image".to_owned(),
            reason: format!(
                "it declares the volume {volume:?}, which is not a path below the root"
            ),
        })?;
        let own = spec.files.mounts.iter().map(Mount::target);
        let named = spec.files.volumes.iter().map(|volume| volume.target.as_path());
        if own.chain(named).all(|known| known != target) {
            found.push(VolumeMount { target, ..VolumeMount::default() });
        }
    }
    Ok(found)
}

/// Mounts memory where the image declares volumes, if that is wanted.
pub(crate) fn memory_for_volumes(spec: &mut ContainerSpec, image: &Image) -> Result<()> {
    if spec.files.image_volumes != ImageVolumes::Tmpfs {
        return Ok(());
    }
    let as_volumes = Files { image_volumes: ImageVolumes::Anonymous, ..spec.files.clone() };
    let wanted = declared(&ContainerSpec { files: as_volumes, ..spec.clone() }, image)?;
    spec.files.mounts.extend(
        wanted
            .into_iter()
            .map(|volume| Mount::Tmpfs { target: volume.target, options: vec!["exec".to_owned()] }),
    );
    Ok(())
}

/// An absolute path below the root, without detours.
fn clean(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    let clean: PathBuf = path.components().collect();
    (plain && clean != Path::new("/")).then_some(clean)
}

fn json(volume: &Volume) -> Vec<u8> {
    // Strings, numbers and a table with names for keys: nothing that JSON cannot hold.
    serde_json::to_vec(volume).unwrap_or_default()
}

fn check(name: &str) -> Result<()> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.bytes().all(word) && name.len() <= 255 {
        return Ok(());
    }
    Err(Error::Invalid {
        name: name.chars().take(300).collect(),
        reason: "a volume's name is letters, digits, '_', '.' and '-', a letter or digit first"
            .to_owned(),
    })
}
