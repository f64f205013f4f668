//! `rcopy diff`: what is different between two images, down to files.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use image::{Image, Platform};
use layers::{FileKind, Inode, Named, Tree};
use serde_json::{Map, Value, json};
use transport::{Source, Trees};

use super::copy::OneEnd;
use super::place::{self, Access};
use crate::app::{App, observed};
use crate::render::Progress;
use crate::report::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Show the differences between two images: config, layers, files
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The first image: a name on a registry, or transport:…
    a: String,
    /// The second image
    b: String,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print the result in this format
    #[arg(long, value_enum, default_value = "text")]
    format: Output,
    /// Compare modification times too
    #[arg(long)]
    times: bool,
    /// Compare the documents only, not the layers
    #[arg(long)]
    no_files: bool,
    /// Exit with 1 if the images differ, as diff does
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Diff {
    /// Compares.
    ///
    /// # Errors
    /// An image is not there; a layer is broken.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let (at_a, at_b) =
            (place::location(&self.a, "docker://")?, place::location(&self.b, "docker://")?);
        let platform = self.platform.clone().unwrap_or_else(|| app.settings.platform());
        let (a, b, files) = observed("diff", Progress::Auto, |task| {
            let open = |at| -> Result<(Box<dyn Source>, Image), Failure> {
                let source = Access::new(app, self.end.reach_at(at)?).source(at)?;
                let (_, image) = app.wait(transport::open(&*source, &platform))??;
                Ok((source, image))
            };
            let (a, b) = (open(&at_a)?, open(&at_b)?);
            let same = a.1.config().rootfs.diff_ids == b.1.config().rootfs.diff_ids;
            let files = match self.no_files || same {
                true => Vec::new(),
                false => {
                    let trees = Trees { digests: true };
                    let both = trees.of_both((&*a.0, &a.1), (&*b.0, &b.1), task);
                    let (one, other) = app.wait(both)??;
                    changes(&one, &other, self.times)
                }
            };
            Ok((a.1, b.1, files))
        })?;
        let config = documents(&a, &b)?;
        let different = !config.is_empty()
            || !files.is_empty()
            || a.descriptor().digest != b.descriptor().digest;
        let steps = [Steps::new(&a), Steps::new(&b)];
        match self.format {
            Output::Json => outln!("{:#}", as_json(&a, &b, &config, &files, &steps)),
            Output::Text => as_text(&a, &b, &config, &files, &steps),
        }
        Ok(u8::from(self.exit_code && different))
    }
}

/// One file that is not the same.
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
    let mut all: BTreeMap<&[u8], [Option<Named<'_>>; 2]> = BTreeMap::new();
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
fn documents(a: &Image, b: &Image) -> Result<BTreeMap<String, [Value; 2]>, Failure> {
    let mut found = BTreeMap::new();
    let value = |image: &Image| -> Result<Map<String, Value>, Failure> {
        let read = serde_json::from_slice(image.config().bytes());
        let mut config: Map<String, Value> = read.map_err(|error| {
            Failure::new(task::Kind::Invalid, format!("reading config {}: {error}", image.id()))
        })?;
        config.remove("history");
        config.remove("rootfs");
        Ok(config)
    };
    flatten("", &Value::Object(value(a)?), &Value::Object(value(b)?), &mut found);
    let annotations = |image: &Image| json!(image.manifest().annotations);
    flatten("annotations", &annotations(a), &annotations(b), &mut found);
    Ok(found)
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

fn as_json(
    a: &Image,
    b: &Image,
    config: &BTreeMap<String, [Value; 2]>,
    files: &[Change],
    steps: &[Steps; 2],
) -> Value {
    let inode = |side: usize, found: &(Inode, usize)| {
        let (inode, layer) = found;
        json!({
            "kind": inode.kind.as_str(), "mode": format!("{:04o}", inode.mode), "uid": inode.uid,
            "gid": inode.gid, "size": inode.size, "digest": inode.digest,
            "target": (inode.kind == FileKind::Symlink).then(|| String::from_utf8_lossy(&inode.link)),
            "modified": inode.mtime.0, "layer": layer, "step": steps[side].of(*layer),
        })
    };
    let files = files.iter().map(|change| {
        json!({
            "path": name(&change.path), "change": change.word(), "what": change.what,
            "a": change.sides[0].as_ref().map(|side| inode(0, side)),
            "b": change.sides[1].as_ref().map(|side| inode(1, side)),
        })
    });
    let config = config.iter().map(|(key, [a, b])| json!({"key": key, "a": a, "b": b}));
    let image = |image: &Image, steps: &Steps| {
        let layers = image.layers().enumerate().map(|(at, layer)| {
            json!({"digest": layer.descriptor.digest, "diffID": layer.diff_id,
                "size": layer.descriptor.size, "step": steps.of(at)})
        });
        json!({"digest": image.descriptor().digest, "layers": layers.collect::<Vec<_>>()})
    };
    json!({
        "a": image(a, &steps[0]), "b": image(b, &steps[1]), "sharedLayers": shared_layers(a, b),
        "config": config.collect::<Vec<_>>(), "files": files.collect::<Vec<_>>(),
    })
}

fn as_text(
    a: &Image,
    b: &Image,
    config: &BTreeMap<String, [Value; 2]>,
    files: &[Change],
    steps: &[Steps; 2],
) {
    outln!("--- {} {} layers", a.descriptor().digest, a.layers().len());
    outln!("+++ {} {} layers", b.descriptor().digest, b.layers().len());
    outln!("{} layers are the same", shared_layers(a, b));
    for (key, [a, b]) in config {
        outln!("config {key}: {a} -> {b}");
    }
    let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for change in files {
        let sign = match change.word() {
            "added" => '+',
            "removed" => '-',
            _ => '~',
        };
        let (side, (inode, layer)) = change.shown();
        let total = totals.entry(change.word()).or_default();
        (total.0, total.1) = (total.0 + 1, total.1 + inode.size);
        let what = match change.word() {
            "changed" => format!(" ({})", told(change)),
            _ => String::new(),
        };
        let step = steps[side].of(*layer).unwrap_or("unknown step");
        let step: String = step.chars().take(80).collect();
        outln!(
            "{sign} {:04o} {}:{} {:>10} {}{what}  [layer {layer}: {}]",
            inode.mode,
            inode.uid,
            inode.gid,
            inode.size,
            name(&change.path),
            step.replace(['\n', '\t'], " ")
        );
    }
    for (word, (count, bytes)) in totals {
        outln!("{word}: {count} files, {bytes} bytes");
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
