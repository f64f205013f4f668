//! `rbuild history`, `inspect`, `tag`, `untag`, `rmi`: what is in the store.

use app::{App, Runnable, format, lookup, several};
use builder::working::WorkingContainer;
use clap::Args;
use image::Platform;
use options::{Dialect, Failure};
use serde_json::{Value, json};
use task::Kind;

pub(crate) use app::format::ago;

/// The program in its own documents.
const TOOL: &str = concat!("rbuild ", env!("CARGO_PKG_VERSION"));

/// Show the steps that made an image
#[derive(Debug, Args)]
pub(crate) struct History {
    /// The image; `builds` lists the builds of this store instead
    image: String,
    /// Show full commands
    #[arg(long)]
    no_trunc: bool,
    /// Format each step with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Runnable for History {
    fn run(self, app: &App) -> Result<u8, Failure> {
        if self.image == "builds" && lookup::find(app.store()?, "builds")?.is_none() {
            return build_commands::builds::list(app, self.format.as_deref(), false);
        }
        let (_, image) = lookup::image(app.store()?, &self.image, &Platform::host())?;
        let mut layers = image.manifest().layers.iter();
        let steps = image.config().history.iter().map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            json!({
                "created": step.created, "createdBy": step.created_by, "comment": step.comment,
                "size": layer.map_or(0, |layer| layer.size),
                "digest": layer.map(|layer| layer.digest),
            })
        });
        let mut steps: Vec<Value> = steps.collect();
        steps.reverse();
        match self.format.as_deref() {
            Some("json") => outln!("{:#}", Value::from(steps)),
            Some(template) => {
                for step in &steps {
                    outln!("{}", format::template(template, &named_as_docker(step))?);
                }
            }
            None => out!("{}", self.table(&steps)),
        }
        Ok(0)
    }
}

impl History {
    fn table(&self, steps: &[Value]) -> String {
        let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
        let rows = steps.iter().map(|step| {
            let mut by = text(step, "createdBy").replace(['\n', '\t'], " ");
            if !self.no_trunc && by.chars().count() > 60 {
                by = by.chars().take(59).chain(['…']).collect();
            }
            let size = progress::bytes(step["size"].as_u64().unwrap_or_default());
            vec![ago(&text(step, "created")), size, by, text(step, "comment")]
        });
        format::table(&["CREATED", "SIZE", "CREATED BY", "COMMENT"], &rows.collect::<Vec<_>>())
    }
}

/// A step of the history with the fields that templates for docker and podman use.
fn named_as_docker(step: &Value) -> Value {
    let created = step["created"].as_str().unwrap_or_default();
    let mut all = step.clone();
    all["CreatedAt"] = created.into();
    all["CreatedSince"] = ago(created).into();
    all["CreatedBy"] = step["createdBy"].clone();
    all["Comment"] = step["comment"].clone();
    all["Size"] = progress::bytes(step["size"].as_u64().unwrap_or_default()).into();
    all
}

/// Show everything about images, containers, volumes or networks
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The images, containers, volumes or networks
    #[arg(required_unless_present = "latest")]
    names: Vec<String>,
    /// Show the newest container
    #[arg(short, long, conflicts_with = "names")]
    latest: bool,
    /// Show the sizes of containers: of their changes, and with their image
    #[arg(short, long)]
    size: bool,
    /// Look for objects of this type only
    #[arg(short = 't', long = "type", value_name = "TYPE", value_parser = ["image", "container", "manifest", "network", "volume"])]
    kind: Option<String>,
    /// Format the output with a Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Runnable for Inspect {
    fn run(mut self, app: &App) -> Result<u8, Failure> {
        if self.latest {
            self.names = vec![container_commands::container::latest(app)?.id().to_owned()];
        }
        // As buildah shows the one it was asked for.
        if self.format.is_none() && (Dialect::spoken().inspects_singly() || self.is_working(app)?) {
            let (documents, answer) = several::each(&self.names, |name| self.one(app, name));
            documents.iter().for_each(|document| outln!("{document:#}"));
            return answer;
        }
        several::show(&self.names, self.format.as_deref(), |name| self.one(app, name))
    }
}

impl Inspect {
    /// Whether the only thing asked for is a working container or a manifest list.
    fn is_working(&self, app: &App) -> Result<bool, Failure> {
        let [name] = self.names.as_slice() else { return Ok(false) };
        Ok(match self.kind.as_deref() {
            Some("image") => false,
            Some("manifest") => true,
            _ => WorkingContainer::find(app.store()?, name)?.is_some(),
        })
    }

    fn one(&self, app: &App, name: &str) -> Result<Value, Failure> {
        let store = app.store()?;
        match self.kind.as_deref() {
            Some("manifest") => return image_commands::manifest::document(store, name),
            Some("network") => return container_commands::network::document(app, name),
            Some("volume") => return container_commands::volume::document(app, name),
            _ => {}
        }
        if self.kind.as_deref() != Some("image") {
            if let Some(working) = WorkingContainer::find(store, name)? {
                return Ok(builder::working_document(&working, TOOL, self.format.is_some())?);
            }
            if let Some(container) = container_commands::container::containers(app)?.find(name)? {
                return self.container(&container);
            }
            if self.kind.is_some() {
                return Err(container_commands::container::missing(name));
            }
            if lookup::find(store, name)?.is_none()
                && let Some(document) = volume_or_network(app, name)?
            {
                return Ok(document);
            }
        }
        let (_, image) = lookup::image(store, name, &Platform::host())?;
        let template = self.format.as_deref().is_some_and(|format| format != "json");
        let mut document = builder::image_document(store, &image, TOOL, template)?;
        if Dialect::spoken().shows_config_as_text() {
            document["Config"] = String::from_utf8_lossy(image.config().bytes()).into();
        }
        Ok(document)
    }
}

impl Inspect {
    fn container(&self, container: &containers::Container) -> Result<Value, Failure> {
        let mut document = container.document(&container_commands::container::image(container))?;
        if self.size {
            let written = container.written();
            document["SizeRw"] = written.into();
            document["SizeRootFs"] = (written + container.image_size()).into();
        }
        Ok(document)
    }
}

/// The document of a volume or network; `None` where there is neither.
fn volume_or_network(app: &App, name: &str) -> Result<Option<Value>, Failure> {
    // The name of neither has these.
    if name.contains(['/', ':', '@']) {
        return Ok(None);
    }
    for find in [container_commands::volume::document, container_commands::network::document] {
        match find(app, name) {
            Err(failure) if failure.kind == Kind::NotFound => {}
            found => return found.map(Some),
        }
    }
    Ok(None)
}
