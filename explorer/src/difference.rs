//! What is different between two images: documents, layers, files.

use std::collections::BTreeMap;
use std::fmt::Write;

use image::Image;
use layers::{FileKind, Inode, Tree, TreeEntry};
use serde_json::{Map, Value, json};

/// What is different between two images.
#[derive(Debug)]
pub struct Difference<'a> {
    images: [&'a Image; 2],
    steps: [Steps; 2],
    config: BTreeMap<String, [Value; 2]>,
    files: Vec<Change>,
}

impl<'a> Difference<'a> {
    /// Compares the documents, and the files if their `trees` are given. With `times`, files that
    /// differ only in when they were modified are different, too.
    pub fn new(a: &'a Image, b: &'a Image, trees: Option<(&Tree, &Tree)>, times: bool) -> Self {
        Difference {
            images: [a, b],
            steps: [Steps::new(a), Steps::new(b)],
            config: documents(a, b),
            files: trees.map(|(a, b)| changes(a, b, times)).unwrap_or_default(),
        }
    }

    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        let [a, b] = self.images;
        !self.config.is_empty()
            || !self.files.is_empty()
            || a.descriptor().digest != b.descriptor().digest
    }
}

/// One file that is not the same.
#[derive(Debug)]
struct Change {
    path: Vec<u8>,
    /// What each image has at the path, and the layer that it comes from.
    sides: [Option<(Inode, usize)>; 2],
    /// What differs.
    what: Vec<&'static str>,
}

impl Change {
    fn word(&self) -> &'static str {
        match &self.sides {
            [None, _] => "added",
            [_, None] => "removed",
            _ => "changed",
        }
    }

    /// The side that the step is asked for: the newer one where there is one.
    fn shown(&self) -> (usize, &(Inode, usize)) {
        let side = usize::from(self.sides[1].is_some());
        (side, self.sides[side].as_ref().expect("a change has a side"))
    }
}

fn changes(a: &Tree, b: &Tree, times: bool) -> Vec<Change> {
    let mut all: BTreeMap<&[u8], [Option<TreeEntry<'_>>; 2]> = BTreeMap::new();
    for named in a.iter() {
        all.entry(named.path).or_default()[0] = Some(named);
    }
    for named in b.iter() {
        all.entry(named.path).or_default()[1] = Some(named);
    }
    let mut changes = Vec::new();
    for (path, sides) in all {
        let what = match &sides {
            [Some(a), Some(b)] => different(a.inode, b.inode, times),
            _ => vec!["existence"],
        };
        if !what.is_empty() {
            let sides = sides.map(|side| side.map(|named| (named.inode.clone(), named.layer)));
            changes.push(Change { path: path.to_vec(), sides, what });
        }
    }
    changes
}

fn different(a: &Inode, b: &Inode, times: bool) -> Vec<&'static str> {
    let sorted = |inode: &Inode| {
        let mut xattrs = inode.xattrs.clone();
        xattrs.sort();
        xattrs
    };
    let found = [
        ("kind", a.kind != b.kind),
        ("content", a.kind == b.kind && (a.digest != b.digest || a.size != b.size)),
        ("target", a.kind == b.kind && a.link != b.link),
        ("device", a.kind == b.kind && a.device != b.device),
        ("mode", a.mode != b.mode && a.kind != FileKind::Symlink),
        ("owner", (a.uid, a.gid) != (b.uid, b.gid)),
        ("xattrs", sorted(a) != sorted(b)),
        ("time", times && a.mtime != b.mtime),
    ];
    found.into_iter().filter(|(_, differs)| *differs).map(|(word, _)| word).collect()
}

/// What steps made the layers of an image.
#[derive(Debug)]
struct Steps(Vec<Option<String>>);

impl Steps {
    fn new(image: &Image) -> Steps {
        let history = &image.config().history;
        let step = |at: Option<usize>| history[at?].created_by.clone();
        Steps(image::steps(image.config()).into_iter().map(step).collect())
    }

    fn of(&self, layer: usize) -> Option<&str> {
        self.0.get(layer)?.as_deref()
    }
}

/// Differences of the documents by key: manifest annotations and everything in the config but
/// history and layers.
fn documents(a: &Image, b: &Image) -> BTreeMap<String, [Value; 2]> {
    let mut found = BTreeMap::new();
    // That it is an object was seen when it was read.
    let value = |image: &Image| {
        let mut config: Map<String, Value> =
            serde_json::from_slice(image.config().bytes()).unwrap_or_default();
        config.remove("history");
        config.remove("rootfs");
        Value::Object(config)
    };
    flatten("", &value(a), &value(b), &mut found);
    let annotations = |image: &Image| json!(image.manifest().annotations);
    flatten("annotations", &annotations(a), &annotations(b), &mut found);
    found
}

fn flatten(key: &str, a: &Value, b: &Value, found: &mut BTreeMap<String, [Value; 2]>) {
    if a == b {
        return;
    }
    let empty = Map::new();
    let (one, other) = match (a, b) {
        (Value::Object(a), Value::Object(b)) => (a, b),
        (Value::Object(a), Value::Null) => (a, &empty),
        (Value::Null, Value::Object(b)) => (&empty, b),
        _ => {
            found.insert(key.to_owned(), [a.clone(), b.clone()]);
            return;
        }
    };
    let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
    keys.sort();
    keys.dedup();
    for name in keys {
        let whole = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        let get = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
        flatten(&whole, &get(one), &get(other), found);
    }
}

fn shared_layers(a: &Image, b: &Image) -> usize {
    let (a, b) = (&a.config().rootfs.diff_ids, &b.config().rootfs.diff_ids);
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn name(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

impl Difference<'_> {
    /// The difference as JSON.
    pub fn json(&self) -> Value {
        let files = self.files.iter().map(|change| {
            json!({
                "path": name(&change.path), "change": change.word(), "what": change.what,
                "a": change.sides[0].as_ref().map(|side| self.inode(0, side)),
                "b": change.sides[1].as_ref().map(|side| self.inode(1, side)),
            })
        });
        let config = self.config.iter().map(|(key, [a, b])| json!({"key": key, "a": a, "b": b}));
        let [a, b] = self.images;
        json!({
            "a": self.image(0), "b": self.image(1), "sharedLayers": shared_layers(a, b),
            "config": config.collect::<Vec<_>>(), "files": files.collect::<Vec<_>>(),
        })
    }

    fn inode(&self, side: usize, (inode, layer): &(Inode, usize)) -> Value {
        let link = inode.kind == FileKind::Symlink;
        json!({
            "kind": inode.kind.as_str(), "mode": format!("{:04o}", inode.mode), "uid": inode.uid,
            "gid": inode.gid, "size": inode.size, "digest": inode.digest,
            "target": link.then(|| String::from_utf8_lossy(&inode.link)),
            "modified": inode.mtime.0, "layer": layer, "step": self.steps[side].of(*layer),
        })
    }

    fn image(&self, side: usize) -> Value {
        let layers = self.images[side].layers().enumerate().map(|(at, layer)| {
            json!({"digest": layer.descriptor.digest, "diffID": layer.diff_id,
                "size": layer.descriptor.size, "step": self.steps[side].of(at)})
        });
        let digest = self.images[side].descriptor().digest;
        json!({"digest": digest, "layers": layers.collect::<Vec<_>>()})
    }

    /// The difference as lines of text: `+` for what the second image adds, `-` for what it
    /// removes, `~` for what it changes.
    pub fn text(&self) -> String {
        let [a, b] = self.images;
        let mut out = String::new();
        let _ = writeln!(out, "--- {} {} layers", a.descriptor().digest, a.layers().len());
        let _ = writeln!(out, "+++ {} {} layers", b.descriptor().digest, b.layers().len());
        let _ = writeln!(out, "{} layers are the same", shared_layers(a, b));
        for (key, [a, b]) in &self.config {
            let _ = writeln!(out, "config {key}: {a} -> {b}");
        }
        let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for change in &self.files {
            let (_, (inode, _)) = change.shown();
            let total = totals.entry(change.word()).or_default();
            (total.0, total.1) = (total.0 + 1, total.1 + inode.size);
            out.push_str(&self.line(change));
        }
        for (word, (count, bytes)) in totals {
            let _ = writeln!(out, "{word}: {count} files, {bytes} bytes");
        }
        out
    }

    fn line(&self, change: &Change) -> String {
        let (side, (inode, layer)) = change.shown();
        let (sign, what) = match change.word() {
            "added" => ('+', String::new()),
            "removed" => ('-', String::new()),
            _ => ('~', format!(" ({})", told(change))),
        };
        let step = self.steps[side].of(*layer).unwrap_or("unknown step");
        let step: String = step.chars().take(80).collect();
        format!(
            "{sign} {:04o} {}:{} {:>10} {}{what}  [layer {layer}: {}]\n",
            inode.mode,
            inode.uid,
            inode.gid,
            inode.size,
            name(&change.path),
            step.replace(['\n', '\t'], " ")
        )
    }
}

/// What is different about a file, with both values where they are short.
fn told(change: &Change) -> String {
    let [Some((a, _)), Some((b, _))] = &change.sides else { return String::new() };
    let one = |what: &&str| match *what {
        "mode" => format!("mode {:04o} -> {:04o}", a.mode, b.mode),
        "owner" => format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid),
        "kind" => format!("{} -> {}", a.kind.as_str(), b.kind.as_str()),
        "content" if a.size != b.size => format!("content, {} -> {} bytes", a.size, b.size),
        other => other.to_owned(),
    };
    change.what.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_compared_by_key() {
        let mut found = BTreeMap::new();
        let (a, b) = (json!({"a": {"b": 1}, "c": 2}), json!({"a": {"b": 3}, "d": {"e": 4}}));
        flatten("", &a, &b, &mut found);
        let keys: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(keys, ["a.b", "c", "d.e"]);
        assert_eq!(found["d.e"], [Value::Null, json!(4)]);
    }
}
