//! A store with a small base image in it, a context, and a look at what was built.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use builder::{BuildResult, Context, Env, Error, Places, Request, SourceFile};
use image::{
    Config, Descriptor, Digest, Document, Encoding, Image, Manifest, MediaType, Platform,
    Reference, RootFs,
};
use layers::{Compression, DiffOptions, LayerWriter, Root};
use store::{Options, Store};
use task::{Cause, Event, Observer, Outcome, Task};
use transport::at::LayoutImage;
use transport::{Gate, ImageSelector, Location, Open, Sink, Source};

/// The name of the base image.
pub(crate) const BASE: &str = "docker.io/library/base:latest";
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox"];

/// The machine's static busybox, where commands of tests come from.
fn busybox() -> Option<PathBuf> {
    BUSYBOX.iter().map(PathBuf::from).find(|path| path.exists())
}

/// A place in which commands run. Without busybox the test is reported as ignored.
pub(crate) fn ready() -> Option<Place> {
    if busybox().is_none() {
        drop(requires::program("busybox"));
        return None;
    }
    Some(Place::new())
}

fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(4_000_000_000)
}

struct Layouts;

impl Places for Layouts {
    fn source(&self, location: &Location) -> Result<Box<dyn Source>, Cause> {
        match location {
            Location::Layout(path, named) => Ok(Box::new(LayoutImage::new(path, named.clone()))),
            other => Err(Cause::new(Error::Gone { what: format!("{other} in tests") })),
        }
    }
    fn sink(&self, location: &Location) -> Result<Box<dyn Sink>, Cause> {
        match location {
            Location::Layout(path, named) => Ok(Box::new(LayoutImage::new(path, named.clone()))),
            other => Err(Cause::new(Error::Gone { what: format!("{other} in tests") })),
        }
    }
}

/// A registry whose one image, under any name, is `app` of a layout.
pub(crate) struct OneImage(pub(crate) PathBuf);

impl Places for OneImage {
    fn source(&self, location: &Location) -> Result<Box<dyn Source>, Cause> {
        let named = match location {
            Location::Registry(Reference { digest: Some(digest), .. }) => {
                ImageSelector::Digest(*digest)
            }
            _ => ImageSelector::Name("app".to_owned()),
        };
        Ok(Box::new(LayoutImage::new(&self.0, named)))
    }
    fn sink(&self, location: &Location) -> Result<Box<dyn Sink>, Cause> {
        Layouts.sink(location)
    }
}

/// Lets one document through, and nothing else.
pub(crate) struct Only(pub(crate) Digest);

#[async_trait::async_trait]
impl Gate for Only {
    async fn check(
        &self,
        _source: &dyn Source,
        root: &Descriptor,
        _task: &Task,
    ) -> Result<(), Cause> {
        let refused = || Cause::new(Error::Gone { what: root.digest.to_string() });
        if root.digest == self.0 { Ok(()) } else { Err(refused()) }
    }
}

/// Hears everything.
#[derive(Default)]
pub(crate) struct Ear {
    events: Mutex<Vec<Event>>,
    /// Output at which the build is cancelled, and what cancels it.
    stop: Mutex<(String, Option<task::Canceller>)>,
}

impl Observer for Ear {
    fn event(&self, event: Event) {
        if let Event::Output { bytes, .. } = &event {
            let stop = self.stop.lock().unwrap().clone();
            let here = !stop.0.is_empty() && String::from_utf8_lossy(bytes).contains(&stop.0);
            if let Some(canceller) = stop.1.filter(|_| here) {
                canceller.cancel();
            }
        }
        self.events.lock().unwrap().push(event);
    }
}

impl Ear {
    /// Cancels builds at this output from now on; an empty text never.
    pub(crate) fn cancel_on(&self, text: &str) {
        self.stop.lock().unwrap().0 = text.to_owned();
    }

    /// What commands wrote.
    pub(crate) fn output(&self) -> String {
        let events = self.events.lock().unwrap();
        let bytes: Vec<u8> = events
            .iter()
            .filter_map(|event| match event {
                Event::Output { bytes, .. } => Some(bytes.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What tasks remarked.
    pub(crate) fn notes(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let note = |event: &Event| match event {
            Event::Noted { message, .. } => Some(message.clone()),
            _ => None,
        };
        events.iter().filter_map(note).collect()
    }

    /// What the user was warned of.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let warning = |event: &Event| match event {
            Event::Warned { message, .. } => Some(message.clone()),
            _ => None,
        };
        events.iter().filter_map(warning).collect()
    }

    /// The names of tasks that ended in this way, in the order they ended.
    pub(crate) fn ended(&self, wanted: Outcome) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let mut names = BTreeMap::new();
        let mut ended = Vec::new();
        for event in events.iter() {
            match event {
                Event::Started { id, name, .. } => drop(names.insert(*id, name.clone())),
                Event::Finished { id, outcome } if *outcome == wanted => {
                    ended.push(names[id].clone());
                }
                _ => {}
            }
        }
        ended
    }
}

/// A store of its own and a context.
pub(crate) struct Place {
    _dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) context: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) ear: Arc<Ear>,
}

impl Place {
    pub(crate) fn new() -> Place {
        let place = Place::empty();
        place.base(BASE, |_| {});
        place
    }

    /// Without the base image.
    pub(crate) fn empty() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let (user_xattr, boot_id) = (runtime::in_user_namespace(), "boot".to_owned());
        let options = Options { user_xattr, boot_id, clock, task: Arc::new(Task::silent()) };
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        let context = dir.path().join("context");
        std::fs::create_dir(&context).unwrap();
        let root = dir.path().to_owned();
        Place { _dir: dir, store, context, root, ear: Arc::default() }
    }

    pub(crate) fn write(&self, path: &str, content: &str) -> &Self {
        let path = self.context.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub(crate) fn mode(&self, path: &str, mode: u32) -> &Self {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.context.join(path), mode).unwrap();
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        symlink(target, self.context.join(path)).unwrap();
        self
    }

    /// Puts a base image into the store, its configuration changed by `change`.
    pub(crate) fn base(&self, name: &str, change: impl FnOnce(&mut Config)) {
        let tree = tempfile::tempdir().unwrap();
        tree_of_base(tree.path());
        let root = Root::open(tree.path()).unwrap();
        let task = Task::silent();
        let compression = Compression { encoding: Encoding::Gzip, level: None };
        let mut layer = LayerWriter::new(self.store.writer().unwrap(), compression, 1);
        let options = DiffOptions { clamp: Some(1_000_000_000), ..DiffOptions::default() };
        layers::archive(&root, Path::new(""), &mut layer, &options, &task).unwrap();
        let (blob, info) = layer.finish().unwrap();
        blob.commit(Some(&info.descriptor)).unwrap();
        let host = Platform::host();
        let mut config = Config {
            created: Some("2020-01-01T00:00:00Z".to_owned()),
            architecture: host.architecture,
            variant: host.variant,
            os: host.os,
            rootfs: RootFs { diff_ids: vec![info.diff_id], ..RootFs::default() },
            ..Config::default()
        };
        config.config.env = vec!["PATH=/bin".to_owned()];
        config.config.cmd = Some(vec!["sh".to_owned()]);
        change(&mut config);
        let config = Document::write(MediaType::OCI_CONFIG, config);
        let manifest = Manifest::new(
            MediaType::OCI_MANIFEST,
            config.descriptor().clone(),
            vec![info.descriptor],
        );
        let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
        self.store.insert(config.bytes()).unwrap();
        self.store.insert(manifest.bytes()).unwrap();
        self.store.publish(name, manifest.descriptor()).unwrap();
    }

    pub(crate) fn request(&self, dockerfile: &str) -> Request {
        let file = SourceFile { name: "Dockerfile".to_owned(), text: dockerfile.to_owned() };
        let mut request = Request::new(file, Context::Directory(self.context.clone()));
        request.tags = vec!["localhost/app:latest".parse().unwrap()];
        request.jobs = 2;
        request
    }

    pub(crate) fn env(&self) -> Env {
        Env {
            store: self.store.clone(),
            places: Arc::new(Layouts),
            gate: Arc::new(Open),
            clock,
            user_namespace: runtime::in_user_namespace(),
            guard: Arc::new(transport::Open),
            single_id: runtime::single_id(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            threads: 2,
        }
    }

    pub(crate) fn try_build(&self, request: Request) -> Result<BuildResult, Error> {
        self.try_build_in(request, &self.env())
    }

    pub(crate) fn try_build_in(&self, request: Request, env: &Env) -> Result<BuildResult, Error> {
        self.ear.events.lock().unwrap().clear();
        let task = Task::root("build", self.ear.clone());
        self.ear.stop.lock().unwrap().1 = Some(task.canceller());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(builder::build(request, env, &task))
    }

    /// What would become of each step.
    pub(crate) fn forecast(&self, request: Request) -> Result<Vec<builder::StepForecast>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(builder::forecast(request, &self.env(), &Task::silent()))
    }

    #[track_caller]
    pub(crate) fn build(&self, request: Request) -> Look {
        match self.try_build(request) {
            Ok(built) => Look::new(self, built),
            Err(error) => {
                panic!("{}\n{}", task::chain(&error).join("\n  "), self.ear.output())
            }
        }
    }

    #[track_caller]
    pub(crate) fn build_text(&self, dockerfile: &str) -> Look {
        self.build(self.request(dockerfile))
    }

    #[track_caller]
    pub(crate) fn fails(&self, dockerfile: &str) -> Error {
        match self.try_build(self.request(dockerfile)) {
            Ok(_) => panic!("it was built:\n{dockerfile}"),
            Err(error) => error,
        }
    }
}

fn tree_of_base(path: &Path) {
    for directory in ["bin", "etc", "tmp", "home/app"] {
        std::fs::create_dir_all(path.join(directory)).unwrap();
    }
    std::fs::write(
        path.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(path.join("etc/group"), "root:x:0:\napp:x:1001:\nstaff:x:50:\n").unwrap();
    if let Some(busybox) = busybox() {
        std::fs::copy(busybox, path.join("bin/busybox")).unwrap();
        let applets = [
            "sh", "echo", "cat", "ls", "mkdir", "touch", "rm", "id", "stat", "env", "true",
            "false", "test", "grep", "find", "head", "chmod", "ln", "cp", "mount", "hostname",
            "wc", "sort", "printf", "sleep", "pwd", "ip", "tr", "mv", "mkfifo",
        ];
        for applet in applets {
            symlink("busybox", path.join("bin").join(applet)).unwrap();
        }
    }
}

/// What was built.
pub(crate) struct Look {
    pub(crate) built: BuildResult,
    pub(crate) image: Image,
    root: Root,
}

impl Look {
    fn new(place: &Place, built: BuildResult) -> Look {
        let manifest = built.manifest.clone().unwrap();
        let image = place.store.image(&manifest, &Platform::host()).unwrap();
        let root = match place.store.unpack(&image, &Task::silent()).unwrap() {
            Some(snapshot) => place.store.stack(snapshot).unwrap().mount().unwrap(),
            None => place.store.begin().unwrap().root().unwrap(),
        };
        Look { built, image, root }
    }

    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        let bytes = self.root.read(Path::new(path), 1 << 20);
        match bytes {
            Ok(bytes) => String::from_utf8(bytes).unwrap(),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.root.symlink_metadata(Path::new(path)).is_ok()
    }

    /// `kind mode uid:gid`, such as `f 644 0:0`; empty if there is nothing.
    pub(crate) fn stat(&self, path: &str) -> String {
        let Ok(stat) = self.root.symlink_metadata(Path::new(path)) else { return String::new() };
        let kind = match stat.st_mode & 0o170_000 {
            0o040_000 => 'd',
            0o100_000 => 'f',
            0o120_000 => 'l',
            _ => '?',
        };
        format!("{kind} {:o} {}:{}", stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
    }

    pub(crate) fn mtime(&self, path: &str) -> i64 {
        self.root.symlink_metadata(Path::new(path)).unwrap().st_mtime
    }

    /// Everything below a directory, sorted.
    pub(crate) fn tree(&self, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![PathBuf::from(path)];
        while let Some(directory) = pending.pop() {
            for entry in self.root.entries(&directory).unwrap() {
                let path = directory.join(&entry.name);
                if entry.kind == layers::FileType::Directory {
                    pending.push(path.clone());
                }
                found.push(path.strip_prefix("/").unwrap_or(&path).display().to_string());
            }
        }
        found.sort();
        found
    }

    /// The names in the top layer.
    pub(crate) fn top_layer(&self, place: &Place) -> Vec<String> {
        let layer = self.image.manifest().layers.last().unwrap().digest;
        let tar = layers::decompress(place.store.open_blob(layer).unwrap()).unwrap();
        let mut archive = tar::Archive::new(tar);
        let names = archive.entries().unwrap().map(|entry| {
            entry.unwrap().path().unwrap().display().to_string().trim_end_matches('/').to_owned()
        });
        names.collect()
    }

    pub(crate) fn history(&self) -> Vec<String> {
        self.image
            .config()
            .history
            .iter()
            .map(|item| {
                let by = item.created_by.clone().unwrap_or_default();
                if item.empty_layer { format!("{by} (empty)") } else { by }
            })
            .collect()
    }

    pub(crate) fn config(&self) -> &image::ContainerConfig {
        &self.image.config().config
    }
}
