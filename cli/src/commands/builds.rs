//! The history of builds: a record of each, kept beside the store.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use builder::Built;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use task::Kind;

use crate::app::App;
use crate::format::{self, ago};
use crate::render;
use crate::report::Failure;

/// Older records than this many go.
const KEPT: usize = 100;

/// What is kept of a build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    id: String,
    started: String,
    /// Milliseconds.
    duration: u64,
    status: String,
    error: Option<String>,
    context: String,
    dockerfile: Option<String>,
    target: Option<String>,
    names: Vec<String>,
    image: Option<String>,
    digest: Option<String>,
    steps: usize,
    cached: usize,
    warnings: usize,
}

/// A build that runs.
pub(crate) struct Running {
    record: Record,
    start: Instant,
}

impl Running {
    /// Begins a record.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn begin(
        context: &str,
        dockerfile: Option<&String>,
        target: Option<&String>,
    ) -> Result<Running, Failure> {
        let started = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        let record = Record {
            id: containers::random_id()?.chars().take(25).collect(),
            started: started.to_string(),
            duration: 0,
            status: "running".to_owned(),
            error: None,
            context: context.to_owned(),
            dockerfile: dockerfile.cloned(),
            target: target.cloned(),
            names: Vec::new(),
            image: None,
            digest: None,
            steps: 0,
            cached: 0,
            warnings: 0,
        };
        Ok(Running { record, start: Instant::now() })
    }

    /// Notes what was built.
    pub(crate) fn built(&mut self, built: &Built) {
        let record = &mut self.record;
        record.names.clone_from(&built.names);
        record.image = built.id.map(|id| id.to_string());
        record.digest = built.manifest.as_ref().map(|manifest| manifest.digest.to_string());
        (record.steps, record.cached) = (built.steps, built.cached);
        record.warnings = built.warnings.len();
    }

    /// Keeps the record. A build does not fail because its record cannot be written.
    pub(crate) fn end(mut self, app: &App, done: &Result<u8, Failure>) {
        self.record.duration = self.start.elapsed().as_millis() as u64;
        self.record.status = match done {
            Ok(_) => "completed".to_owned(),
            Err(failure) if failure.kind == Kind::Cancelled => "canceled".to_owned(),
            Err(_) => "error".to_owned(),
        };
        self.record.error = done.as_ref().err().map(|failure| failure.messages.join(": "));
        if let Err(failure) = self.write(app) {
            tracing::warn!("keeping the record of the build: {}", failure.messages.join(": "));
        }
    }

    fn write(&self, app: &App) -> Result<(), Failure> {
        let directory = directory(app)?;
        // What failed before there was a store is no build; a store is not made for its record.
        if !app.store_root()?.join("store.json").exists() {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Failure::io(format!("writing to {}", directory.display()), &error)
        };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(failed)?;
        serde_json::to_writer(&mut file, &self.record).map_err(|error| failed(error.into()))?;
        let path = directory.join(format!("{}.json", self.record.id));
        file.persist(path).map_err(|error| failed(error.error))?;
        for old in all(app)?.into_iter().skip(KEPT) {
            let _ = std::fs::remove_file(directory.join(format!("{}.json", old.id)));
        }
        Ok(())
    }
}

fn directory(app: &App) -> Result<PathBuf, Failure> {
    Ok(app.store_root()?.join("builds"))
}

/// All records, the newest first. What cannot be read is none.
fn all(app: &App) -> Result<Vec<Record>, Failure> {
    let directory = directory(app)?;
    let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(Vec::new()) };
    let read = |entry: std::fs::DirEntry| -> Option<Record> {
        let path = entry.path();
        path.extension().filter(|end| *end == "json")?;
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    };
    let mut records: Vec<Record> = entries.flatten().filter_map(read).collect();
    records.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.id.cmp(&b.id)));
    Ok(records)
}

fn find(app: &App, text: &str) -> Result<Record, Failure> {
    let mut found = all(app)?.into_iter().filter(|record| record.id.starts_with(text));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure::new(Kind::NotFound, format!("there is no build {text:?}"))
            .hint("`rbuild history builds` lists what there is")),
        (Some(_), Some(_)) => {
            Err(Failure::new(Kind::Invalid, format!("several builds begin with {text:?}")))
        }
    }
}

impl Record {
    fn json(&self) -> Value {
        json!({
            "ID": self.id, "Status": self.status, "CreatedAt": self.started,
            "CreatedSince": ago(&self.started), "Duration": self.took(), "Error": self.error,
            "Context": self.context, "Dockerfile": self.dockerfile, "Target": self.target,
            "Names": self.names, "Name": self.names.join(", "), "Image": self.image,
            "Digest": self.digest, "Steps": self.steps, "CachedSteps": self.cached,
            "Warnings": self.warnings,
        })
    }

    fn took(&self) -> String {
        render::duration(Duration::from_millis(self.duration))
    }
}

/// Prints the list.
///
/// # Errors
/// A bad template.
pub(crate) fn list(app: &App, template: Option<&str>, quiet: bool) -> Result<u8, Failure> {
    let records = all(app)?;
    match template {
        _ if quiet => records.iter().for_each(|record| outln!("{}", record.id)),
        Some("json") => {
            outln!("{:#}", Value::from_iter(records.iter().map(Record::json)));
        }
        Some(template) => {
            for record in &records {
                outln!("{}", format::template(template, &record.json())?);
            }
        }
        None => {
            let rows = records.iter().map(|one| {
                let name =
                    if one.names.is_empty() { one.context.clone() } else { one.names.join(", ") };
                let steps = format!("{} ({} cached)", one.steps, one.cached);
                vec![one.id.clone(), name, one.status.clone(), steps, ago(&one.started), one.took()]
            });
            let header = ["BUILD ID", "NAME", "STATUS", "STEPS", "CREATED", "DURATION"];
            out!("{}", format::table(&header, &rows.collect::<Vec<_>>()));
        }
    }
    Ok(0)
}

/// The history of builds
#[derive(Debug, Subcommand)]
pub(crate) enum Builds {
    /// List the builds, the newest first
    #[command(alias = "list")]
    Ls(ListFlags),
    /// Show the record of a build (default: the last one)
    Inspect(InspectFlags),
    /// Remove records of builds
    Rm(RemoveFlags),
}

/// How to list builds.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    /// Format the output with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Accepted: nothing is truncated
    #[arg(long)]
    no_trunc: bool,
}

/// The build to show.
#[derive(Debug, Args)]
pub(crate) struct InspectFlags {
    /// The build, by the beginning of its id
    build: Option<String>,
    /// Format the output with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// The records to remove.
#[derive(Debug, Args)]
pub(crate) struct RemoveFlags {
    /// The builds
    #[arg(required_unless_present = "all")]
    builds: Vec<String>,
    /// Remove all
    #[arg(short, long, conflicts_with = "builds")]
    all: bool,
}

impl Builds {
    /// Does it.
    ///
    /// # Errors
    /// There is no such build.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            Builds::Ls(flags) => list(app, flags.format.as_deref(), flags.quiet),
            Builds::Inspect(flags) => {
                let record = match &flags.build {
                    Some(text) => find(app, text)?,
                    None => all(app)?.into_iter().next().ok_or_else(|| {
                        Failure::new(Kind::NotFound, "there is no record of a build")
                    })?,
                };
                match flags.format.as_deref() {
                    None | Some("json") => outln!("{:#}", record.json()),
                    Some(template) => outln!("{}", format::template(template, &record.json())?),
                }
                Ok(0)
            }
            Builds::Rm(flags) => {
                let gone = match flags.all {
                    true => all(app)?,
                    false => {
                        flags.builds.iter().map(|text| find(app, text)).collect::<Result<_, _>>()?
                    }
                };
                for record in gone {
                    let file = directory(app)?.join(format!("{}.json", record.id));
                    std::fs::remove_file(&file).map_err(|error| {
                        Failure::io(format!("removing {}", file.display()), &error)
                    })?;
                    outln!("{}", record.id);
                }
                Ok(0)
            }
        }
    }
}
