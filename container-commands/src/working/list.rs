//! `rbuild containers` and `rbuild rename`.

use app::{App, Runnable, format, lookup};
use builder::working::WorkingContainer;
use clap::Args;
use containers::Containers as All;
use options::Failure;
use serde_json::{Value, json};
use store::Store;

use crate::container;

/// List working containers
#[derive(Debug, Args)]
pub struct Containers {
    /// Show the containers of `rbuild run` too
    #[arg(short, long)]
    all: bool,
    /// Show matching containers only: id=, name=, ancestor=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format each container with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print no header
    #[arg(short, long)]
    noheading: bool,
    /// Show full ids
    #[arg(long, visible_alias = "no-trunc")]
    notruncate: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

struct Row {
    id: String,
    ours: bool,
    image_id: String,
    image: String,
    name: String,
}

impl Runnable for Containers {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let mut rows = self.rows(app.store()?)?;
        for filter in &self.filter {
            retain(&mut rows, filter, app.store()?)?;
        }
        if self.json || self.format.as_deref() == Some("json") {
            let rows: Vec<Value> = rows.iter().map(Row::json).collect();
            outln!("{:#}", Value::from(rows));
        } else if let Some(template) = &self.format {
            for row in &rows {
                outln!("{}", format::template(template, &row.fields())?);
            }
        } else if self.quiet {
            rows.iter().for_each(|row| outln!("{}", row.id));
        } else {
            self.table(&rows);
        }
        Ok(0)
    }
}

impl Containers {
    fn cut<'a>(&self, id: &'a str) -> &'a str {
        if self.notruncate { id } else { &id[..id.len().min(12)] }
    }

    fn rows(&self, store: &Store) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for found in All::new(store.clone()).list()? {
            let record = found.row().clone();
            if let Some(working) = WorkingContainer::of(store, record.clone())? {
                let id = working.base()?.map(|image| image.id().hex());
                let scratch = || "scratch".to_owned();
                rows.push(Row {
                    id: record.id,
                    ours: true,
                    image_id: id.unwrap_or_default(),
                    image: Some(working.state.image)
                        .filter(|image| !image.is_empty())
                        .unwrap_or_else(scratch),
                    name: record.name,
                });
            } else if self.all {
                let image = record.image.as_ref().map(|image| image.digest.hex());
                rows.push(Row {
                    id: record.id,
                    ours: false,
                    image_id: image.unwrap_or_default(),
                    image: found.record().image.clone(),
                    name: record.name,
                });
            }
        }
        Ok(rows)
    }

    fn table(&self, rows: &[Row]) {
        let header = ["CONTAINER ID", "BUILDER", "IMAGE ID", "IMAGE NAME", "CONTAINER NAME"];
        let cells = rows.iter().map(|row| {
            let builder = if row.ours { "   *" } else { "" };
            vec![
                self.cut(&row.id).to_owned(),
                builder.to_owned(),
                self.cut(&row.image_id).to_owned(),
                row.image.clone(),
                row.name.clone(),
            ]
        });
        let table = format::table(&header, &cells.collect::<Vec<_>>());
        out!("{}", format::headed(table, self.noheading));
    }
}

fn retain(rows: &mut Vec<Row>, filter: &str, store: &Store) -> Result<(), Failure> {
    match filter.split_once('=') {
        Some(("id", id)) => rows.retain(|row| row.id.starts_with(id)),
        Some(("name", name)) => rows.retain(|row| row.name.contains(name)),
        Some(("ancestor", image)) => {
            let named = lookup::find(store, image)?.and_then(|found| found.name);
            rows.retain(|row| {
                row.image == image
                    || Some(&row.image) == named.as_ref()
                    || (!image.is_empty() && row.image_id.starts_with(image))
            });
        }
        _ => {
            return Err(Failure::usage(format!("--filter {filter:?} is not supported"))
                .hint("id=, name= and ancestor= are supported"));
        }
    }
    Ok(())
}

impl Row {
    /// In the words of buildah's JSON.
    fn json(&self) -> Value {
        json!({
            "id": self.id, "builder": self.ours, "imageid": self.image_id,
            "imagename": self.image, "containername": self.name,
        })
    }

    /// In the words of buildah's templates.
    fn fields(&self) -> Value {
        json!({
            "ContainerID": self.id, "Builder": if self.ours { "*" } else { "" },
            "ImageID": self.image_id, "ImageName": self.image, "ContainerName": self.name,
        })
    }
}

/// Give a container another name
#[derive(Debug, Args)]
pub struct Rename {
    /// The container
    container: String,
    /// Its new name
    name: String,
}

impl Runnable for Rename {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let container = container::require(app, &self.container)?;
        if self.container == self.name {
            return Err(Failure::usage(format!("{:?} is the name it has", self.name)));
        }
        container.rename(&self.name)?;
        Ok(0)
    }
}
