//! `rcopy list-tags`, `catalog`, `delete`, `digest`, `manifest-digest`.

use std::path::PathBuf;

use app::place::Access;
use app::{App, Runnable};
use clap::Args;
use image::{Digest, Platform, Reference};
use options::ends::OneEnd;
use options::names::NameFilter;
use options::place::location;
use options::{Dialect, Failure};
use registry_client::Target;
use serde_json::json;
use sign::lookaside::remove_signatures;
use task::Kind;
use transport::Location;

/// List the tags of a repository
#[derive(Debug, Args)]
pub struct ListTags {
    /// docker://NAME, or a layout or archive
    repository: String,
    /// Print one tag per line instead of JSON
    #[arg(long)]
    plain: bool,
    /// Omit tags that hold signatures, attestations and SBOMs
    #[arg(long)]
    omit_digest_tags: bool,
    #[command(flatten)]
    filter: NameFilter,
    #[command(flatten)]
    registry: OneEnd,
}

impl Runnable for ListTags {
    fn run(self, app: &App) -> Result<u8, Failure> {
        // A registry's name is enough; others have no default transport.
        let location = location(&self.repository, "docker://")?;
        let access = Access::new(app, self.registry.reach_at(&location)?);
        let limit = self.filter.ask().filter(|_| !self.omit_digest_tags);
        let names = match &location {
            Location::Registry(reference) => {
                app.wait(access.client()?.repo(&reference.repository).tags(limit))??
            }
            other => access.names(other)?,
        };
        let mut names = names;
        names.retain(|name| !(self.omit_digest_tags && transport::is_digest_tag(name)));
        let names = self.filter.apply(names)?;
        if self.plain {
            names.iter().for_each(|name| outln!("{name}"));
            return Ok(0);
        }
        let value = match &location {
            Location::Registry(reference) => {
                json!({"Repository": reference.repository.to_string(), "Tags": names})
            }
            _ => json!({"Tags": names}),
        };
        outln!("{value:#}");
        Ok(0)
    }
}

/// List the repositories of a registry
#[derive(Debug, Args)]
pub struct Catalog {
    /// The registry: registry.example[:PORT]
    registry: String,
    #[command(flatten)]
    filter: NameFilter,
    /// Print JSON instead of one repository per line
    #[arg(long)]
    json: bool,
    /// Print the registry in front of each repository
    #[arg(long, conflicts_with = "json")]
    full_ref: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Catalog {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let registry = self.registry.strip_prefix("docker://").unwrap_or(&self.registry);
        let registry = registry.trim_end_matches('/');
        if registry.contains('/') || registry.is_empty() {
            return Err(Failure::usage(format!(
                "{:?} is not the name of a registry",
                self.registry
            ))
            .hint("give a host and port without a repository; `rcopy list-tags` lists tags"));
        }
        let access = Access::new(app, self.end.reach_registry(registry)?);
        let names = app.wait(access.client()?.catalog(registry))??;
        let names = self.filter.apply(names)?;
        if self.json {
            outln!("{:#}", json!({"Registry": registry, "Repositories": names}));
        } else {
            let prefix = if self.full_ref { format!("{registry}/") } else { String::new() };
            names.iter().for_each(|name| outln!("{prefix}{name}"));
        }
        Ok(0)
    }
}

/// Delete an image with all its tags, or only one tag
///
/// A name with a tag deletes the manifest and all its other tags in the repository. On a terminal
/// it asks first. --tag-only deletes the one tag and keeps the manifest, if the registry supports
/// that.
#[derive(Debug, Args)]
pub struct Delete {
    /// The image
    image: String,
    /// Delete the tag only, if the registry supports that
    #[arg(long)]
    tag_only: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    registry: OneEnd,
}

impl Runnable for Delete {
    /// Deletes. A tag's manifest goes, and with it every other tag of it, as skopeo does; with
    /// `--tag-only` the manifest stays.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = location(&self.image, "docker://")?;
        let access = Access::new(app, self.registry.reach_at(&location)?);
        match &location {
            Location::Registry(reference) => self.delete_on_registry(app, &access, reference)?,
            Location::Store(name) => {
                let store = app.store()?;
                let found = app::lookup::require(store, name)?;
                match found.name {
                    Some(name) => drop(store.unname(&name)?),
                    None => drop(store.unpublish(found.descriptor.digest)?),
                }
            }
            other => access.delete(other)?,
        }
        if !matches!(location, Location::Registry(_)) {
            eprintln!("deleted {location}");
        }
        Ok(0)
    }
}

impl Delete {
    fn delete_on_registry(
        &self,
        app: &App,
        access: &Access<'_>,
        reference: &Reference,
    ) -> Result<(), Failure> {
        let repo = access.client()?.repo(&reference.repository);
        let target = Target::from(reference);
        let tag_only =
            self.tag_only || Dialect::spoken().deletes_tags() && matches!(target, Target::Tag(_));
        match (&target, tag_only) {
            (Target::Digest(_), true) => Err(Failure::usage(format!(
                "--tag-only {reference}: that is a digest, and deleting it deletes the image"
            ))
            .hint("name the tag, or leave --tag-only out")),
            (Target::Tag(tag), false) => {
                let digest = app.wait(repo.resolve(&target))??.digest;
                let what = format!("{digest} and every tag of it in {}", reference.repository);
                if !self.yes && !agreed(&format!("delete {what} (--tag-only: only {tag})?"))? {
                    return Err(Failure::new(Kind::Cancelled, "nothing was deleted"));
                }
                app.wait(repo.delete_manifest(&Target::Digest(digest)))??;
                eprintln!("deleted {what}");
                forget_signatures(app, reference, digest)
            }
            (target, _) => {
                app.wait(repo.delete_manifest(target))??;
                eprintln!("deleted {reference}");
                match target {
                    Target::Digest(digest) => forget_signatures(app, reference, *digest),
                    Target::Tag(_) => Ok(()),
                }
            }
        }
    }
}

/// Removes the signatures in the lookaside of an image that was deleted.
fn forget_signatures(app: &App, name: &Reference, image: Digest) -> Result<(), Failure> {
    // What is on a server is its owner's to remove.
    let Ok(directory) = app.conf.lookaside()?.directory(name, image) else { return Ok(()) };
    match remove_signatures(&directory)? {
        0 => {}
        _ => eprintln!("deleted the signatures in {}", directory.display()),
    }
    Ok(())
}

/// Asks for a yes at the terminal. Without a terminal the answer is no.
pub(crate) fn agreed(question: &str) -> Result<bool, Failure> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(true);
    }
    eprintln!("{question} [y/N]");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::io("reading the answer", &error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Print the digest of an image
#[derive(Debug, Args)]
pub struct DigestOf {
    /// The image: transport:…, or a name on a registry
    image: String,
    /// Print the digest of the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print the full reference: NAME@DIGEST
    #[arg(long)]
    full_ref: bool,
    #[command(flatten)]
    registry: OneEnd,
}

impl Runnable for DigestOf {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = location(&self.image, "docker://")?;
        let access = Access::new(app, self.registry.reach_at(&location)?);
        let source = access.source(&location)?;
        let digest = app.wait(async {
            match &self.platform {
                None => {
                    let root = source.resolve().await.map_err(Failure::of)?;
                    Ok::<_, Failure>(root.digest)
                }
                Some(platform) => {
                    let (_, image) = transport::open(&*source, platform).await?;
                    Ok(image.manifest().digest())
                }
            }
        })??;
        match &location {
            Location::Registry(name) if self.full_ref => outln!("{}@{digest}", name.repository),
            other if self.full_ref => {
                return Err(Failure::usage(format!("--full-ref: {other} is in no registry")));
            }
            _ => outln!("{digest}"),
        }
        Ok(0)
    }
}

/// Print the digest of a manifest in a file
#[derive(Debug, Args)]
pub struct ManifestDigest {
    /// The file; - is standard input
    file: PathBuf,
}

impl ManifestDigest {
    /// Prints.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn run(self) -> Result<u8, Failure> {
        outln!(
            "{}",
            image::Digest::of(&options::environment::read_bounded(
                &self.file,
                image::MAX_DOCUMENT
            )?)
        );
        Ok(0)
    }
}
