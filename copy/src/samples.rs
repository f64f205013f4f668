//! Images to copy, for tests; `transport` includes this file, too.

#![allow(dead_code, reason = "each of both needs a part")]

use std::sync::{Arc, Mutex};

use image::{Config, Descriptor, Digest, Document, Index, Manifest, MediaType, Platform};
use task::{Event, Observer, Outcome, Task};

use crate::*;

/// A layer that is a tar stream with one file.
pub(crate) fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

/// Adds an image of these layers (plain tar streams).
pub(crate) fn add_image(memory: &Memory, platform: &str, layers: &[Vec<u8>]) -> Descriptor {
    let platform: Platform = platform.parse().unwrap();
    let mut config = Config {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..Config::default()
    };
    config.rootfs.diff_ids = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = Document::write(MediaType::OCI_CONFIG, config);
    memory.insert(MediaType::OCI_CONFIG, config.bytes().clone());
    let layers =
        layers.iter().map(|layer| memory.insert(MediaType::OCI_LAYER, layer.clone())).collect();
    let manifest = Manifest::new(MediaType::OCI_MANIFEST, config.descriptor().clone(), layers);
    let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
    let mut descriptor = memory.insert(MediaType::OCI_MANIFEST, manifest.bytes().clone());
    descriptor.platform = Some(platform);
    descriptor
}

/// A memory with `one` (an image of two layers) and `many` (an index of three platforms that
/// share a layer).
pub(crate) fn samples() -> Memory {
    let memory = Memory::new();
    let base = layer("base", &vec![7; 700_000]);
    let one = add_image(&memory, "linux/amd64", &[base.clone(), layer("a", b"alpha")]);
    let arm = add_image(&memory, "linux/arm64", &[base.clone(), layer("b", b"beta")]);
    let s390x = add_image(&memory, "linux/s390x", &[base, layer("c", b"gamma")]);
    memory.name("one", &one.bare());
    let index = Document::write(MediaType::OCI_INDEX, Index::new(vec![one, arm, s390x]));
    let many = memory.insert(MediaType::OCI_INDEX, index.bytes().clone());
    memory.name("many", &many);
    memory
}

pub(crate) fn all() -> CopyOptions {
    CopyOptions { select: Select::All, ..CopyOptions::default() }
}

pub(crate) async fn read_all(source: &dyn Source, root: &Descriptor) -> Vec<Digest> {
    let mut todo = vec![root.clone()];
    let mut seen = Vec::new();
    while let Some(next) = todo.pop() {
        let bytes = source.fetch(&next).await.unwrap().verify(&next);
        if next.media_type.is_node() {
            let node = image::Node::read(next.clone(), bytes.read().await.unwrap()).unwrap();
            todo.extend(node.children());
        } else {
            let mut bytes = bytes;
            while let Some(chunk) = futures::StreamExt::next(&mut bytes).await {
                chunk.unwrap();
            }
        }
        seen.push(next.digest);
    }
    seen.sort_unstable();
    seen.dedup();
    seen
}

/// An observer that remembers how tasks ended.
#[derive(Default)]
pub(crate) struct OutcomeRecorder(
    pub(crate) Mutex<Vec<(String, Outcome)>>,
    Mutex<Vec<(u64, String)>>,
);

impl Observer for OutcomeRecorder {
    fn event(&self, event: Event) {
        match event {
            Event::Started { id, name, .. } => self.1.lock().unwrap().push((id.0, name)),
            Event::Finished { id, outcome } => {
                let names = self.1.lock().unwrap();
                let name = names.iter().find(|(known, _)| *known == id.0).unwrap().1.clone();
                self.0.lock().unwrap().push((name, outcome));
            }
            _ => {}
        }
    }
}

impl OutcomeRecorder {
    pub(crate) fn task() -> (Task, Arc<OutcomeRecorder>) {
        let ended = Arc::new(OutcomeRecorder::default());
        (Task::root("copy", ended.clone()), ended)
    }

    pub(crate) fn count(&self, wanted: Outcome) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, outcome)| *outcome == wanted).count()
    }
}
