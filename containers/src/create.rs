//! Making containers.

use std::path::Path;

use image::Image;
use runtime::{ContainerSpec, Ids};
use task::Task;

use crate::record::{RECORD, Record};
use crate::volume::{Volumes, memory_for_volumes};
use crate::{Container, Containers, Error, Result, ids};

/// Names the process that makes a container and starts it at once. If that process is gone and
/// there is no state, the container is abandoned.
const CLAIM: &str = "claim";

/// A container to be made.
#[derive(Debug, Clone)]
pub struct NewContainer<'a> {
    /// Its name; the default is made from the image's name and the id.
    pub name: Option<String>,
    /// Whether a container that has the name is removed, even if it runs.
    pub replace: bool,
    /// The image as the user named it.
    pub image_name: String,
    /// The image; none where the root file system is a directory of the machine.
    pub image: Option<&'a Image>,
    /// The request.
    pub spec: ContainerSpec,
    /// Whether it stays when this process ends before it started it.
    pub lasting: bool,
}

impl<'a> NewContainer<'a> {
    /// A container of this image, with nothing else asked for.
    pub fn of(image_name: &str, image: &'a Image) -> NewContainer<'a> {
        NewContainer {
            name: None,
            replace: false,
            image_name: image_name.to_owned(),
            image: Some(image),
            spec: ContainerSpec::default(),
            lasting: true,
        }
    }
}

/// A word for names: the last part of an image's name, or of an id.
pub fn word(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let end = last.find([':', '@']).unwrap_or(last.len());
    let kept = last[..end].chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-');
    let word: String = kept.take(24).collect();
    if word.starts_with(|c: char| c.is_ascii_alphanumeric()) { word } else { format!("c{word}") }
}

/// Whether the command that made a container still lives; nothing where it was made to last.
pub(crate) fn reserved(directory: &Path) -> Option<bool> {
    let claim = std::fs::read_to_string(directory.join(CLAIM)).ok()?;
    let pid = claim.split(' ').next().unwrap_or_default();
    Some(!pid.is_empty() && this_process(pid).is_some_and(|now| now == claim))
}

/// A process by its number and the time it was started at.
fn this_process(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the start is the twentieth field after it.
    let fields = stat.rsplit_once(')')?.1;
    let start = fields.split_whitespace().nth(19)?;
    Some(format!("{pid} {start}"))
}

impl Containers {
    /// Makes a container that is not started yet: unpacks its image, makes its volumes, fills them
    /// from the image where they are new.
    ///
    /// # Errors
    /// [`Error::Store`] where the name is taken; [`Error::Invalid`].
    pub fn create(&self, new: NewContainer<'_>, task: &Task) -> Result<Container> {
        let none = image::ContainerConfig::default();
        let config = new.image.map_or(&none, |image| &image.config().config);
        let mut record = Record::new();
        record.made = (crate::ended::now() * 1e9) as u64;
        record.command = runtime::arguments(config, &new.spec)?;
        record.image.clone_from(&new.image_name);
        record.image_stop_signal = config
            .stop_signal
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|reason| Error::Invalid { name: new.image_name.clone(), reason })?;
        record.spec = new.spec;
        for name in &record.spec.lifecycle.requires {
            self.get(name)?;
        }
        if let Some(image) = new.image {
            memory_for_volumes(&mut record.spec, image)?;
        }
        let snapshot = match new.image {
            Some(image) => self.store().unpack(image, task)?,
            None => None,
        };
        let id = task::random_id();
        let name = match &new.name {
            Some(name) => name.clone(),
            None => format!("{}-{}", word(&new.image_name), &id[..6]),
        };
        if new.replace
            && let Some(old) = self.find(&name)?
        {
            old.remove(true, task)?;
        }
        // As long as others cannot see the record.
        let mut _choosing = None;
        if let Some(Ids::Auto(count)) = record.spec.isolation.ids {
            let (maps, lock) = ids::free_ids(self.store(), count)?;
            (record.spec.isolation.ids, _choosing) = (Some(Ids::Maps(maps)), Some(lock));
        }
        let volumes = Volumes::new(self.store().clone());
        record.volumes = volumes.prepare(&record.spec, new.image, snapshot.into(), task)?;
        let added = self.add((&id, &name), new.image, snapshot, &record, new.lasting, task);
        match &added {
            Ok(container) => container.note("create", &[]),
            Err(_) => volumes.discard(&record.volumes),
        }
        added
    }

    fn add(
        &self,
        (id, name): (&str, &str),
        image: Option<&Image>,
        snapshot: Option<store::SnapshotId>,
        record: &Record,
        lasting: bool,
        task: &Task,
    ) -> Result<Container> {
        let (bytes, pid) = (record.bytes(), std::process::id().to_string());
        let claim = this_process(&pid).unwrap_or_default();
        let mut files: Vec<(&str, &[u8])> = vec![(RECORD, &bytes)];
        if !lasting {
            files.push((CLAIM, claim.as_bytes()));
        }
        let add = || {
            let descriptor = image.map(Image::descriptor);
            self.store().add_container_with(id, name, descriptor, snapshot, &files)
        };
        let row = match add() {
            Err(store::Error::NameTaken { .. }) if self.clear(name, task)? => add()?,
            added => added?,
        };
        Container::read(self.store(), row)
    }

    /// Removes an abandoned container of this name.
    fn clear(&self, name: &str, task: &Task) -> Result<bool> {
        match self.find(name)? {
            None => Ok(true),
            Some(old) if old.name() == name && old.is_debris() => {
                old.remove(false, task).map(|()| true)
            }
            Some(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_holds_as_long_as_its_process() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(reserved(place.path()), None);
        let claim = place.path().join(CLAIM);
        std::fs::write(&claim, this_process(&std::process::id().to_string()).unwrap()).unwrap();
        assert_eq!(reserved(place.path()), Some(true));
        // Another process has the number now.
        std::fs::write(&claim, format!("{} 1", std::process::id())).unwrap();
        assert_eq!(reserved(place.path()), Some(false));
        std::fs::write(&claim, "").unwrap();
        assert_eq!(reserved(place.path()), Some(false));
    }

    #[test]
    fn names_are_made_of_the_images() {
        for (image, name) in
            [("docker.io/library/busybox:1", "busybox"), ("a@sha256:x", "a"), ("_", "c")]
        {
            assert_eq!(word(image), name);
        }
    }
}
