//! `rbuild df`, `check`: what takes room in the store, and whether it is sound.

use app::{App, Runnable, format, observed};
use clap::Args;
use options::Failure;
use options::progress::Progress;
use serde_json::json;
use store::Severity;
use task::Kind;

/// Show what takes space in the store
#[derive(Debug, Args)]
pub(crate) struct Df {
    /// Format the output with a Go template, or json
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "verbose")]
    format: Option<String>,
    /// List each image, container and volume
    #[arg(short, long)]
    verbose: bool,
}

impl Runnable for Df {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let usage = observed("df", Progress::Quiet, |task| Ok(store.usage(task)?))?;
        let images = usage.images.len() as u64;
        let unique = usage.images.iter().map(|image| image.unique).sum::<u64>();
        if self.verbose {
            return each(store, &usage);
        }
        let volumes = volumes(store)?;
        let rows = [
            ("Images", images, usage.blobs.bytes, unique),
            ("Snapshots", usage.snapshots.count, usage.snapshots.bytes, 0),
            ("Containers", usage.containers.count, usage.containers.bytes, 0),
            ("Build cache", usage.steps.count, usage.steps.bytes, usage.steps.bytes),
            ("Cache mounts", usage.mounts.count, usage.mounts.bytes, usage.mounts.bytes),
            ("Volumes", volumes.0, volumes.1, volumes.2),
        ];
        match self.format.as_deref() {
            Some(template) => {
                for (kind, count, bytes, reclaimable) in rows {
                    let value = json!({
                        "Type": kind, "Total": count, "Size": progress::bytes(bytes),
                        "Bytes": bytes, "Reclaimable": progress::bytes(reclaimable),
                    });
                    outln!("{}", format::template(template, &value)?);
                }
            }
            None => {
                let rows = rows.map(|(kind, count, bytes, reclaimable)| {
                    vec![
                        kind.to_owned(),
                        count.to_string(),
                        progress::bytes(bytes),
                        progress::bytes(reclaimable),
                    ]
                });
                out!("{}", format::table(&["TYPE", "TOTAL", "SIZE", "RECLAIMABLE"], &rows));
            }
        }
        Ok(0)
    }
}

/// Lists every image, container and volume with the room it takes.
fn each(store: &store::Store, usage: &store::Usage) -> Result<u8, Failure> {
    let all = containers::Containers::new(store.clone()).list()?;
    let bytes = progress::bytes;
    let images = usage.images.iter().map(|image| {
        let digest = image.descriptor.digest;
        let users = all.iter().filter(|one| one.images().any(|used| used == digest)).count();
        let names =
            if image.names.is_empty() { "<none>".to_owned() } else { image.names.join(", ") };
        let shared = bytes(image.bytes.saturating_sub(image.unique));
        vec![
            names,
            digest.hex()[..12].to_owned(),
            bytes(image.bytes),
            shared,
            bytes(image.unique),
            users.to_string(),
        ]
    });
    let headers = ["IMAGE", "DIGEST", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
    outln!("Images:\n\n{}", format::table(&headers, &images.collect::<Vec<_>>()));
    let rows = all.iter().map(|one| {
        let volumes = one.record().volumes.len().to_string();
        let (id, image) = (one.id()[..12].to_owned(), one.record().image.clone());
        vec![
            id,
            image,
            volumes,
            bytes(one.written()),
            one.phase().as_str().to_owned(),
            one.name().to_owned(),
        ]
    });
    let headers = ["CONTAINER ID", "IMAGE", "VOLUMES", "SIZE", "STATUS", "NAMES"];
    outln!("Containers:\n\n{}", format::table(&headers, &rows.collect::<Vec<_>>()));
    let volumes = containers::Volumes::new(store.clone());
    let mut rows = Vec::new();
    for volume in volumes.list()? {
        let users = volumes.users(&volume.name)?.len().to_string();
        rows.push(vec![volume.name.clone(), users, bytes(volumes.size(&volume.name)?)]);
    }
    outln!("Volumes:\n\n{}", format::table(&["VOLUME NAME", "CONTAINERS", "SIZE"], &rows));
    outln!(
        "Build cache: {}, cache mounts: {}",
        bytes(usage.steps.bytes),
        bytes(usage.mounts.bytes)
    );
    Ok(0)
}

/// How many volumes there are, the bytes of all, and of those that no container uses.
fn volumes(store: &store::Store) -> Result<(u64, u64, u64), Failure> {
    let volumes = containers::Volumes::new(store.clone());
    let (mut count, mut all, mut unused) = (0, 0, 0);
    for volume in volumes.list()? {
        let bytes = volumes.size(&volume.name)?;
        (count, all) = (count + 1, all + bytes);
        if volumes.users(&volume.name)?.is_empty() {
            unused += bytes;
        }
    }
    Ok((count, all, unused))
}

/// Check every byte and every name in the store
#[derive(Debug, Args)]
pub(crate) struct Check {}

impl Runnable for Check {
    /// Checks and prints every problem. Leftovers take space but are not a failure.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let problems = observed("check", Progress::Auto, |task| Ok(store.check(task)?))?;
        let (broken, garbage): (Vec<_>, Vec<_>) =
            problems.iter().partition(|problem| problem.severity == Severity::Broken);
        for problem in &broken {
            outln!("broken: {problem}");
        }
        for problem in &garbage {
            outln!("garbage: {problem}");
        }
        match broken.len() {
            0 => {
                outln!("the store is sound");
                if !garbage.is_empty() {
                    eprintln!("{} leftovers: `rbuild prune` removes them", garbage.len());
                }
                Ok(0)
            }
            // A question that was answered with no.
            count => {
                let what = format!("{count} broken things found");
                Err(Failure { code: Some(1), ..Failure::new(Kind::Invalid, what) })
            }
        }
    }
}
