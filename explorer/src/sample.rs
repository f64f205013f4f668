//! An image for tests.

use image::Digest;
use layers::{EntryKind, LayerEntry};
use serde_json::json;

use crate::explored_image::{ExploredImage, LayerView};
use crate::tree::Tree;

pub(crate) fn entry(path: &str, kind: EntryKind, size: u64) -> LayerEntry {
    LayerEntry {
        path: path.as_bytes().to_vec(),
        kind,
        link: Vec::new(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        size,
        sparse: false,
        mtime: (0, 0),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

/// Two layers: the second changes one file and removes another.
pub(crate) fn sample() -> ExploredImage {
    let mut tree = Tree::default();
    let layers: [&[LayerEntry]; 2] = [
        &[
            entry("bin/tool", EntryKind::File, 100),
            entry("etc/conf", EntryKind::File, 2000),
            entry("etc/gone", EntryKind::File, 5000),
        ],
        &[entry("etc/conf", EntryKind::File, 3000), entry("etc/gone", EntryKind::Whiteout, 0)],
    ];
    let mut views = Vec::new();
    for (number, (entries, step)) in layers.iter().zip(["COPY . /", "RUN rm gone"]).enumerate() {
        for entry in *entries {
            tree.take(number, entry.clone()).unwrap();
        }
        let digest = Digest::of(step.as_bytes());
        let files = entries.iter().map(|entry| entry.size).sum();
        let (size, count, step) = (7, entries.len(), format!("/bin/sh -c {step}"));
        views.push(LayerView { digest, diff_id: digest, size, files, entries: count, step });
    }
    ExploredImage {
        name: "store:sample".into(),
        digest: Digest::of(b""),
        platform: "linux/amd64".into(),
        config: json!({}),
        layers: views,
        tree,
    }
}
