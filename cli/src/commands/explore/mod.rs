//! `rcopy explore`: what is in an image, layer by layer and file by file.

#[cfg(feature = "explore")]
mod browser;
mod html;
#[cfg(feature = "explore")]
mod screen;
mod summary;

#[cfg_attr(not(feature = "explore"), allow(dead_code, reason = "the screen alone asks this"))]
mod tree;

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use image::{Digest, Image, Platform};
use layers::{LayerEntries, Limits};
use serde_json::json;
use task::{Kind, Task};
use transport::{Location, Source, bridge};

use self::tree::Tree;
use super::copy::OneEnd;
use super::place::{self, Access};
use crate::app::{App, observed};
use crate::render::Progress;
use crate::report::{self, Failure};

/// Explore an image: its layers, which step wrote each file, and wasted bytes
///
/// On a terminal this opens a browser; press ? for its keys. Without a terminal, or with --json or
/// --html, it writes a report. Layers are read as they arrive and not unpacked.
#[derive(Debug, Args)]
pub(crate) struct Explore {
    /// The image: transport:…; a bare name is an image in the store
    image: String,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Write the report as one self-contained HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print layers and wasted bytes as JSON
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Print the summary on a terminal too
    #[arg(long, conflicts_with_all = ["html", "json"])]
    summary: bool,
    /// Fail if more than this percentage of the layer bytes is wasted
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    max_wasted: Option<u8>,
    #[command(flatten)]
    registry: OneEnd,
}

/// One layer of an image.
#[derive(Debug)]
pub(crate) struct LayerView {
    pub(crate) digest: Digest,
    pub(crate) diff_id: Digest,
    /// Bytes of the blob.
    pub(crate) size: u64,
    /// Bytes of the files in it.
    pub(crate) files: u64,
    /// Number of entries.
    pub(crate) entries: usize,
    /// The history step that made it.
    pub(crate) step: String,
}

/// An image that was read.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) platform: String,
    pub(crate) config: serde_json::Value,
    pub(crate) layers: Vec<LayerView>,
    pub(crate) tree: Tree,
}

impl Explored {
    /// Bytes of files in all layers together, and how many of them the image does not show.
    pub(crate) fn carried_and_wasted(&self) -> (u64, u64) {
        let carried = self.layers.iter().map(|layer| layer.files).sum();
        (carried, self.tree.waste().iter().map(|waste| waste.bytes).sum())
    }
}

impl Explore {
    /// Reads the image and shows it.
    ///
    /// # Errors
    /// It is not there; a layer is not what the image says; more is wasted than allowed.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let location = place::location(&self.image, "store:")?;
        let explored = observed("explore", Progress::Auto, |task| {
            let access = Access::new(app, self.registry.reach_at(&location)?);
            let source = access.source(&location)?;
            let platform = self.platform.clone().unwrap_or_else(Platform::host);
            read(app, &location, &*source, &platform, task)
        })?;
        if let Some(file) = &self.html {
            let page = html::page(&explored);
            std::fs::write(file, page)
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
            eprintln!("wrote {}", file.display());
        } else if self.json {
            outln!("{:#}", summary::json(&explored));
        } else if !self.summary && shown(&explored)? {
            // The user has seen it on the screen.
        } else {
            out!("{}", summary::text(&explored));
        }
        match self.max_wasted {
            Some(limit) => allowed(&explored, limit),
            None => Ok(0),
        }
    }
}

/// Shows it on the screen, if there is a terminal and the feature.
#[cfg(feature = "explore")]
fn shown(explored: &Explored) -> Result<bool, Failure> {
    use std::io::IsTerminal as _;

    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if terminal {
        screen::show(explored)?;
    }
    Ok(terminal)
}

#[cfg(not(feature = "explore"))]
fn shown(_explored: &Explored) -> Result<bool, Failure> {
    Ok(false)
}

fn allowed(explored: &Explored, limit: u8) -> Result<u8, Failure> {
    let (carried, wasted) = explored.carried_and_wasted();
    if wasted.saturating_mul(100) <= carried.saturating_mul(u64::from(limit)) {
        return Ok(0);
    }
    let what = format!(
        "{wasted} of {carried} bytes in the layers of {} are wasted, more than {limit} percent",
        explored.name
    );
    Err(Failure::new(Kind::Refused, what)
        .hint("remove files in the step that makes them, or build with --squash"))
}

/// Reads all layers of an image, one after the other, past their digests.
fn read(
    app: &App,
    location: &Location,
    source: &dyn Source,
    platform: &Platform,
    task: &Task,
) -> Result<Explored, Failure> {
    let (root, image) = app.wait(transport::open(source, platform))??;
    let mut tree = Tree::default();
    let mut views = Vec::new();
    let steps = steps(&image);
    for (number, layer) in image.layers().enumerate() {
        task.check()?;
        let descriptor = layer.descriptor;
        let child = task.sized(format!("layer {}", descriptor.digest.short()), descriptor.size);
        let reader = app.wait(async {
            let bytes = source.fetch(descriptor).await.map_err(|cause| report::cause(&cause))?;
            Ok::<_, Failure>(bridge::reader(bytes.verify(descriptor)))
        })??;
        let (entries, files) = entries(child.reading(reader), number, &mut tree, layer.diff_id)
            .map_err(|failure| {
                failure.context(format!("reading layer {} of {location}", descriptor.digest))
            })?;
        views.push(LayerView {
            digest: descriptor.digest,
            diff_id: layer.diff_id,
            size: descriptor.size,
            files,
            entries,
            step: steps.get(number).cloned().unwrap_or_default(),
        });
        child.done();
    }
    let config = serde_json::from_slice(image.config().bytes()).unwrap_or(json!({}));
    Ok(Explored {
        name: location.to_string(),
        digest: root.digest,
        platform: image.platform().to_string(),
        config,
        layers: views,
        tree,
    })
}

fn entries(
    blob: impl Read + Send,
    number: usize,
    tree: &mut Tree,
    diff_id: Digest,
) -> Result<(usize, u64), Failure> {
    let plain = layers::decompress(blob)?;
    let mut hashed = Hashed { inner: plain, digester: image::Digester::new(diff_id.algorithm()) };
    let mut entries = LayerEntries::new(&mut hashed, Limits::default());
    let (mut count, mut bytes) = (0, 0);
    while let Some(entry) = entries.next()? {
        count += 1;
        if entry.kind == layers::EntryKind::File {
            bytes += entry.size;
        }
        tree.take(number, entry).map_err(|_| {
            Failure::new(Kind::Invalid, "the image has more names than any honest one")
        })?;
    }
    drop(entries);
    std::io::copy(&mut hashed, &mut std::io::sink())
        .map_err(|error| Failure::io("reading to the end", &error))?;
    let found = hashed.digester.finish();
    if found != diff_id {
        let what = format!("it unpacks to {found}, not to {diff_id} as the image says");
        return Err(Failure::new(Kind::Invalid, what));
    }
    Ok((count, bytes))
}

struct Hashed<R> {
    inner: R,
    digester: image::Digester,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.digester.update(&buffer[..n]);
        Ok(n)
    }
}

/// For each layer the step that made it.
fn steps(image: &Image) -> Vec<String> {
    let history = image.config().history.iter();
    history
        .filter(|step| !step.empty_layer)
        .map(|step| step.created_by.clone().unwrap_or_default())
        .collect()
}

/// A step as people wrote it: without what builders put around a command.
pub(crate) fn shortened(step: &str) -> &str {
    let step = step.strip_prefix("/bin/sh -c #(nop) ").unwrap_or(step);
    let step = step.strip_suffix("# buildkit").unwrap_or(step);
    match step.strip_prefix("/bin/sh -c ") {
        Some(command) => command.trim(),
        None => step.trim(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use layers::{EntryKind, LayerEntry};

    use super::*;

    fn entry(path: &str, kind: EntryKind, size: u64) -> LayerEntry {
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
    pub(crate) fn sample() -> Explored {
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
        for (number, (entries, step)) in layers.iter().zip(["COPY . /", "RUN rm gone"]).enumerate()
        {
            for entry in *entries {
                tree.take(number, entry.clone()).unwrap();
            }
            let digest = Digest::of(step.as_bytes());
            let files = entries.iter().map(|entry| entry.size).sum();
            let (size, count, step) = (7, entries.len(), format!("/bin/sh -c {step}"));
            views.push(LayerView { digest, diff_id: digest, size, files, entries: count, step });
        }
        Explored {
            name: "store:sample".into(),
            digest: Digest::of(b""),
            platform: "linux/amd64".into(),
            config: json!({}),
            layers: views,
            tree,
        }
    }

    #[test]
    fn more_waste_than_allowed_is_a_failure() {
        let explored = sample();
        assert_eq!(explored.carried_and_wasted(), (10_100, 7_000));
        assert!(allowed(&explored, 70).is_ok());
        assert!(allowed(&explored, 69).is_err());
    }

    #[test]
    fn a_report_holds_hostile_names_as_data() {
        let mut explored = sample();
        let name = "</script><img src=x onerror=alert(1)>";
        explored.tree.take(1, entry(name, EntryKind::File, 1)).unwrap();
        let page = html::page(&explored);
        assert!(!page.contains("<img"), "a name became markup");
        assert!(page.contains("\\u003c/script>\\u003cimg") || page.contains("\\u003cimg src=x"));
        assert!(!page.contains("http://") && !page.contains("https://"), "it loads something");
    }
}
