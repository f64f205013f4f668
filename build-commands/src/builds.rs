//! `rbuild history builds`: the records of builds.

use app::format::{self, ago};
use app::{App, Runnable};
use builder::{BuildRecord, BuildStatus, History, RunningBuild};
use clap::{Args, Subcommand};
use options::Failure;
use serde_json::{Value, json};
use task::Kind;

fn history(app: &App) -> Result<History, Failure> {
    Ok(History::new(app.conf.store_root()?))
}

/// Keeps the record of a build that has ended. A build does not fail because its record cannot be
/// written.
pub(crate) fn keep<T>(app: &App, running: RunningBuild, done: &Result<T, Failure>) {
    let record = match done {
        Ok(_) => running.end(BuildStatus::Completed, None),
        Err(failure) => {
            let error = failure.messages.join(": ");
            running.end(BuildStatus::of_failure(failure.kind), Some(&error))
        }
    };
    if let Err(failure) = history(app).and_then(|history| Ok(history.keep(&record)?)) {
        tracing::warn!("keeping the record of the build: {}", failure.messages.join(": "));
    }
}

fn value(record: &BuildRecord) -> Value {
    json!({
        "ID": record.id, "Status": record.status.as_str(), "CreatedAt": record.started,
        "CreatedSince": ago(&record.started), "Duration": progress::duration(record.duration()),
        "Error": record.error, "Context": record.context, "Dockerfile": record.dockerfile,
        "Target": record.target, "Names": record.names, "Name": record.names.join(", "),
        "Image": record.image, "Digest": record.digest, "Steps": record.steps,
        "CachedSteps": record.cached, "Warnings": record.warnings,
    })
}

/// Prints the list.
///
/// # Errors
/// A bad template.
pub fn list(app: &App, template: Option<&str>, quiet: bool) -> Result<u8, Failure> {
    let records = history(app)?.list();
    match template {
        _ if quiet => records.iter().for_each(|record| outln!("{}", record.id)),
        Some("json") => {
            outln!("{:#}", Value::from_iter(records.iter().map(value)));
        }
        Some(template) => {
            for record in &records {
                outln!("{}", format::template(template, &value(record))?);
            }
        }
        None => {
            let rows = records.iter().map(|one| {
                let name =
                    if one.names.is_empty() { one.context.clone() } else { one.names.join(", ") };
                let steps = format!("{} ({} cached)", one.steps, one.cached);
                let (status, took) = (one.status.as_str(), progress::duration(one.duration()));
                vec![one.id.clone(), name, status.to_owned(), steps, ago(&one.started), took]
            });
            let header = ["BUILD ID", "NAME", "STATUS", "STEPS", "CREATED", "DURATION"];
            out!("{}", format::table(&header, &rows.collect::<Vec<_>>()));
        }
    }
    Ok(0)
}

/// The history of builds
#[derive(Debug, Subcommand)]
pub enum Builds {
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
pub struct ListFlags {
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
pub struct InspectFlags {
    /// The build, by the beginning of its id
    build: Option<String>,
    /// Format the output with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// The records to remove.
#[derive(Debug, Args)]
pub struct RemoveFlags {
    /// The builds
    #[arg(required_unless_present = "all")]
    builds: Vec<String>,
    /// Remove all
    #[arg(short, long, conflicts_with = "builds")]
    all: bool,
}

impl Runnable for Builds {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let history = history(app)?;
        match self {
            Builds::Ls(flags) => list(app, flags.format.as_deref(), flags.quiet),
            Builds::Inspect(flags) => {
                let record = match &flags.build {
                    Some(text) => history.find(text)?,
                    None => history.list().into_iter().next().ok_or_else(|| {
                        Failure::new(Kind::NotFound, "there is no record of a build")
                    })?,
                };
                match flags.format.as_deref() {
                    None | Some("json") => outln!("{:#}", value(&record)),
                    Some(template) => outln!("{}", format::template(template, &value(&record))?),
                }
                Ok(0)
            }
            Builds::Rm(flags) => {
                let gone = match flags.all {
                    true => history.list(),
                    false => flags
                        .builds
                        .iter()
                        .map(|text| history.find(text))
                        .collect::<Result<_, _>>()?,
                };
                for record in gone {
                    history.remove(&record)?;
                    outln!("{}", record.id);
                }
                Ok(0)
            }
        }
    }
}
