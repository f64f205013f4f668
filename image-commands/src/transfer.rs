//! `rbuild pull`, `push`, `save`, `load`: images in and out of the store.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use app::place::{self, Access};
use app::secret_flags::SecretFlags;
use app::{App, Runnable, lookup, observed};
use clap::{Args, ValueEnum};
use image::{Platform, Reference};
use options::compress::PushCompression;
use options::place::location;
use options::platform::PlatformFlags;
use options::progress::Progress;
use options::sign_copy::SignFlags;
use options::{Dialect, Failure, environment};
use task::{Kind, Task};
use transport::at::{Archive, Form};
use transport::{CopyOptions, Format, ImageSelector, Location, Select};

use crate::transfer_flags::{DocumentFormat, TransferFlags};

/// Fetch images from registries or other locations
#[derive(Debug, Args)]
pub struct Pull {
    /// Images: NAME[:TAG][@DIGEST], or transport:…
    #[arg(required = true)]
    images: Vec<String>,
    #[command(flatten)]
    platform: PlatformFlags,
    /// Pull every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Fetch every image of an index, not only this platform's
    #[arg(long)]
    all_platforms: bool,
    /// Print the image id only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    transfer: TransferFlags,
    /// When to query the registry.
    #[arg(skip)]
    pull: PullPolicy,
}

/// When to query a registry for an image that may be in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum PullPolicy {
    #[default]
    Always,
    Missing,
    Never,
}

impl Runnable for Pull {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let progress = self.transfer.progress(self.quiet);
        let platform = self.platform.platform();
        for text in &self.texts(app)? {
            if let Some(id) = self.there(app, text, &platform)? {
                outln!("{id}");
                continue;
            }
            let from = place::remote_locations(app, text)?;
            let select = match self.all_platforms {
                true => Select::All,
                false => Select::One(platform.clone()),
            };
            let options = CopyOptions {
                select,
                attempts: self.transfer.attempts(),
                ..CopyOptions::default()
            };
            let (name, root) = place::first_there(&from, |from| {
                let name = place::own_name_of(app, from)?;
                // A copy to the store needs a name; it is taken away again.
                let called = name
                    .clone()
                    .unwrap_or_else(|| format!("localhost/nameless-{}:latest", task::random_id()));
                let root = observed(&format!("pull {text}"), progress, |task| {
                    let access = Access::unpacking(app, self.transfer.reach()?, platform.clone());
                    access.copy(from, &Location::Store(called.clone()), &options, task)
                })?;
                if name.is_none() {
                    app.store()?.publish_untagged(&root)?;
                    app.store()?.unname(&called)?;
                }
                Ok((name.unwrap_or_else(|| root.digest.to_string()), root))
            })?;
            let image = app.store()?.image(&root, &platform)?;
            if progress.tells() {
                eprintln!("pulled {name} {}", root.digest);
            }
            outln!("{}", Dialect::spoken().pulled(&name, image.id()));
        }
        Ok(0)
    }
}

impl Pull {
    /// Takes `--policy always|newer|missing|never`, as podman and buildah have it, for what it
    /// means here; a file is a signature policy.
    ///
    /// # Errors
    /// It is a word, and no file is called so.
    pub fn take_policy(&mut self, policy: &mut Option<PathBuf>) -> Result<(), Failure> {
        let word = policy.as_deref().and_then(Path::to_str);
        self.pull = match word {
            Some("always" | "newer" | "ifnewer") => PullPolicy::Always,
            Some("missing" | "ifmissing") => PullPolicy::Missing,
            Some("never") => PullPolicy::Never,
            Some(word) if !word.contains(['/', '.']) && !Path::new(word).exists() => {
                return Err(Failure::usage(format!("unsupported pull policy {word:?}")).hint(
                    "it is always, missing, newer, never, or the file of a signature policy",
                ));
            }
            _ => return Ok(()),
        };
        *policy = None;
        Ok(())
    }

    /// The id of an image that need not be fetched.
    fn there(&self, app: &App, text: &str, platform: &Platform) -> Result<Option<String>, Failure> {
        if self.pull == PullPolicy::Always {
            return Ok(None);
        }
        let found = match lookup::find(app.store()?, text)? {
            None if self.pull == PullPolicy::Missing => return Ok(None),
            Some(found) => found,
            None => lookup::require(app.store()?, text)?,
        };
        let image = app.store()?.image(&found.descriptor, platform)?;
        // That of another platform is not the one that is asked for.
        if self.pull == PullPolicy::Missing && image.platform().serves(platform).is_none() {
            return Ok(None);
        }
        let id = image.id();
        Ok(Some(Dialect::spoken().pulled(found.name.as_deref().unwrap_or(text), id)))
    }

    /// The images; with `--all-tags` those of every tag.
    fn texts(&self, app: &App) -> Result<Vec<String>, Failure> {
        if !self.all_tags {
            return Ok(self.images.clone());
        }
        let mut all = Vec::new();
        for text in &self.images {
            let refuse = |why: &str| Failure::usage(format!("--all-tags {text:?}: {why}"));
            let at = place::remote_locations(app, text)?;
            let Some(Location::Registry(reference)) = at.first() else {
                let transport = text.split_once(':').map_or("this", |(transport, _)| transport);
                return Err(refuse(&format!(
                    "pulling all tags is not supported for {transport} transport"
                )));
            };
            let last = text.rsplit('/').next().unwrap_or(text);
            if last.contains([':', '@']) {
                return Err(refuse("it names one image").hint("leave the tag out"));
            }
            let access = Access::new(app, self.transfer.reach()?);
            let tags = app.wait(access.client()?.repo(&reference.repository).tags(None))??;
            let tags = tags.iter().filter(|tag| !transport::is_digest_tag(tag));
            all.extend(tags.map(|tag| format!("docker://{}:{tag}", reference.repository)));
        }
        Ok(all)
    }
}

/// Push an image to a registry or another location
#[derive(Debug, Args)]
pub struct Push {
    /// The image in the store
    image: String,
    /// The destination: NAME on a registry, or transport:… (default: the image's own name)
    destination: Option<String>,
    /// Push every image of an index
    #[arg(long)]
    all: bool,
    /// Convert documents to this format
    #[arg(short, long, value_enum)]
    format: Option<DocumentFormat>,
    /// Write the digest to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Sign the image in the registry or dir: with this GPG key
    #[arg(long, value_name = "FINGERPRINT")]
    sign_by: Option<String>,
    /// Do not push signatures
    #[arg(long)]
    remove_signatures: bool,
    /// Remove the image from the store after the push
    #[arg(long)]
    rm: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    transfer: TransferFlags,
    #[command(flatten)]
    compress: PushCompression,
    #[command(flatten)]
    secrets: SecretFlags,
}

impl Runnable for Push {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let found = lookup::require(app.store()?, &self.image)?;
        let from = Location::Store(
            found.name.clone().unwrap_or_else(|| found.descriptor.digest.to_string()),
        );
        let to = match (&self.destination, &found.name) {
            (Some(text), _) => location(text, "docker://")?,
            (None, Some(name)) => own_name(name)?,
            (None, None) => {
                return Err(Failure::usage("an image without a name needs a destination"));
            }
        };
        let signer = SignFlags::with_gpg(self.sign_by.as_deref()).signer(app, &app.conf, &to)?;
        let guard = self.secrets.guard(app)?;
        let options = CopyOptions {
            select: Select::All,
            // What is attached in the store goes where the image goes.
            referrers: self.format.is_none() && to.capabilities().referrers,
            format: self.format.map(Format::from),
            recompress: self.compress.recompress(&app.conf, &to)?,
            gzip_index: self.compress.gzip_index,
            signatures: !self.remove_signatures,
            attempts: self.transfer.attempts(),
            ..CopyOptions::default()
        };
        let progress = self.transfer.progress(self.quiet);
        let root = observed(&format!("push {to}"), progress, |task| {
            let access = Access::new(app, self.transfer.reach()?);
            let root = place::copy_between(&access, &from, &access, &to, &*guard, &options, task)?;
            if let Some(signer) = signer {
                place::sign(&signer, &access, &to, &root, task)?;
            }
            Ok(root)
        })?;
        if let Some(file) = &self.digestfile {
            crate::copy::write_digest(file, &root)?;
        }
        if self.rm {
            app::images::forget(app, &self.image)?;
        }
        if progress.tells() {
            eprintln!("pushed {to} {}", root.digest);
        }
        Ok(0)
    }
}

pub(crate) fn own_name(name: &str) -> Result<Location, Failure> {
    let reference: Reference = name.parse()?;
    if reference.repository.registry() == "localhost" {
        return Err(Failure::usage(format!("{name} is a name of this machine, not of a registry"))
            .hint(format!(
                "name the destination: `rbuild push {name} registry.example/team/app:tag`"
            )));
    }
    Ok(Location::Registry(reference))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArchiveFormat {
    DockerArchive,
    OciArchive,
    OciDir,
    DockerDir,
}

/// Write an image to an archive or directory
#[derive(Debug, Args)]
pub struct Save {
    /// The archive or directory; - is standard output (default: -)
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Write this format
    #[arg(long, value_enum, default_value = "docker-archive")]
    format: ArchiveFormat,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// The images; a directory takes one
    #[arg(required = true)]
    images: Vec<String>,
}

impl Runnable for Save {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self.output.as_deref() {
            Some(path) if path != Path::new("-") => self.write(app, path)?,
            _ => self.pipe(app)?,
        }
        Ok(0)
    }
}

impl Save {
    /// Writes an archive to standard output.
    fn pipe(&self, app: &App) -> Result<(), Failure> {
        if !matches!(self.format, ArchiveFormat::DockerArchive | ArchiveFormat::OciArchive) {
            return Err(Failure::usage("a directory is not written to standard output")
                .hint("say where with --output"));
        }
        if std::io::stdout().is_terminal() {
            return Err(Failure::usage("an archive is not written to a terminal")
                .hint("say where with --output, or send it into a file or pipe"));
        }
        let failed = |error: std::io::Error| Failure::io("writing to standard output", &error);
        let directory = tempfile::tempdir_in(environment::scratch()).map_err(failed)?;
        let path = directory.path().join("archive");
        self.write(app, &path)?;
        let mut archive = std::fs::File::open(&path).map_err(failed)?;
        std::io::copy(&mut archive, &mut std::io::stdout()).map_err(failed)?;
        Ok(())
    }

    fn write(&self, app: &App, path: &Path) -> Result<(), Failure> {
        let path = environment::absolute(path)?;
        let progress = Progress::Auto.unless(self.quiet);
        let what = format!("save {}", self.images.join(" "));
        observed(&what, progress, |task| self.save(app, &path, task))
    }

    fn save(&self, app: &App, path: &Path, task: &Task) -> Result<(), Failure> {
        let form = match self.format {
            ArchiveFormat::DockerArchive => Some(Form::Docker),
            ArchiveFormat::OciArchive => Some(Form::Oci),
            _ => None,
        };
        let archive = match (form, self.images.len()) {
            (Some(form), 2..) => Some(Archive::create(path, form)?),
            (None, 2..) if matches!(self.format, ArchiveFormat::DockerDir) => {
                return Err(Failure::usage("a directory holds one image")
                    .hint("use another --format for several"));
            }
            _ => None,
        };
        let access = Access::new(app, options::Reach::default());
        for text in &self.images {
            let found = lookup::require(app.store()?, text)?;
            let name = found.name.unwrap_or_else(|| found.descriptor.digest.to_string());
            let from = Location::Store(name.clone());
            let named = match name.starts_with("sha256:") {
                true => ImageSelector::Only,
                false => ImageSelector::Name(name),
            };
            if let Some(archive) = &archive {
                let source = access.source(&from)?;
                let (sink, options) = (archive.image(named), CopyOptions::default());
                app.wait(transport::copy(&*source, &sink, &transport::Open, &options, task))??;
                continue;
            }
            let path = path.to_owned();
            let to = match self.format {
                ArchiveFormat::DockerArchive => Location::DockerArchive(path, named),
                ArchiveFormat::OciArchive => Location::OciArchive(path, named),
                ArchiveFormat::OciDir => Location::Layout(path, named),
                ArchiveFormat::DockerDir => Location::Directory(path),
            };
            let options =
                CopyOptions { referrers: to.capabilities().referrers, ..CopyOptions::default() };
            access.copy_ungated(&from, &to, &options, task)?;
        }
        if let Some(archive) = &archive {
            app.wait(archive.finish())??;
        }
        Ok(())
    }
}

/// Read images from an archive or directory
#[derive(Debug, Args)]
pub struct Load {
    /// The archive or directory; - is standard input (default: -)
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Print the name only
    #[arg(short, long)]
    quiet: bool,
}

impl Runnable for Load {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let piped = match self.input.as_deref() {
            Some(path) if path != Path::new("-") => None,
            _ => Some(piped("name it with --input, or send it in: rbuild load < FILE")?),
        };
        let given = piped.as_ref().map(tempfile::NamedTempFile::path).or(self.input.as_deref());
        let path = environment::absolute(given.unwrap_or(Path::new("-")))?;
        std::fs::metadata(&path)
            .map_err(|error| Failure::io(format!("opening {}", path.display()), &error))?;
        let progress = Progress::Auto.unless(self.quiet);
        let images = observed(&format!("load {}", path.display()), progress, |task| {
            let access = Access::unpacking(app, options::Reach::default(), Platform::host());
            let mut names = Vec::new();
            for (from, name) in access.images_in(&path)? {
                access.copy(
                    &from,
                    &Location::Store(name.clone()),
                    &CopyOptions::default(),
                    task,
                )?;
                names.push(name);
            }
            Ok(names)
        })?;
        if images.is_empty() {
            return Err(Failure::new(
                Kind::NotFound,
                format!("there is no image in {}", path.display()),
            ));
        }
        for name in images {
            outln!("{}{name}", if self.quiet { "" } else { "Loaded image: " });
        }
        Ok(0)
    }
}

/// An archive that comes through standard input, in a file.
///
/// # Errors
/// A terminal is there instead, and `hint` says what to do; it cannot be read or kept.
pub(super) fn piped(hint: &str) -> Result<tempfile::NamedTempFile, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::usage("no archive is read from a terminal").hint(hint));
    }
    let failed = |error: std::io::Error| Failure::io("reading standard input", &error);
    let mut file = tempfile::NamedTempFile::new_in(environment::scratch()).map_err(failed)?;
    std::io::copy(&mut std::io::stdin(), &mut file).map_err(failed)?;
    Ok(file)
}
