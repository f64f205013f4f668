//! The files of containers: what changed, everything as an archive, copies in both directions.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use layers::copy::{FindOwner, copy};
use layers::{ApplyOptions, DiffOptions, EntryKind, LayerEntries, Limits, Root, Stack, Whiteouts};
use runtime::Mount;
use task::Task;

use crate::start::CONTAINER_FILE;
use crate::volume::Volumes;
use crate::{Container, Error, Result};

/// One path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image does not have it.
    Added,
    /// The image has another one, or something below it changed.
    Changed,
    /// The container does not have it any more.
    Deleted,
}

impl ChangeKind {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// How files are copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Only what is below the source goes, not the source under its own name.
    pub contents: bool,
    /// A source that is a symbolic link means what it points to.
    pub follow: bool,
    /// A directory may replace a file, and a file a directory.
    pub replace: bool,
}

/// A path of a container, to be opened: below which root, and where there.
struct ContainerPath {
    root: Root,
    path: PathBuf,
    /// How the owners of the files differ from those that the container sees.
    owners: Option<layers::OwnerMap>,
}

impl Container {
    /// Its files: the image's with its changes on top, or a directory of the machine.
    pub(crate) fn stack(&self) -> Result<Stack> {
        let mut stack = self.store.container_stack(&self.row)?;
        if let Some(root) = &self.record().spec.files.rootfs {
            match &mut stack.top {
                Some(top) if !root.overlay => top.upper.clone_from(&root.path),
                _ if self.directory().join("lower").is_dir() => {}
                _ => stack.lower = vec![root.path.clone()],
            }
        }
        Ok(stack)
    }

    /// How its files' owners on the disk differ from those it sees; nothing where they are the same.
    pub fn owners(&self) -> Option<layers::OwnerMap> {
        match &self.record().spec.isolation.ids {
            Some(runtime::Ids::Maps(maps)) if runtime::in_user_namespace() => {
                Some(crate::owned::owners(maps))
            }
            _ => None,
        }
    }

    /// How the owners of its files, as this program sees them, differ from those it sees.
    fn seen_owners(&self) -> Option<layers::OwnerMap> {
        match &self.record().spec.isolation.ids {
            Some(runtime::Ids::Maps(maps)) if self.is_running() => Some(crate::owned::owners(maps)),
            _ => self.owners(),
        }
    }

    /// Its files as they are now: of a running container as its program sees them.
    ///
    /// # Errors
    /// They cannot be mounted.
    pub fn root(&self) -> Result<Root> {
        let now = self.again()?;
        if let Some(state) = now.state().filter(|_| now.is_running()) {
            let root = Root::open(Path::new(&format!("/proc/{}/root", state.pid)))?;
            // Its number is unique as long as it runs.
            if now.again()?.is_running() {
                return Ok(root);
            }
        }
        let merged = self.directory().join("merged");
        match crate::life::mounted(&merged) {
            true => Ok(Root::open(&merged)?),
            false => Ok(self.stack()?.mount()?),
        }
    }

    /// Where a path is: in a volume or a mount of a container that does not run, or in its files.
    fn place(&self, path: &Path, task: &Task) -> Result<ContainerPath> {
        let inside = Path::new("/").join(path);
        let owners = self.seen_owners();
        if self.owners().is_some() && !self.is_running() {
            // Before the first start, the image's files have other owners than what is copied here.
            let owners = crate::ids::owners(&self.record().spec.isolation)?;
            owners.lay(self.stack()?, &self.directory().join("lower"), task)?;
        }
        if !self.is_running() {
            let record = self.record();
            let mut mounts = record.spec.files.mounts.clone();
            mounts.extend(Volumes::new(self.store.clone()).mounts(&record.volumes)?);
            let over = mounts.iter().filter(|mount| inside.starts_with(mount.target()));
            let deepest = over.max_by_key(|mount| mount.target().components().count());
            if let Some(Mount::Bind { source, target, .. }) = deepest
                && source.is_dir()
            {
                let rest = inside.strip_prefix(target).unwrap_or(Path::new("")).to_owned();
                return Ok(ContainerPath { root: Root::open(source)?, path: rest, owners });
            }
        }
        let path = inside.strip_prefix("/").unwrap_or(&inside).to_owned();
        Ok(ContainerPath { root: self.root()?, path, owners })
    }

    /// The differences from its image, sorted by path. Empty mount points do not count.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn changes(&self, task: &Task) -> Result<Vec<Change>> {
        let stack = self.stack()?;
        let Some(top) = &stack.top else { return Ok(Vec::new()) };
        let upper = Root::open(&top.upper)?;
        let lower = match stack.lower.is_empty() {
            true => None,
            false => Some(Stack { top: None, ..stack.clone() }.mount()?),
        };
        let options = DiffOptions {
            user_xattr: stack.user_xattr,
            owners: self.owners(),
            mounted_on: self.mount_points(),
            live: true,
            ..DiffOptions::default()
        };
        let (reader, mut writer) = std::io::pipe().map_err(Error::file("making", "a pipe"))?;
        let mut changes = std::thread::scope(|scope| -> Result<Vec<Change>> {
            let lower_for_diff = lower.as_ref();
            let upper = &upper;
            let written = scope
                .spawn(move || layers::diff(upper, lower_for_diff, &mut writer, &options, task));
            let read = read_changes(reader, lower.as_ref());
            match written.join() {
                Ok(written) => written.map(drop)?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            read
        })?;
        changes.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(changes)
    }

    /// Removes empty mount points that were made at the start, parents last: they are not changes
    /// of the program. Only for a stopped container.
    pub(crate) fn clear_mount_points(&self) -> Result<()> {
        if self.record().spec.files.rootfs.as_ref().is_some_and(|root| !root.overlay) {
            // What is in a directory of the machine is the user's.
            return Ok(());
        }
        let stack = self.stack()?;
        let Some(top) = &stack.top else { return Ok(()) };
        let upper = Root::open(&top.upper)?;
        let lower = Stack { top: None, ..stack.clone() };
        let lower = if lower.lower.is_empty() { None } else { Some(lower.mount()?) };
        let places = self.mount_points();
        let mut paths: Vec<&Path> = places.iter().flat_map(|place| place.ancestors()).collect();
        paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        paths.dedup();
        for path in paths {
            let of_image = lower.as_ref().is_some_and(|root| root.symlink_metadata(path).is_ok());
            if of_image || path.as_os_str().is_empty() {
                continue;
            }
            let empty = match upper.entries(path) {
                Ok(entries) => entries.is_empty(),
                Err(_) => upper.symlink_metadata(path).is_ok_and(|stat| {
                    layers::FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_size == 0
                }),
            };
            if empty {
                upper.remove_all(path)?;
            }
        }
        Ok(())
    }

    /// Where things are mounted in it, relative to its root.
    pub fn mount_points(&self) -> Vec<PathBuf> {
        let record = self.record();
        let usual = [
            "/proc",
            "/dev",
            "/sys",
            "/etc/hosts",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/etc/mtab",
            CONTAINER_FILE,
        ];
        let asked = record.spec.files.mounts.iter().map(|mount| mount.target().to_owned());
        let volumes = record.volumes.iter().map(|mounted| mounted.target.clone());
        let all = usual.into_iter().map(PathBuf::from).chain(asked).chain(volumes);
        all.filter_map(|place| place.strip_prefix("/").ok().map(Path::to_owned)).collect()
    }

    /// Writes all its files as a tar stream.
    ///
    /// # Errors
    /// Its files cannot be read; `out` fails.
    pub fn export(&self, out: &mut dyn Write, task: &Task) -> Result<()> {
        let user_xattr = runtime::in_user_namespace();
        let options =
            DiffOptions { user_xattr, owners: self.owners(), live: true, ..DiffOptions::default() };
        let merged = self.directory().join("merged");
        let root = match crate::life::mounted(&merged) {
            true => Root::open(&merged)?,
            false => Stack {
                lower: {
                    // A second overlay over the same changes must not write to them.
                    let stack = self.stack()?;
                    let mut lower: Vec<PathBuf> =
                        stack.top.iter().map(|top| top.upper.clone()).collect();
                    lower.extend(stack.lower);
                    lower
                },
                top: None,
                ..self.stack()?
            }
            .mount()?,
        };
        layers::archive(&root, Path::new(""), out, &options, task)?;
        Ok(())
    }

    /// Copies a file or tree of the machine into it. Where the path is a directory, it goes in there
    /// under its own name.
    ///
    /// # Errors
    /// One of the two is not there, or cannot be read or written.
    pub fn copy_in(&self, from: &Path, to: &Path, options: CopyOptions, task: &Task) -> Result<()> {
        let contents = options.contents;
        let place = self.place(to, task)?;
        place.has_parent(to)?;
        let parent = from.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = from.file_name().unwrap_or_default();
        let (root, source) = match name.is_empty() || contents {
            true => (Root::open(from)?, PathBuf::new()),
            false => (Root::open(parent.unwrap_or(Path::new(".")))?, PathBuf::from(name)),
        };
        let target = target(&place, &root, &source, contents)?;
        let there = place.on(&target);
        Ok(options.copy((&root, &source, None), there, task)?)
    }

    /// Copies a file or tree of it to the machine, by the same rules. Links are followed within the
    /// container alone.
    ///
    /// # Errors
    /// As [`Container::copy_in`].
    pub fn copy_out(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
        task: &Task,
    ) -> Result<()> {
        let place = self.place(from, task)?;
        let (root, path) = match to.is_dir() {
            true => (Root::open(to)?, PathBuf::new()),
            false => {
                let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
                let name = to.file_name().unwrap_or_default();
                (Root::open(parent.unwrap_or(Path::new(".")))?, PathBuf::from(name))
            }
        };
        let there = ContainerPath { root, path, owners: None };
        let target = target(&there, &place.root, &place.path, options.contents)?;
        Ok(options.copy(place.on(&place.path), there.on(&target), task)?)
    }

    /// Copies a file or tree of it to another container, by the same rules.
    ///
    /// # Errors
    /// As [`Container::copy_in`].
    pub fn copy_across(
        &self,
        from: &Path,
        other: &Container,
        to: &Path,
        options: CopyOptions,
        task: &Task,
    ) -> Result<()> {
        let (here, there) = (self.place(from, task)?, other.place(to, task)?);
        there.has_parent(to)?;
        let target = target(&there, &here.root, &here.path, options.contents)?;
        Ok(options.copy(here.on(&here.path), there.on(&target), task)?)
    }

    /// Unpacks a tar stream, compressed or not, in a directory of it.
    ///
    /// # Errors
    /// The stream is malformed; the directory is not there.
    pub fn unpack(&self, archive: impl Read + Send, to: &Path, task: &Task) -> Result<()> {
        let place = self.place(to, task)?;
        let directory = place.root.sub(&place.path)?;
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            user_xattr: runtime::in_user_namespace(),
            owners: place.owners.clone(),
            ..ApplyOptions::default()
        };
        place.writing(|| layers::apply(task.reading(archive), &directory, &options))?;
        Ok(())
    }

    /// Writes a file or tree of it as a tar stream, under its own name; with `contents` what is below
    /// a directory, with `follow` what a link points to, under the name of that.
    ///
    /// # Errors
    /// It is not there; `out` fails.
    pub fn pack(
        &self,
        from: &Path,
        contents: bool,
        follow: bool,
        out: &mut dyn Write,
        task: &Task,
    ) -> Result<()> {
        let mut place = self.place(from, task)?;
        if follow {
            place = place.followed()?;
        }
        let user_xattr = runtime::in_user_namespace();
        let owners = place.owners.clone();
        let options = DiffOptions { user_xattr, owners, live: true, ..DiffOptions::default() };
        match contents || place.path.file_name().is_none() {
            true => layers::archive(&place.root, &place.path, out, &options, task)?,
            false => layers::archive_entry(&place.root, &place.path, out, &options, task)?,
        };
        Ok(())
    }
}

/// As many links are followed one after the other, as by the kernel.
const LINKS: usize = 40;

impl ContainerPath {
    /// The path that a chain of links ends at.
    fn followed(mut self) -> Result<ContainerPath> {
        for _ in 0..LINKS {
            let stat = self.root.symlink_metadata(&self.path)?;
            if !layers::FileType::from_raw_mode(stat.st_mode).is_symlink() {
                break;
            }
            let target = self.root.read_link(&self.path)?;
            let parent = self.path.parent().unwrap_or(Path::new(""));
            // An absolute target replaces the path; it is below the same root.
            let joined = Path::new("/").join(parent).join(target);
            self.path = joined.strip_prefix("/").unwrap_or(&joined).to_owned();
        }
        Ok(self)
    }

    /// This end of a copy, at a path below the root.
    ///
    /// A container in which the user of this program has an id sees the same users as this program does.
    fn on<'a>(&'a self, path: &'a Path) -> End<'a> {
        let own =
            |map: &&layers::OwnerMap| runtime::in_user_namespace() && map.inside((0, 0)) != (0, 0);
        (&self.root, path, self.owners.as_ref().filter(|map| !own(map)))
    }

    fn writing<T: Send>(&self, write: impl FnOnce() -> T + Send) -> T {
        writing(self.owners.as_ref(), write)
    }

    /// A file goes into a directory that is there; a path that ends in `/` is one.
    fn has_parent(&self, given: &Path) -> Result<()> {
        let directory = match given.as_os_str().as_encoded_bytes().ends_with(b"/") {
            true => Some(self.path.as_path()),
            false => self.path.parent(),
        };
        match directory {
            Some(directory) if !is_dir(&self.root, directory) => {
                Err(Error::NoDirectory { path: Path::new("/").join(directory) })
            }
            _ => Ok(()),
        }
    }
}

/// One end of a copy, and how its owners differ from those of the other.
type End<'a> = (&'a Root, &'a Path, Option<&'a layers::OwnerMap>);

impl CopyOptions {
    /// Copies with the owners that the files have for the containers at both ends.
    fn copy(self, from: End<'_>, to: End<'_>, task: &Task) -> layers::Result<()> {
        let CopyOptions { contents: _, follow, replace } = self;
        let ((from, source, before), (to, target, after)) = (from, to);
        let owner = |owner| {
            let inside = before.map_or(owner, |map| map.inside(owner));
            Some(after.map_or(inside, |map| map.outside_or_root(inside)))
        };
        let write = || {
            let changed = before.is_some() || after.is_some();
            let owners = if changed { Some(&owner as &FindOwner<'_>) } else { None };
            let parents = after.map_or((0, 0), |map| map.outside_or_root((0, 0)));
            let parents = (parents.0, parents.1, 0o755);
            let usual = layers::copy::CopyOptions::default();
            let options = layers::copy::CopyOptions { replace, follow, owners, parents, ..usual };
            copy(from, source, to, target, &options, task).map(drop)
        };
        writing(after, write)
    }
}

/// Does what writes below a root with these owners.
fn writing<T: Send>(owners: Option<&layers::OwnerMap>, write: impl FnOnce() -> T + Send) -> T {
    match owners.and_then(|owners| owners.outside((0, 0))) {
        // The kernel maps the files of root's containers, and lets only those be made that it can map.
        Some(root) if !runtime::in_user_namespace() => runtime::making_files_of(root, write),
        _ => write(),
    }
}

fn is_dir(root: &Root, path: &Path) -> bool {
    let found = root.metadata(path);
    found.is_ok_and(|stat| layers::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Where a copy goes: into a directory under the source's name, or to the path itself.
fn target(to: &ContainerPath, root: &Root, source: &Path, contents: bool) -> Result<PathBuf> {
    if contents && !is_dir(root, source) {
        return Err(Error::Invalid {
            name: source.display().to_string(),
            reason: "it is not a directory".to_owned(),
        });
    }
    let named = source.file_name().filter(|_| !contents);
    match named {
        Some(name) if is_dir(&to.root, &to.path) => Ok(to.path.join(name)),
        _ => Ok(to.path.clone()),
    }
}

fn read_changes(stream: impl Read, lower: Option<&Root>) -> Result<Vec<Change>> {
    use std::os::unix::ffi::OsStringExt;
    let mut entries = LayerEntries::new(stream, Limits::default());
    let mut changes = Vec::new();
    while let Some(entry) = entries.next()? {
        let path = PathBuf::from(std::ffi::OsString::from_vec(entry.path));
        let below = lower.is_some_and(|lower| lower.symlink_metadata(&path).is_ok());
        let kind = match entry.kind {
            EntryKind::Whiteout => ChangeKind::Deleted,
            EntryKind::Opaque => continue,
            _ if below => ChangeKind::Changed,
            _ => ChangeKind::Added,
        };
        if !path.as_os_str().is_empty() {
            changes.push(Change { path: Path::new("/").join(path), kind });
        }
    }
    Ok(changes)
}
