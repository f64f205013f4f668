//! Copies between places in memory that misbehave.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use image::{Descriptor, Digest, Document, Index, Manifest, MediaType, Node, Platform};
use task::{Cause, Fault, Kind, Outcome, Task};

use crate::samples::{OutcomeRecorder, add_image, all, layer, samples};
use crate::*;

/// A place in memory that records requests and fails on demand.
struct Probe {
    inner: MemoryImage,
    calls: Mutex<Vec<(&'static str, Digest)>>,
    /// Blobs whose stream breaks off this many times.
    flaky: Mutex<Vec<(Digest, u32)>>,
    /// Blobs that come with one bit wrong.
    corrupt: BTreeSet<Digest>,
    /// Blobs whose stream never ends.
    endless: BTreeSet<Digest>,
    links: bool,
    rejections: AtomicU32,
    origin: Origin,
}

impl Probe {
    fn new(inner: MemoryImage) -> Probe {
        Probe {
            inner,
            calls: Mutex::default(),
            flaky: Mutex::default(),
            corrupt: BTreeSet::new(),
            endless: BTreeSet::new(),
            links: false,
            rejections: AtomicU32::new(0),
            origin: Origin::Elsewhere,
        }
    }

    fn note(&self, call: &'static str, digest: Digest) {
        self.calls.lock().unwrap().push((call, digest));
    }

    fn calls(&self, call: &str) -> Vec<Digest> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(name, _)| *name == call).map(|(_, digest)| *digest).collect()
    }

    fn reject(&self, digest: Digest) -> Result<(), Cause> {
        let more = self.rejections.load(Ordering::SeqCst);
        if more == 0 {
            return Ok(());
        }
        self.rejections.store(more - 1, Ordering::SeqCst);
        Err(Error::NoContent { digest, place: "here".to_owned() }.into())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the wire was cut")]
struct Cut;

impl Fault for Cut {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

#[async_trait]
impl Source for Probe {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        let root = Source::resolve(&self.inner).await?;
        self.note("resolve", root.digest);
        Ok(root)
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        self.note("fetch", descriptor.digest);
        let Some(bytes) = self.inner.memory().get(descriptor.digest) else {
            return self.inner.fetch(descriptor).await;
        };
        if self.endless.contains(&descriptor.digest) {
            return Ok(Unverified::new(stream::pending()));
        }
        if self.corrupt.contains(&descriptor.digest) {
            let mut bytes = bytes.to_vec();
            bytes[0] ^= 1;
            return Ok(Unverified::whole(bytes));
        }
        let mut flaky = self.flaky.lock().unwrap();
        if let Some((_, left)) =
            flaky.iter_mut().find(|(d, left)| *d == descriptor.digest && *left > 0)
        {
            *left -= 1;
            let half = bytes.slice(..bytes.len() / 2);
            return Ok(Unverified::new(stream::iter([Ok(half), Err(Cut.into())])));
        }
        Ok(Unverified::whole(bytes))
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        self.inner.referrers(subject).await
    }

    fn origin(&self) -> Origin {
        self.origin.clone()
    }
}

#[async_trait]
impl Sink for Probe {
    async fn current(&self) -> Result<Option<Descriptor>, Cause> {
        self.inner.current().await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        self.note("contains", descriptor.digest);
        self.inner.contains(descriptor).await
    }

    async fn link(&self, descriptor: &Descriptor, _origin: &Origin) -> Result<bool, Cause> {
        self.note("link", descriptor.digest);
        Ok(self.links)
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        if descriptor.media_type.is_node() {
            self.reject(descriptor.digest)?;
        }
        self.inner.put(descriptor, blob).await?;
        self.note("put", descriptor.digest);
        Ok(())
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, task: &Task) -> Result<(), Cause> {
        self.reject(root.digest)?;
        self.inner.publish(root, document, task).await?;
        self.note("publish", root.digest);
        Ok(())
    }

    async fn refer(
        &self,
        subject: &Descriptor,
        referrer: &Descriptor,
        document: Bytes,
        task: &Task,
    ) -> Result<(), Cause> {
        self.note("refer", referrer.digest);
        self.inner.refer(subject, referrer, document, task).await
    }
}

fn sink() -> Probe {
    Probe::new(Memory::new().image("x"))
}

fn source(name: &str) -> (Memory, Probe) {
    let memory = samples();
    let probe = Probe::new(memory.image(name));
    (memory, probe)
}

fn children(memory: &Memory, root: &Descriptor) -> Vec<Descriptor> {
    Node::read(root.clone(), memory.get(root.digest).unwrap()).unwrap().children()
}

async fn run(from: &Probe, to: &Probe, options: &CopyOptions) -> Result<Descriptor> {
    copy(from, to, &Open, options, &Task::silent()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn children_come_before_parents_each_once_and_the_name_last() {
    let (memory, from) = source("many");
    let to = sink();
    let root = run(&from, &to, &all()).await.unwrap();
    let puts = to.calls("put");
    let place = |digest: Digest| puts.iter().position(|put| *put == digest).unwrap();
    for manifest in children(&memory, &root) {
        for blob in children(&memory, &manifest) {
            assert!(place(blob.digest) < place(manifest.digest));
        }
    }
    let unique: BTreeSet<_> = puts.iter().collect();
    assert_eq!(unique.len(), puts.len());
    // Three configs, three own layers, one shared, three manifests.
    assert_eq!(puts.len(), 10);
    assert_eq!(to.calls.lock().unwrap().last(), Some(&("publish", root.digest)));
    assert_eq!(from.calls("fetch").len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_sent_again() {
    let (memory, from) = source("many");
    let to = sink();
    let root = run(&from, &to, &all()).await.unwrap();
    to.calls.lock().unwrap().clear();
    from.calls.lock().unwrap().clear();
    // The name is right: nothing but two questions.
    run(&from, &to, &all()).await.unwrap();
    assert!(to.calls.lock().unwrap().is_empty());
    assert_eq!(from.calls.lock().unwrap().as_slice(), [("resolve", root.digest)]);
    // Another name: one existence check and a publish.
    let other = Probe::new(to.inner.memory().image("y"));
    run(&from, &other, &all()).await.unwrap();
    let calls = other.calls.lock().unwrap().clone();
    assert_eq!(calls, [("contains", root.digest), ("publish", root.digest)]);
    // A manifest is missing: only what is below it is looked at.
    let gone = children(&memory, &root)[1].clone();
    to.inner.memory().remove(root.digest);
    to.inner.memory().remove(gone.digest);
    let (task, ended) = OutcomeRecorder::task();
    let third = Probe::new(to.inner.memory().image("z"));
    copy(&from, &third, &Open, &all(), &task).await.unwrap();
    assert_eq!(third.calls("put"), [gone.digest]);
    assert_eq!(ended.count(Outcome::Reused), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_link_and_nothing_is_read() {
    let (memory, mut from) = source("one");
    from.origin = Origin::Blobs("/somewhere".into());
    let mut to = sink();
    to.links = true;
    let (task, ended) = OutcomeRecorder::task();
    let root = copy(&from, &to, &Open, &all(), &task).await.unwrap();
    assert_eq!(from.calls("fetch"), [root.digest]);
    assert_eq!(to.calls("link").len(), children(&memory, &root).len());
    assert_eq!(ended.count(Outcome::Reused), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_fetched_again_so_many_times() {
    let (memory, from) = source("one");
    let root = memory.named("one").unwrap();
    let victim = children(&memory, &root)[1].digest;
    from.flaky.lock().unwrap().push((victim, 2));
    let to = sink();
    run(&from, &to, &all()).await.unwrap();
    assert_eq!(from.calls("fetch").iter().filter(|d| **d == victim).count(), 3);
    from.flaky.lock().unwrap().push((victim, 3));
    let to = sink();
    let error = run(&from, &to, &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let chain = task::chain(&error);
    assert_eq!(chain, [&format!("reading layer {victim} at the source"), "the wire was cut"]);
    assert!(to.calls("publish").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn corruption_never_becomes_content_and_the_source_is_named() {
    let (memory, mut from) = source("many");
    let root = memory.named("many").unwrap();
    for victim in from.inner.memory().digests() {
        from.corrupt = BTreeSet::from([victim]);
        let to = sink();
        let error = run(&from, &to, &all()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(task::chain(&error)[0].ends_with("at the source"), "{error}");
        assert!(!to.inner.memory().digests().contains(&victim));
        assert_eq!(to.inner.memory().named("x"), None);
    }
    assert!(memory.get(root.digest).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_destination_gets_the_content_again_once() {
    let (memory, from) = source("one");
    let root = memory.named("one").unwrap();
    let to = sink();
    to.rejections.store(1, Ordering::SeqCst);
    run(&from, &to, &all()).await.unwrap();
    let count = |to: &Probe| to.calls("put").len();
    assert_eq!(count(&to), 6);
    let to = sink();
    to.rejections.store(2, Ordering::SeqCst);
    let error = run(&from, &to, &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(count(&to), 6);
    // It has the manifest but not what is below, and notices only when asked to name it.
    let to = sink();
    to.inner.memory().insert(MediaType::OCI_MANIFEST, memory.get(root.digest).unwrap());
    to.rejections.store(1, Ordering::SeqCst);
    run(&from, &to, &all()).await.unwrap();
    assert_eq!(count(&to), 3);
}

struct Never;

#[async_trait]
impl Gate for Never {
    async fn check(
        &self,
        _source: &dyn Source,
        root: &Descriptor,
        _task: &Task,
    ) -> Result<(), Cause> {
        Err(Error::Unsupported { action: root.digest.to_string(), place: String::new() }.into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_gate_moves_no_byte() {
    for options in [all(), CopyOptions { referrers: true, ..all() }, CopyOptions::default()] {
        let (_, from) = source("many");
        let to = sink();
        let error = copy(&from, &to, &Never, &options, &Task::silent()).await.unwrap_err();
        assert!(matches!(error, Error::Gate { .. }));
        assert_eq!(error.kind(), Kind::Refused);
        assert!(to.calls.lock().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_a_copy_that_waits() {
    let (memory, mut from) = source("one");
    let root = memory.named("one").unwrap();
    from.endless = BTreeSet::from([children(&memory, &root)[1].digest]);
    let to = sink();
    let (task, ended) = OutcomeRecorder::task();
    let canceller = task.canceller();
    let watcher = async {
        while !from.calls("fetch").contains(from.endless.first().unwrap()) {
            tokio::task::yield_now().await;
        }
        canceller.cancel();
    };
    let options = all();
    let (copied, ()) = futures::join!(copy(&from, &to, &Open, &options, &task), watcher);
    assert_eq!(copied.unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(to.inner.memory().named("x"), None);
    assert!(ended.count(Outcome::Cancelled) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_stops_the_siblings_and_is_the_one_reported() {
    let (memory, mut from) = source("one");
    let root = memory.named("one").unwrap();
    let blobs = children(&memory, &root);
    from.endless = BTreeSet::from([blobs[1].digest]);
    from.corrupt = BTreeSet::from([blobs[2].digest]);
    let to = sink();
    let error = run(&from, &to, &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_are_selected() {
    let (memory, from) = source("many");
    let root = memory.named("many").unwrap();
    let images = children(&memory, &root);
    let platform = |text: &str| text.parse::<Platform>().unwrap();
    let with = |select| CopyOptions { select, ..CopyOptions::default() };

    let to = sink();
    let one = run(&from, &to, &with(Select::One(platform("linux/arm64")))).await.unwrap();
    assert_eq!(one.digest, images[1].digest);
    assert_eq!(to.inner.memory().digests().len(), 4);

    let to = sink();
    let list = vec![platform("linux/s390x"), platform("linux/amd64")];
    let some = run(&from, &to, &with(Select::List(list.clone()))).await.unwrap();
    let kept = children(to.inner.memory(), &some);
    assert_eq!(kept, [images[0].clone(), images[2].clone()]);
    let strict = CopyOptions { preserve_digests: true, ..with(Select::List(list)) };
    let error = run(&from, &sink(), &strict).await.unwrap_err();
    assert!(matches!(error, Error::WouldChange { .. }));

    let to = sink();
    run(&from, &to, &with(Select::IndexOnly)).await.unwrap();
    assert_eq!(to.inner.memory().digests(), [root.digest]);

    let error = run(&from, &sink(), &with(Select::One(platform("linux/riscv64")))).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("linux/riscv64") && text.contains("linux/s390x"), "{text}");

    // A single image is copied whatever the platform asked for.
    let single = Probe::new(memory.image("one"));
    run(&single, &sink(), &with(Select::One(platform("linux/riscv64")))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_are_converted_and_back_and_layers_are_untouched() {
    let (memory, from) = source("many");
    let root = memory.named("many").unwrap();
    let to = sink();
    let docker = CopyOptions { format: Some(Format::Docker), ..all() };
    let made = run(&from, &to, &docker).await.unwrap();
    assert_eq!(made.media_type, MediaType::DOCKER_INDEX);
    let manifests = children(to.inner.memory(), &made);
    assert!(manifests.iter().all(|m| m.media_type == MediaType::DOCKER_MANIFEST));
    assert_eq!(manifests[1].platform, children(&memory, &root)[1].platform);
    for (docker, oci) in manifests.iter().zip(children(&memory, &root)) {
        let (docker, oci) = (children(to.inner.memory(), docker), children(&memory, &oci));
        let types: Vec<_> = docker.iter().map(|blob| blob.media_type.clone()).collect();
        use MediaType as M;
        assert_eq!(types, [M::DOCKER_CONFIG, M::DOCKER_LAYER, M::DOCKER_LAYER]);
        assert!(docker.iter().zip(oci).all(|(a, b)| a.digest == b.digest));
    }
    let back = sink();
    let oci = CopyOptions { format: Some(Format::Oci), ..all() };
    let again = run(&Probe::new(to.inner.clone()), &back, &oci).await.unwrap();
    assert_eq!(again.digest, root.digest);
    let strict = CopyOptions { preserve_digests: true, ..docker };
    assert!(matches!(run(&from, &sink(), &strict).await, Err(Error::WouldChange { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_travel_when_asked() {
    let (memory, from) = source("one");
    let root = memory.named("one").unwrap();
    let artifact = Artifact {
        artifact_type: "application/x-test".to_owned(),
        blobs: vec![("text/plain".into(), Bytes::from_static(b"signed"), Default::default())],
        ..Artifact::default()
    };
    let task = Task::silent();
    let signature = attach(&from, &root, &artifact, &task).await.unwrap();
    let second = attach(&from, &signature, &artifact, &task).await.unwrap();
    assert_eq!(from.referrers(&root).await.unwrap(), std::slice::from_ref(&signature));
    let to = sink();
    run(&from, &to, &all()).await.unwrap();
    assert!(to.referrers(&root).await.unwrap().is_empty());
    run(&from, &to, &CopyOptions { referrers: true, ..all() }).await.unwrap();
    assert_eq!(to.referrers(&root).await.unwrap()[0].digest, signature.digest);
    assert_eq!(to.referrers(&signature).await.unwrap()[0].digest, second.digest);
    // The name comes last, and not again where it is there already.
    let fresh = sink();
    run(&from, &fresh, &CopyOptions { referrers: true, ..all() }).await.unwrap();
    assert_eq!(fresh.calls.lock().unwrap().last(), Some(&("publish", root.digest)));
    let published = |probe: &Probe| {
        let calls = probe.calls.lock().unwrap();
        calls.iter().filter(|call| **call == ("publish", root.digest)).count()
    };
    assert_eq!((published(&to), published(&fresh)), (1, 1));
}

fn manifest_of(memory: &Memory, config: Descriptor, layers: Vec<Descriptor>) -> Descriptor {
    let manifest = Manifest::new(MediaType::OCI_MANIFEST, config, layers);
    let bytes = Document::write(MediaType::OCI_MANIFEST, manifest).bytes().clone();
    memory.insert(MediaType::OCI_MANIFEST, bytes)
}

fn index_of(memory: &Memory, children: Vec<Descriptor>) -> Descriptor {
    let bytes = Document::write(MediaType::OCI_INDEX, Index::new(children)).bytes().clone();
    memory.insert(MediaType::OCI_INDEX, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_documents_are_refused() {
    let memory = Memory::new();
    let blob = memory.insert(MediaType::OCI_CONFIG, &b"{}"[..]);
    let good = manifest_of(&memory, blob.clone(), vec![]);
    let mut deep = good.clone();
    for _ in 0..6 {
        deep = index_of(&memory, vec![deep]);
    }
    let mut chain = vec![good.clone()];
    for _ in 0..20 {
        let next = index_of(&memory, chain.clone());
        chain.push(next);
    }
    let longer = Descriptor { size: blob.size + 1, ..blob.clone() };
    let twice = manifest_of(&memory, blob.clone(), vec![longer.clone()]);
    let giant = memory.insert(MediaType::OCI_MANIFEST, vec![b' '; 5 << 20]);
    let cases = [
        ("too deep", deep),
        ("deep through a shared child", index_of(&memory, chain)),
        ("wrong config size", manifest_of(&memory, longer, vec![])),
        ("one blob of two sizes", twice),
        ("giant document", giant.clone()),
        ("giant child", index_of(&memory, vec![giant])),
        ("truncated document", Descriptor { size: good.size - 1, ..good.clone() }),
        ("not json", memory.insert(MediaType::OCI_MANIFEST, &b"{"[..])),
        ("a layer as root", memory.insert(MediaType::OCI_LAYER, &b"x"[..])),
        ("schema 1", memory.insert(MediaType::DOCKER_V1_SIGNED, &b"{}"[..])),
        ("manifest called index", Descriptor { media_type: MediaType::OCI_INDEX, ..good.clone() }),
        ("missing child", index_of(&memory, vec![Descriptor::of(MediaType::OCI_MANIFEST, b"?")])),
    ];
    for (what, root) in cases {
        memory.name("bad", &root);
        let to = sink();
        let result = run(&Probe::new(memory.image("bad")), &to, &all()).await;
        assert!(result.is_err(), "{what}");
        assert_eq!(to.inner.memory().named("x"), None, "{what}");
    }
    memory.name("good", &index_of(&memory, vec![good]));
    run(&Probe::new(memory.image("good")), &sink(), &all()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_are_ignored_and_layers_kept_elsewhere_may_stay_there() {
    let memory = Memory::new();
    let config = memory.insert(MediaType::OCI_CONFIG, &b"{}"[..]);
    let mut away = Descriptor::of(
        "application/vnd.oci.image.layer.nondistributable.v1.tar".into(),
        b"licensed",
    );
    away.urls = vec!["http://127.0.0.1:1/layer".to_owned()];
    memory.name("foreign", &manifest_of(&memory, config.clone(), vec![away]));
    run(&Probe::new(memory.image("foreign")), &sink(), &all()).await.unwrap();
    let mut own = Descriptor::of(MediaType::OCI_LAYER, b"gone");
    own.urls = vec!["http://127.0.0.1:1/layer".to_owned()];
    memory.name("own", &manifest_of(&memory, config, vec![own]));
    let error = run(&Probe::new(memory.image("own")), &sink(), &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_reads_documents_only_and_knows_all_sizes() {
    let (memory, from) = source("many");
    let plan = Plan::new(&from, &all(), &Task::silent()).await.unwrap();
    let content = memory.digests();
    let total: usize = content.iter().map(|digest| memory.get(*digest).unwrap().len()).sum();
    assert_eq!(plan.size(), total as u64);
    assert_eq!(from.calls("fetch").len(), 4);
    let to = sink();
    let task = Task::silent();
    plan.execute(&from, &to, &Open, &all(), &task).await.unwrap();
    assert_eq!(to.inner.memory().digests(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_gives_the_image_for_a_platform() {
    let (memory, from) = source("many");
    let arm = "linux/arm64".parse().unwrap();
    let (named, image) = open(&from, &arm).await.unwrap();
    assert_eq!(Some(named), memory.named("many"));
    assert_eq!(image.platform(), arm);
    assert_eq!(from.calls("fetch").len(), 3);
    let other = add_image(&memory, "linux/amd64", &[layer("x", b"y")]);
    memory.name("other", &other);
    let (_, image) = open(&Probe::new(memory.image("other")), &arm).await.unwrap();
    assert_eq!(image.platform(), "linux/amd64".parse().unwrap());
    let mut blob = from.fetch(&other).await.unwrap().verify(&other);
    assert!(blob.next().await.unwrap().is_ok());
}
