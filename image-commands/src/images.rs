//! `rbuild tag`, `untag`, `rmi`: names of images in the store.

use app::images::in_use;
use app::{App, Runnable, lookup, several};
use clap::Args;
use options::place::local_name;
use options::{Dialect, Failure};
use store::Store;
use task::Kind;

/// Give an image another name
#[derive(Debug, Args)]
pub struct Tag {
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
pub struct Untag {
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
pub struct Rmi {
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
