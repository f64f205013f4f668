//! What a command sees besides its own file system. Nothing of it ends up in the layer.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use layers::copy::{CopyOptions, Keep, copy};
use layers::{FileType, IdMap, Mode, OFlags, Root, Stack};
use runtime::{Mount, Overlay, Propagation};
use rustix::fs::{AtFlags, Gid, Uid, chmodat, chownat, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use store::{Active, CacheMount, SnapshotId, Store};
use task::Task;

use super::copy::set_mode;
use crate::context::Tree;
use crate::context::scan::{Filter, is};
use crate::error::ErrorContext;
use crate::plan::{CacheSharing, RunMount, RunMountKind, SCRIPTS};
use crate::secret::reveal;
use crate::ssh::AgentSocket;
use crate::{Agent, Error, Request, Result, ids};

/// A mount of its own of what a descriptor is open on.
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE
    .union(OpenTreeFlags::OPEN_TREE_CLOEXEC)
    .union(OpenTreeFlags::AT_EMPTY_PATH);

/// Everything mounted into one command, kept as long as it runs.
pub(crate) struct Mounts<'a> {
    store: &'a Store,
    task: &'a Task,
    /// Files of our own making, forgotten when the command has ended.
    scratch: Active,
    count: usize,
    caches: Vec<CacheMount>,
    /// Mounts that are only reached through their descriptors, and what is written to them.
    attached: Vec<(OwnedFd, Option<Active>)>,
    pub(crate) list: Vec<Mount>,
    /// Agents that answer the command.
    agents: Vec<AgentSocket>,
    /// How files of the command are mapped.
    pub(crate) ids: Option<IdMap>,
    /// Caches begin empty, and are those of this build alone, which has this name.
    pub(crate) apart: Option<String>,
    /// Variables that hold secrets.
    pub(crate) env: Vec<String>,
}

impl<'a> Mounts<'a> {
    pub(crate) fn new(store: &'a Store, task: &'a Task) -> Result<Mounts<'a>> {
        let scratch = store.begin().during("preparing mounts")?;
        Ok(Mounts {
            store,
            task,
            scratch,
            count: 0,
            caches: Vec::new(),
            attached: Vec::new(),
            agents: Vec::new(),
            ids: None,
            apart: None,
            list: Vec::new(),
            env: Vec::new(),
        })
    }

    /// The directory that holds what was made for this command.
    pub(crate) fn directory(&self) -> PathBuf {
        self.scratch.dir().to_owned()
    }

    /// A new path in our own directory.
    fn fresh(&mut self) -> PathBuf {
        self.count += 1;
        self.scratch.dir().join("fs").join(self.count.to_string())
    }

    /// Mounts what is not mapped yet.
    fn bind(&mut self, source: PathBuf, target: &str, read_only: bool) {
        self.bind_as_it_is(source, target, read_only);
        if let (Some(_), Some(mount)) = (&self.ids, self.list.last_mut()) {
            ids::mark(mount);
        }
    }

    fn bind_as_it_is(&mut self, source: PathBuf, target: &str, read_only: bool) {
        self.list.push(Mount::Bind {
            source,
            target: PathBuf::from(target),
            read_only,
            recursive: false,
            propagation: Propagation::Private,
            options: Vec::new(),
        });
    }

    /// Mounts a file with this content.
    pub(crate) fn file(
        &mut self,
        target: &str,
        content: &[u8],
        mode: u32,
        owner: (u32, u32),
        read_only: bool,
    ) -> Result<()> {
        let path = self.fresh();
        {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(Error::file("writing", &path))?;
            std::io::Write::write_all(&mut file, content).map_err(Error::file("writing", &path))?;
        }
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))
            .map_err(Error::file("setting the owner of", &path))?;
        set_mode(&path, mode)?;
        self.bind(path, target, read_only);
        Ok(())
    }

    /// Mounts a directory of this machine so that writing does not change it.
    pub(crate) fn overlay(&mut self, overlay: &Overlay) -> Result<()> {
        let shown = || format!("mounting {} as an overlay", overlay.source.display());
        let active = self.store.begin().during(shown())?;
        let mut stack = active.stack(None).during(shown())?;
        stack.lower = vec![overlay.source.clone()];
        let root = stack.mount().during(shown())?;
        let fd = root.open_at(Path::new(""), OFlags::PATH, Mode::empty()).during(shown())?;
        let mount = open_tree(&fd, c"", CLONE).map_err(|errno| {
            let source = errno.into();
            Error::part(shown())(task::Cause::new(Error::Kernel { needs: "6.15", source }))
        })?;
        let path = self.hold(mount, Some(active));
        self.list.push(Mount::Bind {
            source: path,
            target: overlay.target.clone(),
            read_only: false,
            recursive: false,
            propagation: Propagation::Private,
            options: Vec::new(),
        });
        Ok(())
    }

    /// Mounts a script at [`SCRIPTS`].
    pub(crate) fn script(&mut self, name: &str, content: &str) -> Result<()> {
        self.file(&format!("{SCRIPTS}/{name}"), content.as_bytes(), 0o755, (0, 0), true)
    }

    /// Adds one mount of the instruction. `caches` says what the store calls some cache mounts. `tree` is what it reads, `user` who runs the command,
    /// `below` the files it starts with.
    pub(crate) fn add(
        &mut self,
        mount: &RunMount,
        tree: Option<&Tree>,
        user: (u32, u32),
        request: &Request,
        caches: &BTreeMap<String, String>,
        below: Option<&Root>,
    ) -> Result<()> {
        let target = mount.target.as_deref();
        match &mount.kind {
            RunMountKind::Bind { source, writable, chown, .. } => {
                let attached = match tree.filter(|_| !chown) {
                    Some(tree) => self.attach(tree, source, *writable)?,
                    None => None,
                };
                let target = target.unwrap_or("/");
                match attached {
                    Some(path) => self.bind_as_it_is(path, target, !writable),
                    None => {
                        let path = self.fresh();
                        let owner = chown.then_some(user);
                        self.snatch(tree, source, &path, owner)?;
                        self.bind(path, target, !writable);
                    }
                }
                Ok(())
            }
            RunMountKind::Cache { id, source, read_only, sharing, mode, uid, gid, .. } => {
                let name = cache_name(id, *mode, (*uid, *gid));
                let name = match &self.apart {
                    Some(build) => format!("{name} (recorded {build})"),
                    None => caches.get(&name).unwrap_or(&name).clone(),
                };
                let cache = self.cache(&name, id, *sharing)?;
                if cache.is_fresh() {
                    self.furnish(&cache, tree, source, *mode, (*uid, *gid))?;
                }
                self.bind(cache.path().to_owned(), target.unwrap_or("/"), *read_only);
                self.caches.push(cache);
                Ok(())
            }
            RunMountKind::Tmpfs { size, mode, copy_up: true } => {
                self.copied_up(target.unwrap_or("/"), *size, *mode, below)
            }
            RunMountKind::Tmpfs { size, mode, .. } => {
                // Programs are built there, and run.
                let mut options = vec!["exec".to_owned()];
                options.extend(size.map(|size| format!("size={size}")));
                options.extend(mode.map(|mode| format!("mode={mode:o}")));
                let target = PathBuf::from(target.unwrap_or("/"));
                self.list.push(Mount::Tmpfs { target, options });
                Ok(())
            }
            RunMountKind::Secret { id, env, required, mode, uid, gid } => {
                let Some(secret) = request.secrets.get(id) else {
                    return optional(*required, "secret", id);
                };
                let content = reveal(id, secret)?;
                if let Some(name) = env {
                    let text = String::from_utf8(content.clone()).map_err(|_| {
                        Error::malformed(
                            format!("secret {id:?}"),
                            format!("it is no text for variable {name}"),
                        )
                    })?;
                    self.env.push(format!("{name}={text}"));
                }
                match target {
                    Some(target) => self.secret(target, &content, *mode, (*uid, *gid)),
                    None => Ok(()),
                }
            }
            RunMountKind::Ssh { id, required, mode, uid, gid } => {
                let (Some(agent), Some(target)) = (request.ssh.get(id), target) else {
                    return optional(*required, "ssh agent", id);
                };
                let (mode, owner) = (mode.unwrap_or(0o600), (uid.unwrap_or(0), gid.unwrap_or(0)));
                if user.0 != 0 && user.0 != owner.0 && mode & 0o077 == 0 {
                    let uid = user.0;
                    self.task.warn(format!(
                        "the user of this command may not use the ssh agent: mount it with uid={uid}"
                    ));
                }
                self.agent(target, agent, mode, owner)
            }
        }
    }

    /// Mounts a path of a tree; what is written to it is dropped.
    pub(crate) fn lend(
        &mut self,
        tree: &Tree,
        source: &str,
        target: &str,
        writable: bool,
    ) -> Result<()> {
        match self.attach(tree, source, writable)? {
            Some(path) => self.bind_as_it_is(path, target, !writable),
            None => {
                let path = self.fresh();
                self.snatch(Some(tree), source, &path, None)?;
                self.bind(path, target, !writable);
            }
        }
        Ok(())
    }

    fn cache(&self, name: &str, id: &str, sharing: CacheSharing) -> Result<CacheMount> {
        let sharing = match sharing {
            CacheSharing::Shared => store::CacheSharing::Shared,
            CacheSharing::Private => store::CacheSharing::Private,
            CacheSharing::Locked => store::CacheSharing::Locked,
        };
        let cache = self.store.cache_mount(name, sharing, self.task);
        let cache = cache.during(format!("opening cache {id:?}"))?;
        if sharing == store::CacheSharing::Locked {
            // Another build may have had it until now.
            self.task.begin();
        }
        Ok(cache)
    }

    fn secret(&mut self, target: &str, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
        match in_memory(content, mode, owner) {
            Ok(mount) => {
                let path = self.hold(mount, None);
                self.bind(path, target, true);
                Ok(())
            }
            // Kernels before 6.15; the file is gone when the command has ended.
            Err(_) => self.file(target, content, mode, owner, true),
        }
    }

    fn agent(&mut self, target: &str, agent: &Agent, mode: u32, owner: (u32, u32)) -> Result<()> {
        let path = self.fresh();
        let served = AgentSocket::start(agent, &path);
        self.agents.push(served.map_err(Error::file("making the socket", &path))?);
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))
            .map_err(Error::file("setting the owner of", &path))?;
        set_mode(&path, mode)?;
        self.env.push(format!("SSH_AUTH_SOCK={target}"));
        self.bind(path, target, false);
        Ok(())
    }

    /// Memory that starts with what the directory has that it covers.
    fn copied_up(
        &mut self,
        target: &str,
        size: Option<u64>,
        mode: Option<u32>,
        below: Option<&Root>,
    ) -> Result<()> {
        let failed = Error::file("making the tmpfs for", Path::new(target));
        let (memory, own) =
            memory(size).and_then(|memory| Ok((memory.try_clone()?, memory))).map_err(failed)?;
        let to = Root::from_fd(own);
        let action = format!("filling the tmpfs at {target}");
        let mut mode = mode;
        let covered = below.and_then(|root| Some((root, root.metadata(Path::new(target)).ok()?)));
        if let Some((from, stat)) = covered {
            let options = CopyOptions { follow: true, ..CopyOptions::default() };
            copy(from, Path::new(target), &to, Path::new(""), &options, self.task)
                .during(action)?;
            let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chownat(&memory, c".", Some(user), Some(group), AtFlags::empty())
                .map_err(std::io::Error::from)
                .map_err(Error::file("setting the owner of", Path::new(target)))?;
            mode = mode.or(Some(stat.st_mode & 0o7777));
        }
        if let Some(mode) = mode {
            chmodat(&memory, c".", Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(std::io::Error::from)
                .map_err(Error::file("setting the mode of", Path::new(target)))?;
        }
        let path = self.hold(memory, None);
        self.bind(path, target, false);
        Ok(())
    }

    fn furnish(
        &mut self,
        cache: &CacheMount,
        tree: Option<&Tree>,
        source: &str,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<()> {
        if let Some(tree) = tree {
            self.snatch(Some(tree), source, cache.path(), None)?;
        }
        std::os::unix::fs::chown(cache.path(), Some(owner.0), Some(owner.1))
            .map_err(Error::file("setting the owner of", cache.path()))?;
        set_mode(cache.path(), mode)
    }

    /// Makes a separate mount of a path in a snapshot and returns a name by which the container can
    /// get it. `None` if there is no snapshot, or if the kernel (before 6.15) cannot clone mounts
    /// from a detached one.
    fn attach(&mut self, tree: &Tree, source: &str, writable: bool) -> Result<Option<PathBuf>> {
        let Some(snapshot) = tree.snapshot else { return Ok(None) };
        let action = "preparing a mount";
        let shown = |stack: Stack| {
            let stack = Stack { ids: self.ids.clone(), ..stack };
            let root = stack.mount().during(action)?;
            Ok::<_, Error>(root.open_at(Path::new(source), OFlags::PATH, Mode::empty()))
        };
        let (fd, kept) = if writable {
            let active = self.store.begin().during(action)?;
            (shown(active.stack(Some(snapshot)).during(action)?)?, Some(active))
        } else if self.ids.is_some() {
            (shown(self.store.stack(snapshot).during(action)?)?, None)
        } else {
            (tree.root.open_at(Path::new(source), OFlags::PATH, Mode::empty()), None)
        };
        let fd = fd.map_err(|_| missing(tree, source, None))?;
        let Ok(mount) = open_tree(&fd, c"", CLONE) else { return Ok(None) };
        Ok(Some(self.hold(mount, kept)))
    }

    /// Keeps a mount that is attached nowhere, and gives a name for it.
    fn hold(&mut self, mount: OwnedFd, kept: Option<Active>) -> PathBuf {
        let (pid, number) = (rustix::process::getpid(), mount.as_raw_fd());
        self.attached.push((mount, kept));
        PathBuf::from(format!("/proc/{}/fd/{number}", pid.as_raw_nonzero()))
    }

    /// Copies files to be mounted: what the command writes there is forgotten, and what is
    /// ignored does not exist.
    fn snatch(
        &self,
        tree: Option<&Tree>,
        source: &str,
        target: &Path,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        let Some(tree) = tree else {
            return fs::create_dir_all(target).map_err(Error::file("making", target));
        };
        let stat = tree.root.metadata(Path::new(source));
        let stat = stat.map_err(|_| missing(tree, source, None))?;
        if tree.ignores(source, is(&stat, FileType::Directory)) {
            return Err(missing(tree, source, tree.ignored_by(source)));
        }
        let directory = target.parent().unwrap_or(Path::new("/"));
        let to = Root::open(directory).during("preparing a mount")?;
        let name = target.file_name().map(PathBuf::from).unwrap_or_default();
        let filter =
            Filter { ignore: tree.ignore.as_ref(), base: source, exclude: None, prefix: "" };
        let keep = |path: &Path, is_dir: bool| -> Keep { filter.keep(path, is_dir) };
        let owner = owner.or(tree.foreign.then_some((0, 0)));
        let options = CopyOptions { owner, keep: &keep, follow: true, ..CopyOptions::default() };
        copy(&tree.root, Path::new(source), &to, &name, &options, self.task)
            .during(format!("preparing a mount of {}", tree.name))
            .map(drop)
    }

    /// Makes the places where things are mounted: see [`stubs`].
    pub(crate) fn stubs(
        &self,
        parent: Option<SnapshotId>,
        below: Option<&Root>,
        working_dir: &str,
    ) -> Result<Option<Active>> {
        let stack = match parent {
            Some(parent) => self.store.stack(parent).during("preparing mount points")?,
            None => Stack::default(),
        };
        stubs(self.store, &self.list, &stack, below, working_dir)
    }
}

/// What the store calls a cache mount: as with BuildKit, one of other owner or permissions is
/// another mount.
pub(crate) fn cache_name(id: &str, mode: u32, (uid, gid): (u32, u32)) -> String {
    match (mode, uid, gid) {
        (0o755, 0, 0) => id.to_owned(),
        _ => format!("{id} (mode={mode:04o},uid={uid},gid={gid})"),
    }
}

/// Where the mounts of a command show, and whether as directories.
fn places(list: &[Mount]) -> Vec<(PathBuf, bool)> {
    const OWN: [&str; 3] = ["/proc", "/sys", "/dev"];
    let mut wanted = OWN.map(|path| (PathBuf::from(path), true)).to_vec();
    for mount in list {
        let (target, directory) = match mount {
            Mount::Bind { source, target, .. } => (target, source.is_dir()),
            Mount::Tmpfs { target, .. } | Mount::Devpts { target, .. } => (target, true),
        };
        if !OWN.iter().any(|special| target.starts_with(special)) {
            wanted.push((target.clone(), directory));
        }
    }
    wanted
}

/// What has to be made in `root` for these mounts, parents first.
pub(crate) fn absent(list: &[Mount], root: &Root, working_dir: &str) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    for (place, _) in places(list) {
        let parts: Vec<&Path> = place.ancestors().collect();
        for path in parts.into_iter().rev().filter(|path| *path != Path::new("/")) {
            let own = Path::new(working_dir).starts_with(path);
            if !own && root.metadata(path).is_err() && !missing.iter().any(|known| known == path) {
                missing.push(path.to_owned());
            }
        }
    }
    missing
}

/// Makes the places where things are mounted, so that they do not have to be made in the layer: a
/// directory that goes between the layer and what it lies on, `stack`. `None` when all are there.
pub(crate) fn stubs(
    store: &Store,
    list: &[Mount],
    stack: &Stack,
    below: Option<&Root>,
    working_dir: &str,
) -> Result<Option<Active>> {
    let mut wanted = places(list);
    let there = |path: &Path| below.is_some_and(|root| root.metadata(path).is_ok());
    wanted.retain(|(path, _)| !there(path));
    if wanted.is_empty() {
        return Ok(None);
    }
    let active = store.begin().during("preparing mount points")?;
    let own = active.stack(None).during("preparing mount points")?;
    let whole = Stack { lower: stack.lower.clone(), ..own };
    let root = whole.mount().during("preparing mount points")?;
    for (path, directory) in &wanted {
        // The working directory belongs to the layer.
        if *directory {
            if Path::new(working_dir) != path {
                root.create_dir_all(path, 0o755, None).during("preparing mount points")?;
            }
            continue;
        }
        if let Some(parent) = path.parent() {
            root.create_dir_all(parent, 0o755, None).during("preparing mount points")?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOCTTY | OFlags::NONBLOCK;
        root.open_at(path, flags, Mode::from_raw_mode(0o644))
            .during(format!("preparing mount point {}", path.display()))?;
    }
    Ok(Some(active))
}

/// A file system in memory, mounted nowhere.
fn memory(size: Option<u64>) -> std::io::Result<OwnedFd> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(size) = size {
        fsconfig_set_string(&context, c"size", size.to_string())?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A file of a file system in memory, as a mount that is attached nowhere: what is in it never
/// reaches a disk of the store.
fn in_memory(content: &[u8], mode: u32, owner: (u32, u32)) -> std::io::Result<OwnedFd> {
    let tree = memory(None)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = fs::File::from(openat(&tree, c"secret", flags, Mode::from_raw_mode(0o600))?);
    std::io::Write::write_all(&mut file, content)?;
    std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    // A file that is open for writing cannot be mounted read-only.
    drop(file);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(&tree, c"secret", flags)?)
}

/// What a step asks for was not given: an error if it must be.
fn optional(required: bool, what: &'static str, id: &str) -> Result<()> {
    if !required {
        return Ok(());
    }
    Err(Error::Required { what, id: id.to_owned() })
}

fn missing(tree: &Tree, path: &str, ignored: Option<String>) -> Error {
    Error::Missing { path: path.to_owned(), place: tree.name.clone(), ignored, near: None }
}
