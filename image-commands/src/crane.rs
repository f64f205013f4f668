//! `rcopy pull`, `push`, `config`, `ls`: crane's everyday names for what `copy`, `inspect` and
//! `list-tags` do. A name without a transport is a registry's.

use std::path::{Path, PathBuf};

use app::place::Access;
use app::{App, Runnable, observed};
use clap::{Args, ValueEnum};
use image::Platform;
use options::ends::OneEnd;
use options::place::{location, name_where_it_goes};
use options::progress::Progress;
use options::{Failure, environment};
use task::Kind;
use transport::{CopyOptions, ImageSelector, Location, Select};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullFormat {
    /// A tarball for `docker load`
    Tarball,
    /// A directory in the OCI image layout
    Oci,
}

/// Write images to a tarball that Docker loads, or into an OCI layout
#[derive(Debug, Args)]
pub struct Pull {
    /// The images, then the file or directory
    #[arg(required = true, num_args = 2.., value_name = "IMAGE… PATH")]
    names: Vec<String>,
    /// Write this format
    #[arg(long, value_enum, default_value = "tarball")]
    format: PullFormat,
    /// Write this platform only (default: the machine's in a tarball, all in a layout)
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Accepted: an image in a layout always has its name there
    #[arg(long)]
    annotate_ref: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Pull {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let (path, names) = self.names.split_last().ok_or_else(|| Failure::usage("no path"))?;
        let path = environment::absolute(Path::new(path))?;
        if self.format == PullFormat::Tarball && names.len() > 1 {
            return Err(Failure::usage("only a layout can hold several images")
                .hint("use --format oci, or one file for each"));
        }
        let select = match (&self.platform, self.format) {
            (Some(platform), _) => Select::One(platform.clone()),
            (None, PullFormat::Oci) => Select::All,
            (None, PullFormat::Tarball) => Select::One(app.conf.settings.platform()),
        };
        for name in names {
            let from = location(name, "docker://")?;
            let named = ImageSelector::Name(name_where_it_goes(&from));
            let to = match self.format {
                PullFormat::Tarball => Location::DockerArchive(path.clone(), named),
                PullFormat::Oci => Location::Layout(path.clone(), named),
            };
            let options = CopyOptions {
                select: select.clone(),
                only_for: self.platform.iter().cloned().collect(),
                ..CopyOptions::default()
            };
            observed(&format!("pull {name}"), Progress::Auto, |task| {
                Access::new(app, self.end.reach_at(&from)?).copy(&from, &to, &options, task)
            })?;
        }
        Ok(0)
    }
}

/// Send an image from a tarball or an OCI layout to a registry, and print its name with the digest
#[derive(Debug, Args)]
pub struct Push {
    /// The tarball or directory
    path: PathBuf,
    /// The name on the registry
    image: String,
    /// Write the name with the digest to a file as well
    #[arg(long, value_name = "FILE")]
    image_refs: Option<PathBuf>,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Push {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let path = environment::absolute(&self.path)?;
        let to = location(&self.image, "docker://")?;
        let Location::Registry(name) = &to else {
            return Err(Failure::usage(format!("{to} is in no registry")));
        };
        let access = Access::new(app, self.end.reach_at(&to)?);
        let mut images = access.images_in(&path)?;
        let (from, _) = match (images.pop(), images.is_empty()) {
            (Some(only), true) => only,
            (None, _) => {
                let what = format!("there is no image in {}", path.display());
                return Err(Failure::new(Kind::NotFound, what));
            }
            (Some(_), false) => {
                let what = format!("{} holds several images", path.display());
                return Err(Failure::usage(what).hint("name one: `rcopy copy oci:PATH:NAME …`"));
            }
        };
        let options =
            CopyOptions { select: Select::All, referrers: true, ..CopyOptions::default() };
        let root = observed(&format!("push {to}"), Progress::Auto, |task| {
            access.copy(&from, &to, &options, task)
        })?;
        let written = format!("{}@{}", name.repository, root.digest);
        if let Some(file) = &self.image_refs {
            let failed = |error| Failure::io(format!("writing {}", file.display()), &error);
            std::fs::write(file, &written).map_err(failed)?;
        }
        outln!("{written}");
        Ok(0)
    }
}

/// Print the config of an image unchanged
#[derive(Debug, Args)]
pub struct PrintConfig {
    /// The image
    image: String,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for PrintConfig {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let at = location(&self.image, "docker://")?;
        let source = Access::new(app, self.end.reach_at(&at)?).source(&at)?;
        let platform = self.platform.unwrap_or_else(|| app.conf.settings.platform());
        let (_, image) = app.wait(transport::open(&*source, &platform))??;
        crate::inspect::raw(image.config().bytes())
    }
}

/// List the tags of a repository, one per line
#[derive(Debug, Args)]
pub struct Ls {
    /// The repository
    repository: String,
    /// Print full references: REPOSITORY:TAG
    #[arg(long)]
    full_ref: bool,
    /// Omit tags that hold signatures, attestations and SBOMs
    #[arg(short, short_alias = 'O', long)]
    omit_digest_tags: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Ls {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let at = location(&self.repository, "docker://")?;
        let access = Access::new(app, self.end.reach_at(&at)?);
        let (prefix, names) = match &at {
            Location::Registry(reference) => {
                let tags = app.wait(access.client()?.repo(&reference.repository).tags(None))??;
                (format!("{}:", reference.repository), tags)
            }
            other => (String::new(), access.names(other)?),
        };
        let prefix = if self.full_ref { prefix } else { String::new() };
        let shown = |name: &&String| !(self.omit_digest_tags && transport::is_digest_tag(name));
        names.iter().filter(shown).for_each(|name| outln!("{prefix}{name}"));
        Ok(0)
    }
}
