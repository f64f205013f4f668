//! `rbuild manifest`: lists of images for several platforms.

mod entry;
mod push;

use app::lists::{find, require, update};
use app::place::Access;
use app::{App, Runnable, lookup};
use clap::{Args, Subcommand};
use image::{Descriptor, Digest, Node};
use options::list::{ArtifactFlags, EntryFlags};
use options::place::{local_name, location};
use options::registry::RegistryFlags;
use options::{Dialect, Failure, flags};
use store::Store;
use task::Kind;
use transport::Location;

use self::entry::add;
use self::push::Push;

/// Make and push manifest lists: one name for the images of several platforms
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each command says it")]
pub enum Manifest {
    Create(Create),
    Add(Add),
    Annotate(Annotate),
    Inspect(Inspect),
    Push(Push),
    Remove(Remove),
    Rm(Rm),
    Exists(Exists),
}

impl Runnable for Manifest {
    fn run(self, app: &App) -> Result<u8, Failure> {
        run_each! { self, app, Manifest {
            Create, Add, Annotate, Inspect, Push, Remove, Rm, Exists,
        } }
    }
}

/// The list as JSON.
///
/// # Errors
/// There is no such list.
pub fn document(store: &Store, text: &str) -> Result<serde_json::Value, Failure> {
    let list = require(store, text)?;
    serde_json::to_value(&*list.index)
        .map_err(|error| Failure::new(Kind::Invalid, format!("writing JSON: {error}")))
}

/// Make a manifest list
#[derive(Debug, Args)]
pub struct Create {
    /// Add to an existing list of this name; an image of this name becomes its first entry
    #[arg(short, long, conflicts_with = "replace")]
    amend: bool,
    /// Take the name from the list or image that has it
    #[arg(long)]
    replace: bool,
    /// Add all images of an image that is itself a list
    #[arg(long)]
    all: bool,
    /// Add an annotation to the list
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    registry: RegistryFlags,
    /// The name of the list
    list: String,
    /// The images to add: in the store, on a registry, or transport:…
    images: Vec<String>,
}

impl Create {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let annotations = flags::annotations(&self.annotation)?;
        let name = local_name(&self.list)?.to_string();
        let made = store.create_manifest_list(&name)?;
        if !made {
            self.take_over(store, &name)?;
        }
        let filled = || {
            if !annotations.is_empty() {
                update(store, &name, |index| {
                    index.annotations.extend(annotations.clone());
                    Ok(())
                })?;
            }
            let flags = EntryFlags::default();
            let reach = self.registry.reach()?;
            Ok(add(app, &name, &self.images, self.all, &flags, &reach)?.0)
        };
        match filled() {
            Ok(root) => {
                outln!("{}", root.digest.hex());
                Ok(0)
            }
            Err(failure) => {
                // A list that could not be filled does not stay.
                if made && let Some(list) = find(store, &name)? {
                    store.forget(list.index.digest(), Some(&name))?;
                }
                Err(failure)
            }
        }
    }
}

impl Create {
    /// Makes what has the name a list, as the flags say.
    fn take_over(&self, store: &Store, name: &str) -> Result<(), Failure> {
        let taken = || Failure::new(Kind::Refused, format!("the name {name} is already in use"));
        if !self.amend && !self.replace {
            return Err(taken()
                .hint("--amend adds to the list of this name, --replace takes the name from it"));
        }
        let Some(before) = store.resolve(name)? else { return Err(taken()) };
        if self.amend && before.media_type.is_index() {
            return Ok(());
        }
        let entries = match self.amend {
            true => vec![store.list_entry(before.bare())?],
            false => Vec::new(),
        };
        match store.replace_by_manifest_list(name, &before, entries)? {
            true => Ok(()),
            false => Err(taken().hint("another process has changed it: try again")),
        }
    }
}

/// Add images to a manifest list
#[derive(Debug, Args)]
pub struct Add {
    /// Add all images of an image that is itself a list
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    entry: EntryFlags,
    #[command(flatten)]
    artifact: ArtifactFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    /// The list
    list: String,
    /// The images: in the store, on a registry, or transport:…; with --artifact files
    #[arg(required = true)]
    images: Vec<String>,
}

impl Add {
    fn run(self, app: &App) -> Result<u8, Failure> {
        self.entry.check()?;
        require(app.store()?, &self.list)?;
        let reach = self.registry.reach()?;
        if self.artifact.artifact {
            let mut made = entry::artifact(app, &self.artifact, &self.images, reach)?;
            self.entry.describe(&mut made)?;
            let root = entry::put(app, &self.list, &[made.clone()])?;
            told(&root, &[made]);
            return Ok(0);
        }
        let (root, added) = add(app, &self.list, &self.images, self.all, &self.entry, &reach)?;
        told(&root, &added);
        Ok(0)
    }
}

/// Prints the id of the list; as buildah with the digest of the last entry it got.
fn told(list: &Descriptor, added: &[Descriptor]) {
    match added.last().filter(|_| Dialect::spoken().tells_entries()) {
        Some(entry) => outln!("{}: {}", list.digest.hex(), entry.digest),
        None => outln!("{}", list.digest.hex()),
    }
}

/// Change the entry of an image in a manifest list, or the list's own annotations
#[derive(Debug, Args)]
pub struct Annotate {
    /// Annotate the list itself
    #[arg(long)]
    index: bool,
    #[command(flatten)]
    entry: EntryFlags,
    /// The list
    list: String,
    /// The image in the list: its digest, or a name in the store
    #[arg(required_unless_present = "index")]
    image: Option<String>,
}

impl Annotate {
    fn run(self, app: &App) -> Result<u8, Failure> {
        self.entry.check()?;
        if !self.entry.says_anything() {
            return Err(Failure::usage("there is nothing to annotate: give --annotation or --os"));
        }
        let store = app.store()?;
        let annotations = flags::annotations(&self.entry.annotation)?;
        let about_index = self.index && self.image.is_none();
        if about_index && self.entry.annotation.is_empty() {
            return Err(Failure::usage("a list itself takes only --annotation"));
        }
        let root = update(store, &self.list, |index| {
            if self.index {
                index.annotations.extend(annotations.clone());
            }
            let Some(image) = &self.image else { return Ok(()) };
            let digest = in_list(app, &index.manifests, &self.list, image)?;
            let entries = index.manifests.iter_mut().filter(|entry| entry.digest == digest);
            for entry in entries {
                let said = match self.index {
                    // The annotations went to the list.
                    true => EntryFlags { annotation: Vec::new(), ..self.entry.clone() },
                    false => self.entry.clone(),
                };
                said.describe(entry)?;
            }
            Ok(())
        })?;
        outln!("{}", root.digest.hex());
        Ok(0)
    }
}

/// The digest of an entry by what the user calls it.
fn in_list(
    app: &App,
    entries: &[image::Descriptor],
    list: &str,
    image: &str,
) -> Result<Digest, Failure> {
    let has = |digest: Digest| entries.iter().any(|entry| entry.digest == digest);
    let bare = image.rsplit_once('@').map_or(image, |(_, digest)| digest);
    if let Ok(digest) = bare.parse::<Digest>()
        && has(digest)
    {
        return Ok(digest);
    }
    let store = app.store()?;
    if let Some(found) = lookup::find(store, image)? {
        if has(found.descriptor.digest) {
            return Ok(found.descriptor.digest);
        }
        let below = Node::read(found.descriptor.clone(), store.read(&found.descriptor)?);
        let below = below.map(|node| node.children()).unwrap_or_default();
        let mut both = below.iter().filter(|child| has(child.digest));
        if let (Some(one), None) = (both.next(), both.next()) {
            return Ok(one.digest);
        }
    }
    let known: Vec<String> = entries.iter().map(|entry| entry.digest.to_string()).collect();
    let hint = if known.is_empty() { "it is empty".to_owned() } else { known.join(", ") };
    Err(Failure::new(Kind::NotFound, format!("{image} is not in the manifest list {list}"))
        .hint(format!("its images are: {hint}")))
}

/// Show a manifest list
#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    registry: RegistryFlags,
    /// A list in the store, else on a registry, or transport:…
    list: String,
}

impl Inspect {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let here = match self.list.parse::<Location>() {
            Ok(_) => None,
            Err(_) => lookup::find(store, &self.list)?,
        };
        let node = match here {
            Some(found) => {
                let bytes = store.read(&found.descriptor)?;
                Node::read(found.descriptor, bytes).map_err(|error| {
                    Failure::new(Kind::Invalid, format!("reading {}: {error}", self.list))
                })?
            }
            None => {
                let location = location(&self.list, "docker://")?;
                let source = Access::new(app, self.registry.reach()?).source(&location)?;
                app.wait(async {
                    let root = source.resolve().await.map_err(Failure::of)?;
                    Ok::<_, Failure>(transport::node(&*source, &root).await?)
                })??
            }
        };
        let shown = match &node {
            Node::Index(index) => serde_json::to_string_pretty(&**index),
            Node::Manifest(manifest) => {
                eprintln!("warning: {} is a single image, not a manifest list", self.list);
                serde_json::to_string_pretty(&**manifest)
            }
        };
        let shown =
            shown.map_err(|error| Failure::new(Kind::Invalid, format!("writing JSON: {error}")))?;
        outln!("{shown}");
        Ok(0)
    }
}

/// Remove images from a manifest list
#[derive(Debug, Args)]
pub struct Remove {
    /// The list
    list: String,
    /// The digests of the images
    #[arg(required = true)]
    images: Vec<String>,
}

impl Remove {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let root = update(app.store()?, &self.list, |index| {
            for image in &self.images {
                let digest = in_list(app, &index.manifests, &self.list, image)?;
                index.manifests.retain(|entry| entry.digest != digest);
            }
            Ok(())
        })?;
        outln!("{}", root.digest.hex());
        Ok(0)
    }
}

/// Remove manifest lists; their images stay if they have names of their own
#[derive(Debug, Args)]
pub struct Rm {
    /// Ignore missing lists
    #[arg(short, long)]
    ignore: bool,
    /// The lists
    #[arg(required = true)]
    lists: Vec<String>,
}

impl Rm {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        for text in &self.lists {
            match find(store, text)? {
                Some(list) => {
                    store.forget(list.index.digest(), Some(&list.name))?;
                    outln!("untagged: {}", list.name);
                }
                None if self.ignore => {}
                None => drop(require(store, text)?),
            }
        }
        Ok(0)
    }
}

/// Exit with 0 if a manifest list is in the store, else with 1
#[derive(Debug, Args)]
pub struct Exists {
    /// The list
    list: String,
}

impl Exists {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let found = lookup::find(app.store()?, &self.list)?;
        let there = found.is_some_and(|found| found.descriptor.media_type.is_index());
        Ok(u8::from(!there))
    }
}
