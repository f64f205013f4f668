//! `rbuild history`, `inspect`, `tag`, `untag`, `rmi`: what is in the store.

use builder::working::Working;
use clap::Args;
use image::Platform;
use options::place::local_name;
use options::{Dialect, Failure};
use serde_json::{Value, json};
use store::Store;
use task::Kind;

use super::lookup;
use super::several;
use crate::app::App;
use crate::commands::Runnable;
use crate::format;
pub(crate) use crate::format::ago;

/// The program in its own documents.
const TOOL: &str = concat!("rbuild ", env!("CARGO_PKG_VERSION"));

/// A name of the store as repository and tag; a name by digest has none.
pub(crate) fn split(name: &str) -> (String, String) {
    let (repository, tag) = store::repository_and_tag(name);
    (repository.to_owned(), tag.unwrap_or("<none>").to_owned())
}

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
            return super::builds::list(app, self.format.as_deref(), false);
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
    /// Show the container that was made last
    #[arg(short, long, conflicts_with = "names")]
    latest: bool,
    /// Show the sizes of containers: what each wrote, and that with its image
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
            self.names = vec![super::container::latest(app)?.id().to_owned()];
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
            _ => Working::find(app.store()?, name)?.is_some(),
        })
    }

    fn one(&self, app: &App, name: &str) -> Result<Value, Failure> {
        let store = app.store()?;
        match self.kind.as_deref() {
            Some("manifest") => return super::manifest::document(store, name),
            Some("network") => return super::network::document(app, name),
            Some("volume") => return super::volume::document(app, name),
            _ => {}
        }
        if self.kind.as_deref() != Some("image") {
            if let Some(working) = Working::find(store, name)? {
                return Ok(builder::working_document(&working, TOOL, self.format.is_some())?);
            }
            if let Some(container) = super::container::containers(app)?.find(name)? {
                return self.container(&container);
            }
            if self.kind.is_some() {
                return Err(super::container::missing(name));
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
        let mut document = container.document(&super::container::image(container))?;
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
    for find in [super::volume::document, super::network::document] {
        match find(app, name) {
            Err(failure) if failure.kind == Kind::NotFound => {}
            found => return found.map(Some),
        }
    }
    Ok(None)
}

/// Give an image another name
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The image
    image: String,
    /// The new names
    #[arg(required = true)]
    names: Vec<String>,
}

impl Runnable for Tag {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let found = lookup::require(store, &self.image)?;
        let names =
            self.names.iter().map(|name| local_name(name)).collect::<Result<Vec<_>, _>>()?;
        for name in names {
            store.publish(&name.to_string(), &found.descriptor)?;
        }
        Ok(0)
    }
}

/// Remove names from an image; the image stays
#[derive(Debug, Args)]
pub(crate) struct Untag {
    /// The names
    #[arg(required = true)]
    names: Vec<String>,
}

impl Runnable for Untag {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let (_, answer) = several::each(&self.names, |name| {
            let found = lookup::require(store, name)?;
            let Some(tag) = found.name else {
                return Err(Failure::usage(format!("{name:?} is an id, not a name")));
            };
            store.publish_untagged(&found.descriptor)?;
            store.unname(&tag)?;
            Ok(())
        });
        answer
    }
}

/// Remove images from the store
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// The images
    #[arg(required_unless_present_any = ["all", "prune"])]
    images: Vec<String>,
    /// Remove all images
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// Remove images without a name
    #[arg(short, long, conflicts_with_all = ["images", "all"])]
    prune: bool,
    /// Remove an image id with all its names; ignore missing images
    #[arg(short, long)]
    force: bool,
    /// Ignore missing images
    #[arg(short, long)]
    ignore: bool,
    /// Accepted for scripts: there are no unnamed parents to remove
    #[arg(long)]
    no_prune: bool,
}

/// Removes an image by the name it was used under, unless a container needs it.
///
/// # Errors
/// The store cannot be read or written.
pub(crate) fn remove_unused(app: &App, text: &str) -> Result<(), Failure> {
    let store = app.store()?;
    let Some(found) = lookup::find(store, text)? else { return Ok(()) };
    match in_use(app, &found.descriptor)? {
        Some(_) => Ok(()),
        None => Ok(store.forget(found.descriptor.digest, found.name.as_deref()).map(drop)?),
    }
}

/// The container that an image cannot be taken from.
fn in_use(app: &App, root: &image::Descriptor) -> Result<Option<String>, Failure> {
    let image = app.store()?.image(root, &Platform::host()).ok();
    let image = image.map(|image| image.descriptor().digest);
    let all = super::container::containers(app)?.list()?;
    let used = all
        .iter()
        .find(|container| container.images().any(|of| Some(of) == image || of == root.digest));
    Ok(used.map(|container| container.name().to_owned()))
}

impl Runnable for Rmi {
    /// Removes names, and content that nothing needs any more.
    fn run(self, app: &App) -> Result<u8, Failure> {
        self.remove(app).map_err(|failure| Dialect::spoken().removing(failure))
    }
}

impl Rmi {
    fn remove(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        if self.all || self.prune {
            for root in store.published()? {
                if self.all || root.names.is_empty() {
                    self.unused(app, &root.descriptor)?;
                    remove(store, &root.descriptor, &root.names)?;
                }
            }
        }
        let (_, answer) = several::each(&self.images, |text| self.remove_one(app, text));
        answer
    }

    fn remove_one(&self, app: &App, text: &str) -> Result<(), Failure> {
        let store = app.store()?;
        let found = match lookup::find(store, text)? {
            Some(found) => found,
            None if self.force || self.ignore => return Ok(()),
            None => lookup::require(store, text)?,
        };
        let roots = store.published()?;
        let root = roots.iter().find(|root| root.descriptor.digest == found.descriptor.digest);
        let names = root.map(|root| root.names.clone()).unwrap_or_default();
        if found.name.is_none() || names.len() < 2 {
            self.unused(app, &found.descriptor)?;
        }
        match found.name {
            Some(name) => remove(store, &found.descriptor, &[name]),
            None if names.len() > 1 && !self.force => Err(Failure::new(
                Kind::Refused,
                format!("image {text} has several names: {}", names.join(", ")),
            )
            .hint("remove it by name, or with --force")),
            None => remove(store, &found.descriptor, &names),
        }
    }
}

/// Takes a name away, and the image with it if it was the last.
///
/// # Errors
/// There is no such image.
pub(crate) fn forget(app: &App, text: &str) -> Result<(), Failure> {
    let store = app.store()?;
    let found = lookup::require(store, text)?;
    store.forget(found.descriptor.digest, found.name.as_deref())?;
    Ok(())
}

impl Rmi {
    /// Refuses to take an image from a container, unless `--force` says so: the container keeps
    /// its files then.
    fn unused(&self, app: &App, root: &image::Descriptor) -> Result<(), Failure> {
        if self.force {
            return Ok(());
        }
        let Some(container) = in_use(app, root)? else { return Ok(()) };
        let what = format!("container {container} uses image {}", root.digest);
        Err(Failure::new(Kind::Refused, what)
            .hint("remove the container first, or the image with --force"))
    }
}

fn remove(store: &Store, root: &image::Descriptor, names: &[String]) -> Result<(), Failure> {
    for name in names {
        store.unname(name)?;
        outln!("{}", Dialect::spoken().untagged(name));
    }
    if store.forget(root.digest, None)? {
        outln!("{}", Dialect::spoken().deleted(root.digest));
    }
    Ok(())
}
