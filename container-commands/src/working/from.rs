//! `rbuild from`.

use std::path::PathBuf;

use app::place::own_name_of;
use app::{App, Runnable, observed};
use builder::Pull;
use builder::working::{self, BeginOptions, LocalImageName};
use clap::Args;
use options::buildah::is_docker;
use options::container::{MapFlags, SharedFlags, refuse_volumes};
use options::ends::RetryFlags;
use options::place::location;
use options::platform::PlatformFlags;
use options::progress::Progress;
use options::registry::RegistryFlags;
use options::{Dialect, Failure};
use runtime::Ids;

/// When to query a registry for an image, with buildah's values.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PullFlags {
    /// Pull the image: missing (default), always, never or false, newer or true
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pull: Option<String>,
    /// Pull the image every time
    #[arg(long, hide = true, conflicts_with_all = ["pull", "pull_never"])]
    pull_always: bool,
    /// Never pull the image
    #[arg(long, hide = true, conflicts_with = "pull")]
    pull_never: bool,
}

impl PullFlags {
    /// The policy.
    ///
    /// # Errors
    /// There is no such policy.
    pub(crate) fn pull(&self) -> Result<Pull, Failure> {
        if self.pull_always {
            return Ok(Pull::Always);
        }
        if self.pull_never {
            return Ok(Pull::Never);
        }
        match self.pull.as_deref() {
            None | Some("missing" | "ifmissing") => Ok(Pull::Missing),
            Some("always") => Ok(Pull::Always),
            Some("never" | "false") => Ok(Pull::Never),
            Some("newer" | "ifnewer" | "true") => Ok(Pull::Newer),
            Some(other) => Err(Failure::usage(format!("--pull={other} is not supported"))
                .hint("missing, always, never and newer are supported")),
        }
    }
}

/// Make a working container from an image, or from scratch
#[derive(Debug, Args)]
pub struct From {
    /// Name the container (default: IMAGE-working-container)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Name the container IMAGE-SUFFIX (default: working-container)
    #[arg(long, value_name = "SUFFIX", conflicts_with = "name")]
    suffix: Option<String>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Make `commit` use these media types: oci or docker (default: $BUILDAH_FORMAT, oci)
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print nothing but the container's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    pull: PullFlags,
    #[command(flatten)]
    platform: PlatformFlags,
    #[command(flatten)]
    settings: SharedFlags,
    #[command(flatten)]
    maps: MapFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    retry: RetryFlags,
    /// The image: NAME, an id, scratch, or transport:…
    image: String,
}

/// What the image of an archive or a directory is called: as `pull` calls it.
fn called(app: &App, image: &str) -> Result<LocalImageName, Failure> {
    let transports = ["oci:", "oci-archive:", "docker-archive:", "dir:"];
    let elsewhere = transports.iter().any(|transport| image.starts_with(transport));
    if !elsewhere || !Dialect::spoken().names_by_content() {
        return Ok(LocalImageName::ByPath);
    }
    Ok(match own_name_of(app, &location(image, "")?)? {
        Some(name) => LocalImageName::Image(name),
        None => LocalImageName::Transport(image.split(':').next().unwrap_or_default().to_owned()),
    })
}

impl Runnable for From {
    fn run(self, app: &App) -> Result<u8, Failure> {
        // Wrong flags are reported before anything is fetched.
        let mut spec = self.settings.isolated(&self.maps)?;
        refuse_volumes(&spec)?;
        let mut _choosing = None;
        if let Some(Ids::Auto(count)) = spec.isolation.ids {
            // Until others can see the record.
            let (maps, lock) = containers::free_ids(app.store()?, count)?;
            (spec.isolation.ids, _choosing) = (Some(Ids::Maps(maps)), Some(lock));
        }
        let called = called(app, &self.image)?;
        let wish = BeginOptions {
            called,
            image: self.image,
            id: task::random_id(),
            name: self.name,
            suffix: self.suffix,
            platform: self.platform.platform(),
            pull: self.pull.pull()?,
            docker: is_docker(self.format.as_deref())?.unwrap_or(false),
            spec,
        };
        // What is here already is no work to tell of.
        let missing = matches!(wish.pull, Pull::Missing | Pull::Never);
        let found = app::lookup::find(app.store()?, &wish.image);
        let here = wish.image == "scratch" || missing && matches!(found, Ok(Some(_)));
        let progress = if self.quiet || here { Progress::Quiet } else { Progress::Auto };
        let working = observed("from", progress, |task| {
            let env = app.env(&self.retry.reach(self.registry.reach()?))?;
            Ok(app.wait(working::create(&wish, &env, task))??)
        })?;
        if let Some(file) = &self.cidfile {
            let written = std::fs::write(file, working.id());
            if let Err(error) = written {
                working.remove()?;
                return Err(Failure::io(format!("writing {}", file.display()), &error));
            }
        }
        outln!("{}", working.name());
        Ok(0)
    }
}
