//! Places against their peers: the reference registry and skopeo, where they are installed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use image::{Descriptor, Digest, Node, Reference};
use registry_client::{Client, Credential, Options};
use task::{Cause, Outcome, Task};

use crate::at::{Form, Memory, Registry, StoreImage};
use crate::samples::{OutcomeRecorder, all, read_all, samples};
use crate::suite::{TestPlace, check_place, store_at};
use crate::*;

struct Server {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a registry; `None` (said on stderr) where there is none to start.
    fn start() -> Option<Server> {
        let registry = requires::program("docker-registry")?;
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: '{address}'}}\n",
            directory.path().join("data").display()
        );
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut child = Command::new(registry)
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening =
            lines.by_ref().any(|line| line.is_ok_and(|line| line.contains("listening on")));
        assert!(listening, "docker-registry did not start");
        std::thread::spawn(move || lines.for_each(drop));
        Some(Server { child, address, _directory: directory })
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }
}

fn client() -> Client {
    let options =
        Options { keychain: Arc::new(Credential::Anonymous), retries: 1, ..Options::default() };
    Client::new(options).unwrap()
}

/// Runs skopeo; `None` (said on stderr) where there is none.
fn skopeo(arguments: &[&str]) -> Option<String> {
    let skopeo = requires::program("skopeo")?;
    let output = Command::new(skopeo).arg("--insecure-policy").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {}: {said}", arguments.join(" "));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// One place of each kind below a directory and, if there is one, on a registry.
fn locations(dir: &Path, server: Option<&Server>, name: &str) -> Vec<Location> {
    let path = |kind: &str| dir.join(format!("{name}-{kind}"));
    let mut locations = vec![
        Location::Layout(path("oci"), ImageSelector::Name("v1".to_owned())),
        Location::OciArchive(path("oci.tar"), ImageSelector::Name("v1".to_owned())),
        Location::DockerArchive(
            path("docker.tar"),
            ImageSelector::Name(format!("r.example/{name}:v1")),
        ),
        Location::Directory(path("dir")),
        Location::Store(format!("localhost/{name}:v1")),
    ];
    locations
        .extend(server.map(|server| Location::Registry(server.reference(&format!("{name}:v1")))));
    locations
}

struct Machine {
    dir: tempfile::TempDir,
    store: store::Store,
    client: Client,
}

impl Machine {
    fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let store = store_at(&dir.path().join("store"));
        Machine { dir, store, client: client() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn copy(&self, from: &Location, to: &Location) -> Result<Descriptor> {
        let (client, store) = (|| Ok(self.client.clone()), || Ok(self.store.clone()));
        let places = Places { client: &client, store: &store, machine: &crate::Machine::default() };
        let (source, sink) = (places.source(from)?, places.sink(to)?);
        copy(&*source, &*sink, &Open, &all(), &Task::silent()).await
    }

    async fn put(&self, memory: &Memory, name: &str, to: &Location) -> Result<Descriptor> {
        let (client, store) = (|| Ok(self.client.clone()), || Ok(self.store.clone()));
        let places = Places { client: &client, store: &store, machine: &crate::Machine::default() };
        let sink = places.sink(to)?;
        copy(&memory.image(name), &*sink, &Open, &all(), &Task::silent()).await
    }

    fn source(&self, from: &Location) -> Box<dyn Source> {
        let (client, store) = (|| Ok(self.client.clone()), || Ok(self.store.clone()));
        let places = Places { client: &client, store: &store, machine: &crate::Machine::default() };
        places.source(from).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_a_place() {
    let Some(server) = Server::start() else { return };
    let count = std::cell::Cell::new(0);
    let client = client();
    let fresh = || {
        count.set(count.get() + 1);
        let image = Registry::new(&client, &server.reference(&format!("app{}:v1", count.get())));
        let again = image.clone();
        TestPlace { sink: Box::new(image), source: Box::new(move || Box::new(again.clone())) }
    };
    check_place(&fresh, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_place_to_every_place_keeps_the_digest() {
    let server = Server::start();
    let machine = Machine::new();
    let memory = samples();
    for sample in ["one", "many"] {
        let root = memory.named(sample).unwrap();
        let content = read_all(&memory.image(sample), &root).await;
        let holds = |location: &Location| {
            sample == "one" || !matches!(location, Location::DockerArchive(..))
        };
        let first = locations(machine.path(), server.as_ref(), &format!("from-{sample}"));
        for (at, from) in first.iter().enumerate().filter(|(_, from)| holds(from)) {
            machine.put(&memory, sample, from).await.unwrap();
            let name = format!("to-{sample}-{at}");
            for to in
                locations(machine.path(), server.as_ref(), &name).iter().filter(|to| holds(to))
            {
                let copied = machine.copy(from, to).await.unwrap();
                assert_eq!(copied.digest, root.digest, "{from} {to}");
                let source = machine.source(to);
                let resolved = source.resolve().await.unwrap();
                assert_eq!(resolved.digest, root.digest, "{from} {to}");
                assert_eq!(read_all(&*source, &resolved).await, content, "{from} {to}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_reads_what_we_write() {
    let server = Server::start();
    let machine = Machine::new();
    let memory = samples();
    let root = memory.named("one").unwrap();
    for (at, location) in locations(machine.path(), server.as_ref(), "x").iter().enumerate() {
        if matches!(location, Location::Store(_)) {
            continue;
        }
        machine.put(&memory, "one", location).await.unwrap();
        let out = format!("dir:{}", machine.path().join(format!("skopeo-{at}")).display());
        let name = location.to_string();
        if skopeo(&["copy", "--src-tls-verify=false", &name, &out]).is_none() {
            return;
        }
        let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &name]).unwrap();
        if matches!(location, Location::DockerArchive(..)) {
            continue;
        }
        assert_eq!(Digest::of(raw.as_bytes()), root.digest, "{location}");
        let copied: Location = out.parse().unwrap();
        assert_eq!(machine.source(&copied).resolve().await.unwrap().digest, root.digest);
    }
    for location in locations(machine.path(), server.as_ref(), "all") {
        if matches!(location, Location::Store(_) | Location::DockerArchive(..)) {
            continue;
        }
        machine.put(&memory, "many", &location).await.unwrap();
        let out = format!("oci:{}:x", machine.path().join("skopeo-all").display());
        let name = location.to_string();
        skopeo(&["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &name, &out]);
        let copied: Location = out.parse().unwrap();
        let resolved = machine.source(&copied).resolve().await.unwrap();
        assert_eq!(Some(resolved.digest), memory.named("many").map(|root| root.digest));
    }
}

async fn manifest(source: &dyn Source) -> image::Document<image::Manifest> {
    let root = source.resolve().await.unwrap();
    match node(source, &root).await.unwrap() {
        Node::Manifest(manifest) => manifest,
        Node::Index(_) => panic!("an index"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_skopeo_writes() {
    let Some(server) = Server::start() else { return };
    let machine = Machine::new();
    let memory = samples();
    let origin =
        Location::Layout(machine.path().join("origin"), ImageSelector::Name("v1".to_owned()));
    machine.put(&memory, "one", &origin).await.unwrap();
    let config = manifest(&*machine.source(&origin)).await.config.digest;
    // On its way to a registry skopeo compresses the layers.
    let pushed = Location::Registry(server.reference("pushed:v1"));
    let arguments = ["copy", "--dest-tls-verify=false", &origin.to_string(), &pushed.to_string()];
    if skopeo(&arguments).is_none() {
        return;
    }
    let path = |name: &str| machine.path().join(name);
    let cases = [
        (Location::Layout(path("s-oci"), ImageSelector::Name("v1".to_owned())), true),
        (Location::Layout(path("s-oci-unnamed"), ImageSelector::Only), true),
        (Location::OciArchive(path("s-oci.tar"), ImageSelector::Name("v1".to_owned())), true),
        (Location::Directory(path("s-dir")), true),
        (
            Location::DockerArchive(
                path("s.tar"),
                ImageSelector::Name("r.example/app:v1".to_owned()),
            ),
            false,
        ),
        (Location::DockerArchive(path("s-unnamed.tar"), ImageSelector::Only), false),
    ];
    for (at, (location, same)) in cases.iter().enumerate() {
        let name = location.to_string();
        skopeo(&["copy", "--src-tls-verify=false", &pushed.to_string(), &name]);
        let out = Location::Registry(server.reference(&format!("back{at}:v1")));
        machine.copy(location, &out).await.unwrap();
        let (before, after) =
            (manifest(&*machine.source(&pushed)).await, manifest(&*machine.source(&out)).await);
        assert_eq!(after.config.digest, config, "{location}");
        assert_eq!(before.digest() == after.digest(), *same, "{location}");
        // It is an image for skopeo and for us.
        skopeo(&["inspect", "--tls-verify=false", &out.to_string()]);
        let stored = Location::Store(format!("localhost/back{at}:v1"));
        machine.copy(location, &stored).await.unwrap();
        open(&*machine.source(&stored), &image::Platform::host()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_on_a_registry_mount_and_a_second_copy_asks_twice() {
    let Some(server) = Server::start() else { return };
    let client = client();
    let memory = samples();
    let first = Registry::new(&client, &server.reference("a:v1"));
    let task = Task::silent();
    copy(&memory.image("many"), &first, &Open, &all(), &task).await.unwrap();
    let (task, ended) = OutcomeRecorder::task();
    let second = Registry::new(&client, &server.reference("b:v1"));
    copy(&first, &second, &Open, &all(), &task).await.unwrap();
    // Three configs, three own layers, one shared: all mounted.
    assert_eq!(ended.count(Outcome::Reused), 7);
    let (task, ended) = OutcomeRecorder::task();
    copy(&first, &second, &Open, &all(), &task).await.unwrap();
    assert!(ended.0.lock().unwrap().is_empty());
    let mut tags = second.tags(None).await.unwrap();
    tags.sort_unstable();
    assert_eq!(tags, ["v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_found_by_their_subject_in_every_place() {
    let server = Server::start();
    let machine = Machine::new();
    let memory = samples();
    for location in locations(machine.path(), server.as_ref(), "x") {
        if matches!(
            location,
            Location::DockerArchive(..) | Location::Directory(_) | Location::OciArchive(..)
        ) {
            continue;
        }
        let root = machine.put(&memory, "one", &location).await.unwrap();
        let artifact = Artifact {
            artifact_type: "application/x-test".to_owned(),
            blobs: vec![(
                "text/plain".into(),
                bytes::Bytes::from_static(b"hello"),
                Default::default(),
            )],
            ..Artifact::default()
        };
        let (client, store) = (|| Ok(machine.client.clone()), || Ok(machine.store.clone()));
        let places = Places { client: &client, store: &store, machine: &crate::Machine::default() };
        let sink = places.sink(&location).unwrap();
        let attached = attach(&*sink, &root, &artifact, &Task::silent()).await.unwrap();
        let source = machine.source(&location);
        let found = source.referrers(&root).await.unwrap();
        assert_eq!(found.len(), 1, "{location}");
        assert_eq!(found[0].digest, attached.digest, "{location}");
        assert_eq!(found[0].artifact_type.as_deref(), Some("application/x-test"), "{location}");
        // The image is still the one that is named.
        assert_eq!(source.resolve().await.unwrap().digest, root.digest, "{location}");
        // Image and artifact travel together.
        let target =
            Location::Layout(machine.path().join("target"), ImageSelector::Name("t".to_owned()));
        let sink = places.sink(&target).unwrap();
        let options = CopyOptions { referrers: true, ..all() };
        copy(&*source, &*sink, &Open, &options, &Task::silent()).await.unwrap();
        assert_eq!(machine.source(&target).referrers(&root).await.unwrap().len(), 1);
        std::fs::remove_dir_all(machine.path().join("target")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_made_of_digests_travel_when_asked() {
    let Some(server) = Server::start() else { return };
    let machine = Machine::new();
    let memory = samples();
    let from = Registry::new(&machine.client, &server.reference("from:v1"));
    let task = Task::silent();
    let root = copy(&memory.image("one"), &from, &Open, &all(), &task).await.unwrap();
    let signature: image::Tag = format!("sha256-{}.sig", root.digest.hex()).parse().unwrap();
    let signed = Sink::sibling(&from, &signature).unwrap();
    let artifact =
        Artifact { artifact_type: "application/x-test".to_owned(), ..Default::default() };
    publish(&*signed, None, &artifact, &task).await.unwrap();
    let to = at::LayoutImage::new(&machine.path().join("to"), ImageSelector::Name("v1".to_owned()));
    copy(&from, &to, &Open, &all(), &task).await.unwrap();
    assert_eq!(to.names().await.unwrap(), ["v1"]);
    let options = CopyOptions { digest_tags: true, ..all() };
    copy(&from, &to, &Open, &options, &task).await.unwrap();
    assert_eq!(to.names().await.unwrap(), ["v1", signature.as_str()]);
    // Where there is only one name, the image is copied all the same.
    let single = at::Directory::new(&machine.path().join("single"));
    copy(&from, &single, &Open, &options, &task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_listed_and_deleted() {
    let server = Server::start();
    let machine = Machine::new();
    let memory = samples();
    let (client, store) = (|| Ok(machine.client.clone()), || Ok(machine.store.clone()));
    let places = Places { client: &client, store: &store, machine: &crate::Machine::default() };
    for location in locations(machine.path(), server.as_ref(), "x") {
        machine.put(&memory, "one", &location).await.unwrap();
        let names = places.names(&location, None).await;
        match &location {
            Location::Directory(_) => assert!(names.is_err()),
            Location::Store(name) => assert_eq!(names.unwrap(), std::slice::from_ref(name)),
            Location::DockerArchive(..) => assert_eq!(names.unwrap(), ["r.example/x:v1"]),
            _ => assert_eq!(names.unwrap(), ["v1"]),
        }
        match &location {
            Location::Layout(..) | Location::Store(_) => {
                places.delete(&location).await.unwrap();
                assert!(machine.source(&location).resolve().await.is_err());
                assert!(places.delete(&location).await.is_err());
            }
            Location::Registry(reference) => {
                let digest = machine.source(&location).resolve().await.unwrap().digest;
                let pinned = Location::Registry(reference.repository.pinned(digest));
                places.delete(&pinned).await.unwrap();
                assert!(machine.source(&location).resolve().await.is_err());
            }
            _ => assert!(places.delete(&location).await.is_err()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_unpack_while_they_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(&dir.path().join("store"));
    let memory = samples();
    let platform: image::Platform = "linux/arm64".parse().unwrap();
    let (task, ended) = OutcomeRecorder::task();
    let sink = |task: &Task| {
        let image = StoreImage::new(&store, Some("localhost/x:latest"));
        image.unpacked(platform.clone(), task.later("unpacking"))
    };
    let root = copy(&memory.image("many"), &sink(&task), &Open, &all(), &task).await.unwrap();
    let image = store.image(&root, &platform).unwrap();
    let top = image.chain_id().unwrap();
    assert!(store.has_snapshot(top.into()).unwrap());
    assert_eq!(ended.count(Outcome::Failed), 0);
    let other = store.image(&root, &"linux/s390x".parse().unwrap()).unwrap();
    assert!(!store.has_snapshot(other.chain_id().unwrap().into()).unwrap());
    let again = copy(&memory.image("many"), &sink(&task), &Open, &all(), &task).await.unwrap();
    assert_eq!(again, root);
    assert_eq!(ended.count(Outcome::Failed), 0);
    assert_eq!(ended.count(Outcome::Reused), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_share_an_archive() {
    let dir = tempfile::tempdir().unwrap();
    let memory = samples();
    for form in [Form::Oci, Form::Docker] {
        let path: PathBuf = dir.path().join(format!("{form:?}.tar"));
        let archive = at::Archive::create(&path, form).unwrap();
        let names = ["r.example/a:1", "r.example/b:2", "r.example/c:3"];
        let platforms = ["linux/amd64", "linux/arm64", "linux/amd64"];
        let mut roots = Vec::new();
        for (name, platform) in names.iter().zip(platforms) {
            let sink = archive.image(ImageSelector::Name((*name).to_owned()));
            let select = Select::One(platform.parse().unwrap());
            let options = CopyOptions { select, ..CopyOptions::default() };
            let image = memory.image("many");
            roots.push(copy(&image, &sink, &Open, &options, &Task::silent()).await.unwrap());
        }
        assert!(!path.exists());
        archive.finish().await.unwrap();
        let open = |named| at::ArchiveSource::new(&path, form, named);
        for (name, root) in names.iter().zip(&roots) {
            let source = open(ImageSelector::Name((*name).to_owned()));
            let resolved = source.resolve().await.unwrap();
            assert_eq!(resolved.digest, root.digest);
            read_all(&source, &resolved).await;
        }
        let missing: Cause = open(ImageSelector::Only).resolve().await.unwrap_err();
        assert!(missing.to_string().contains("name one"), "{missing}");
        assert_eq!(
            open(ImageSelector::Position(1)).resolve().await.unwrap().digest,
            roots[1].digest
        );
        if form == Form::Docker {
            let name = format!("docker-archive:{}:r.example/b:2", path.display());
            skopeo(&["inspect", &name]);
        }
    }
}
