//! Starting containers.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image::{Image, Platform};
use layers::Root;
use network::{ContainerNetwork, Lease, Uplink};
use runtime::{
    Bundle, ContainerSpec, ExitStatus, Ids, MonitorOptions, Mount, Network, State, Stdio, Streams,
    UserFile, VolumeMount,
};
use store::Store;
use task::{Cause, Task};

use crate::detached_mounts::{self, DetachedMounts, Upper};
use crate::ids::Owners;
use crate::image_files::ImageFiles;
use crate::tmpfs_layer::{TmpfsLayer, link_mounts};
use crate::uplink::{NetworkFacts, NetworkOwner};
use crate::volume::{Volumes, bind, copy_from_image, declared, memory_for_volumes};
use crate::{Container, Error, Result, ended, ids, joined_namespaces, uplink};

/// How to start a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// Whether output, and the end, wait a moment for a first attachment.
    pub attached: bool,
    /// Rows and columns of its terminal, if it has one; 24 and 80 if not given.
    pub size: Option<(u16, u16)>,
    /// The socket of a service manager that waits for the container, as `NOTIFY_SOCKET` names it.
    pub notify: Option<String>,
    /// Numbers of descriptors of this process that its program gets; see [`runtime::StartOptions`].
    pub descriptors: Vec<u32>,
    /// `NAME=value` lines for this start alone.
    pub environment: Vec<String>,
}

/// The user databases of a container, each at most 16 MiB.
///
/// # Errors
/// They cannot be read.
pub fn users(root: &Root, file: UserFile) -> Result<Option<String>, Cause> {
    let path = match file {
        UserFile::Passwd => "etc/passwd",
        UserFile::Group => "etc/group",
    };
    match root.read(Path::new(path), 16 << 20) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if task::Fault::kind(&error) == task::Kind::NotFound => Ok(None),
        Err(error) => Err(Cause::new(error)),
    }
}

/// Gives what is to be the user's to the user of the container.
///
/// # Errors
/// [`Error::Layers`]
pub fn give(spec: &ContainerSpec, document: &runtime::oci::Spec) -> Result<()> {
    let (uid, gid) = runtime::owner(document);
    let owner = match &spec.isolation.ids {
        Some(Ids::Maps(maps)) => maps.outside(uid, gid).ok_or_else(|| Error::Unsupported {
            what: "giving mounts to the user",
            reason: format!("{uid}:{gid} is not among the ids of the container"),
        })?,
        _ => (uid, gid),
    };
    spec.files.given.iter().try_for_each(|path| Ok(layers::give_all(path, owner)?))
}

/// These mounts with the ids of the container, if it has its own: what is kept for containers has the
/// ids of inside on the disk. For an ordinary user, the kernel maps no mounts.
fn mapped(spec: &ContainerSpec, mut mounts: Vec<Mount>) -> Vec<Mount> {
    let maps = spec.isolation.ids.is_some() && !runtime::in_user_namespace();
    for mount in mounts.iter_mut().filter(|_| maps) {
        if let Mount::Bind { options, .. } = mount
            && !options.iter().any(|option| option.starts_with("idmap"))
        {
            options.push("idmap".to_owned());
        }
    }
    mounts
}

/// As [`mapped`], for files that are written at each start: they are given to root of the container where
/// they cannot be mapped.
fn mapped_files(spec: &ContainerSpec, mounts: Vec<Mount>) -> Result<Vec<Mount>> {
    if let Some(Ids::Maps(maps)) = &spec.isolation.ids
        && runtime::in_user_namespace()
        && let Some(root) = maps.outside(0, 0)
    {
        for mount in &mounts {
            let Mount::Bind { source, .. } = mount else { continue };
            layers::give_all(source, root)?;
        }
    }
    Ok(mapped(spec, mounts))
}

/// The volumes of a container whose owner it cannot see, which are to be its user's: those of an ordinary
/// user, whose mounts the kernel does not map.
fn foreign(spec: &ContainerSpec, mounts: &[Mount]) -> Vec<PathBuf> {
    let Some(Ids::Maps(maps)) = &spec.isolation.ids else { return Vec::new() };
    if !runtime::in_user_namespace() {
        return Vec::new();
    }
    let sees = |uid: u32| {
        maps.uids
            .iter()
            .any(|range| uid.checked_sub(range.outside).is_some_and(|at| at < range.count))
    };
    let of = |mount: &Mount| match mount {
        Mount::Bind { source, .. } => {
            source.metadata().ok().map(|data| (source.clone(), data.uid()))
        }
        _ => None,
    };
    mounts.iter().filter_map(of).filter(|(_, uid)| !sees(*uid)).map(|(path, _)| path).collect()
}

/// Writes hosts, hostname and resolv.conf of a container with these places on named networks to its
/// directory and mounts them first.
///
/// # Errors
/// [`Error::File`]
pub fn add_network_files(
    directory: &Path,
    spec: &mut ContainerSpec,
    leases: &[Lease],
) -> Result<()> {
    let known = NetworkFacts::of(spec, leases);
    let files = uplink::write_network_files(directory, spec, &known)?;
    let mount = |name| bind(directory.join(name), Path::new("/etc").join(name), false);
    let mounts = mapped_files(spec, files.into_iter().map(mount).collect())?;
    spec.files.mounts.splice(0..0, mounts);
    Ok(())
}

/// By which programs know that they run in a container.
pub(crate) const CONTAINER_FILE: &str = "/run/.containerenv";

/// Writes the file by which programs know that they run in a container, and mounts it.
fn add_container_file(directory: &Path, spec: &mut ContainerSpec, text: &str) -> Result<()> {
    let source = directory.join(".containerenv");
    std::fs::write(&source, text).map_err(Error::file("writing", &source))?;
    let mounts = mapped_files(spec, vec![bind(source, CONTAINER_FILE.into(), false)])?;
    spec.files.mounts.splice(0..0, mounts);
    Ok(())
}

/// What holds of a container on this machine, where it does not say.
fn settled(mut spec: ContainerSpec, id: &str) -> ContainerSpec {
    spec.isolation.user_namespace = runtime::in_user_namespace();
    if spec.isolation.user_namespace {
        // No limit needs no cgroup, which an ordinary user may not make.
        spec.limits.pids_limit = spec.limits.pids_limit.filter(|limit| *limit > 0);
    }
    spec.network.mode.get_or_insert(Network::Private);
    spec.network.hostname.get_or_insert_with(|| id[..12].to_owned());
    spec
}

/// The specification as it holds on this machine now, and the document for the runtime.
fn describe(
    mut spec: ContainerSpec,
    image: Option<&Image>,
    root: &Root,
    directory: &Path,
    held: Option<&ContainerNetwork>,
) -> Result<(ContainerSpec, runtime::oci::Spec)> {
    add_network_files(
        directory,
        &mut spec,
        held.map(ContainerNetwork::leases).unwrap_or_default(),
    )?;
    let empty = image::ContainerConfig::default();
    let config = image.map_or(&empty, |image| &image.config().config);
    let mut document = runtime::spec(config, &spec, &|file| users(root, file))?;
    if let Some(held) = held {
        runtime::join_network(&mut document, &held.path());
    }
    give(&spec, &document)?;
    Ok((spec, document))
}

impl Container {
    /// As podman, says which container it is only to one that has all privileges.
    fn add_container_file(&self, spec: &mut ContainerSpec) -> Result<()> {
        let mut text = String::new();
        if spec.isolation.privileged {
            let version = env!("CARGO_PKG_VERSION");
            let image = self.row.image.as_ref().map(|image| image.digest.hex());
            text = format!(
                "engine=\"rbuild-{version}\"\nname=\"{}\"\nid=\"{}\"\nimage=\"{}\"\n\
                 imageid=\"{}\"\nrootless={}\n",
                self.name(),
                self.id(),
                self.record().image,
                image.unwrap_or_default(),
                u8::from(runtime::in_user_namespace()),
            );
        }
        add_container_file(self.directory(), spec, &text)
    }

    /// Finds the containers that it requires, each after those that it requires itself.
    fn required(&self, above: &[&str], order: &mut Vec<Container>) -> Result<()> {
        let containers = crate::Containers::new(self.store.clone());
        for name in &self.record().spec.lifecycle.requires {
            let other = containers.get(name)?;
            if above.contains(&other.id()) {
                let reason = format!("containers require each other: {name} is among them");
                return Err(Error::Invalid { name: self.name().to_owned(), reason });
            }
            other.required(&[above, &[other.id()]].concat(), order)?;
            order.push(other);
        }
        Ok(())
    }

    /// How its monitor watches over it.
    fn watch(&self, config: &image::ContainerConfig) -> MonitorOptions {
        let lifecycle = &self.record().spec.lifecycle;
        MonitorOptions {
            health: lifecycle.health.check(config.healthcheck.as_ref(), Some(&config.shell)),
            log: lifecycle.log,
            timeout: lifecycle.timeout,
            stop_signal: Some(self.record().stop_signal()),
            stop_timeout: lifecycle.stop_timeout,
        }
    }

    /// Writes the numbers of its first process and of its monitor where that is wanted.
    fn write_pidfiles(&self, state: &State) -> Result<()> {
        let lifecycle = &self.record().spec.lifecycle;
        let wanted = [(&lifecycle.pidfile, state.pid), (&lifecycle.monitor_pidfile, state.monitor)];
        for (path, pid) in wanted {
            let Some(path) = path else { continue };
            std::fs::write(path, pid.to_string()).map_err(Error::file("writing", path))?;
        }
        Ok(())
    }

    /// Starts it, after the containers that it requires; a container that ended starts again with its files. A
    /// running one is left alone.
    ///
    /// # Errors
    /// [`Error::Runtime`] where the program cannot be started; [`Error::Store`], [`Error::File`];
    /// [`Error::Invalid`] where containers require each other.
    pub fn start(&self, options: &StartOptions, task: &Task) -> Result<State> {
        let mut required = Vec::new();
        self.required(&[self.id()], &mut required)?;
        for other in required {
            other.start_alone(&StartOptions::default(), task)?;
        }
        self.start_alone(options, task)
    }

    fn start_alone(&self, options: &StartOptions, task: &Task) -> Result<State> {
        runtime::close_on_exec();
        let lock = self.directory().join("start.lock");
        let lock = File::create(&lock).map_err(Error::file("making", &lock))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|errno| Error::file("locking", self.directory())(errno.into()))?;
        let now = self.again()?;
        if let Some(state) = now.state().filter(|_| now.is_running()) {
            return Ok(state.clone());
        }
        ended::forget_stop(self.directory());
        let image = match &self.row.image {
            Some(descriptor) => Some(self.store.image(descriptor, &Platform::host())?),
            None => None,
        };
        let record = now.record();
        let mut spec = record.spec.clone();
        let _joined = joined_namespaces::resolve(&mut spec, &self.store)?;
        let owners = ids::owners(&spec.isolation)?;
        if let (Owners::Copied(_), Some(place)) = (&owners, &spec.files.rootfs)
            && !place.overlay
        {
            return Err(Error::Unsupported {
                what: "giving the files of a directory other owners",
                reason: format!("they would be lost: name it {}:O", place.path.display()),
            });
        }
        let root = owners.lay(self.stack()?, &self.directory().join("lower"), task)?.mount()?;
        link_mounts(&root);
        let volumes = Volumes::new(self.store.clone());
        let mounts = volumes.mounts(&record.volumes)?;
        spec.files.given.extend(foreign(&spec, &mounts));
        spec.files.mounts.extend(mapped(&spec, mounts));
        spec.files.given.extend(volumes.given(&record.volumes)?);
        let upper = Upper::Kept(self.directory());
        let _shown = detached_mounts::mount(&self.store, &mut spec.files, &upper, task)?;
        crate::notify::prepare(&mut spec, options.notify.as_deref())?;
        self.add_container_file(&mut spec)?;
        spec.process.env.extend(options.environment.iter().cloned());
        let spec = settled(spec, self.id());
        let config = image.as_ref().map(|image| image.config().config.clone()).unwrap_or_default();
        let (id, name, directory) = (self.id(), now.name(), self.directory());
        let own = NetworkOwner { id, name, directory, servers: &spec.network.dns.servers };
        let held = uplink::hold(&spec, &config, &self.store, own)?;
        let (spec, mut document) =
            describe(spec, image.as_ref(), &root, self.directory(), held.as_ref())?;
        uplink::join(&spec, &self.store, &mut document)?;
        self.keep_published(held.as_ref())?;
        let terminal = spec.process.terminal.then(|| options.size.unwrap_or((24, 80)));
        let streams =
            Streams { terminal, interactive: spec.process.interactive, attached: options.attached };
        let start = runtime::StartOptions {
            id: self.id().to_owned(),
            init: spec.process.init,
            owners: runtime::single_id(),
            descriptors: options.descriptors.clone(),
            other: None,
        };
        let bundle = Bundle { spec: document, rootfs: root.into_fd() };
        let watch = self.watch(&config);
        let state = runtime::launch(self.directory(), bundle, streams, watch, &start)?;
        if let Some(held) = held {
            match held.follow(state.pid) {
                // A short program has ended by now, so its network is not needed.
                Err(_) if !self.again().is_ok_and(|now| now.is_running()) => {}
                followed => followed?,
            }
        }
        self.note("start", &[]);
        self.write_pidfiles(&state)?;
        crate::notify::started(self, &state, options.notify.as_deref())?;
        Ok(state)
    }
}

/// Adds the volumes of a container without a name: those without a name are gone with it.
fn forgotten_volumes(
    store: &Store,
    (active, files): (&store::Active, ImageFiles<'_>),
    wanted: Vec<VolumeMount>,
    spec: &mut ContainerSpec,
    task: &Task,
) -> Result<()> {
    let volumes = Volumes::new(store.clone());
    for (number, volume) in wanted.into_iter().enumerate() {
        if volume.name.is_some() {
            let mounted = volumes.mount(&volume, files, task)?;
            spec.files.given.extend(volumes.given(std::slice::from_ref(&mounted))?);
            let mounts = volumes.mounts(&[mounted])?;
            spec.files.given.extend(foreign(spec, &mounts));
            spec.files.mounts.extend(mapped(spec, mounts));
            continue;
        }
        let data = active.dir().join(format!("volume-{number}"));
        std::fs::create_dir(&data).map_err(Error::file("making", &data))?;
        if !volume.no_copy {
            copy_from_image(store, files, &volume.target, &data, task)?;
        }
        if volume.given {
            spec.files.given.push(data.clone());
        }
        let mounts = vec![bind(data, volume.target, volume.read_only)];
        spec.files.given.extend(foreign(spec, &mounts));
        spec.files.mounts.extend(mapped(spec, mounts));
    }
    Ok(())
}

/// A container without a name: it needs no record and no monitor, and its changes are discarded.
#[derive(Debug)]
pub struct Transient {
    container: runtime::Container,
    /// Its network, as long as it runs.
    _uplink: Option<Uplink>,
    /// Its files, as long as it runs.
    _active: store::Active,
    /// Overlays and images, as long as it runs.
    _shown: DetachedMounts,
    /// The files it has from us.
    _ground: Option<TmpfsLayer>,
}

impl Transient {
    /// Starts the image's program with our streams, or these.
    ///
    /// # Errors
    /// As [`Container::start`].
    pub fn start(
        store: &Store,
        image: &Image,
        spec: ContainerSpec,
        stdio: Stdio,
        task: &Task,
    ) -> Result<Transient> {
        let files = store.unpack(image, task)?.into();
        Transient::start_on(store, (image, files), spec, stdio, task)
    }

    /// As [`Transient::start`], with the image's files from there.
    ///
    /// # Errors
    /// As [`Container::start`].
    pub fn start_on(
        store: &Store,
        (image, files): (&Image, ImageFiles<'_>),
        spec: ContainerSpec,
        stdio: Stdio,
        task: &Task,
    ) -> Result<Transient> {
        let active = store.begin()?;
        // What it writes is discarded, so nothing waits for the disk when it ends.
        let mut spec = spec;
        let _joined = joined_namespaces::resolve(&mut spec, store)?;
        let owners = ids::owners(&spec.isolation)?;
        let ground = if matches!(owners, Owners::Same) { TmpfsLayer::new() } else { None };
        let stack = files.below(&active)?;
        let stack = ground.iter().fold(stack, |stack, ground| ground.below(stack));
        let stack = owners.lay(stack, &active.dir().join("lower"), task)?;
        let root = stack.mount_volatile()?;
        if ground.is_none() {
            link_mounts(&root);
        }
        let id = task::random_id();
        memory_for_volumes(&mut spec, image)?;
        let declared = declared(&spec, image)?;
        let wanted = std::mem::take(&mut spec.files.volumes).into_iter().chain(declared).collect();
        forgotten_volumes(store, (&active, files), wanted, &mut spec, task)?;
        let shown = detached_mounts::mount(store, &mut spec.files, &Upper::Forgotten, task)?;
        let (run, etc) = match &ground {
            Some(ground) => (ground.path().join("run"), ground.path().join("etc")),
            None => (active.dir().to_owned(), active.dir().to_owned()),
        };
        add_container_file(&run, &mut spec, "")?;
        let (spec, config) = (settled(spec, &id), &image.config().config);
        let held = uplink::join_named(&spec, config, store, (&id, &id[..12]))?;
        let (spec, mut document) = describe(spec, Some(image), &root, &etc, held.as_ref())?;
        let uplink = uplink::connect(&spec, config, store, (held.as_ref(), &mut document))?;
        let bundle = Bundle { spec: document, rootfs: root.into_fd() };
        let options = runtime::StartOptions {
            id,
            init: spec.process.init,
            owners: runtime::single_id(),
            ..runtime::StartOptions::default()
        };
        let container = runtime::Container::start(bundle, stdio, &options)?;
        if let Some(held) = held {
            held.follow(container.pid())?;
        }
        Ok(Transient {
            container,
            _uplink: uplink,
            _active: active,
            _shown: shown,
            _ground: ground,
        })
    }

    /// Its first process.
    pub fn pid(&self) -> u32 {
        self.container.pid()
    }

    /// Waits for its end; with `pass_signals` those to this process are passed on to the container.
    ///
    /// # Errors
    /// [`Error::Runtime`]
    pub fn wait(self, pass_signals: bool, task: &Task) -> Result<ExitStatus> {
        Ok(match pass_signals {
            true => self.container.wait_passing_signals(task)?,
            false => self.container.wait(task)?,
        })
    }
}
