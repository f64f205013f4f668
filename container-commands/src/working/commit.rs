//! `rbuild commit`.

use std::path::{Path, PathBuf};

use app::place::{self, Access};
use app::{App, Runnable, lists, observed};
use builder::working;
use clap::Args;
use image::Reference;
use options::buildah::is_docker;
use options::commit::{CommitCompression, Times};
use options::ends::RetryFlags;
use options::environment::read_bounded;
use options::place::{local_name, location, transported};
use options::progress::Progress;
use options::registry::RegistryFlags;
use options::sign_copy::{SignFlags, Signer};
use options::{Dialect, Failure, environment, flags};
use serde_json::{Value, json};
use task::{Kind, Task};
use transport::{CopyOptions, Location, Select};

use super::locked;

/// Make an image from a working container, or from the changes of another container
#[derive(Debug, Args)]
pub struct Commit {
    /// Merge all layers into one
    #[arg(long)]
    squash: bool,
    /// Use these media types: oci or docker (default: as given to `from`)
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    #[command(flatten)]
    times: Times,
    /// Omit the history
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    omit_history: Option<bool>,
    /// Remove the container afterwards
    #[arg(long)]
    rm: bool,
    /// Write the image id to a file instead of printing it
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Add the image to this manifest list; create it if missing
    #[arg(long, value_name = "LIST")]
    manifest: Option<String>,
    #[command(flatten)]
    compress: CommitCompression,
    /// Add an annotation to the manifest
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Remove an annotation of the container
    #[arg(long, value_name = "KEY")]
    unsetannotation: Vec<String>,
    /// Add a label to the image
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Apply a Dockerfile instruction to the config: `ENV A=1`, `CMD ["run"]`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Merge a JSON document into the config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Add a file of this machine in a layer of its own (default destination: the same path)
    #[arg(long, value_name = "FILE[:DESTINATION]")]
    add_file: Vec<String>,
    /// Add what is in the container's volumes, in a layer of its own
    #[arg(long)]
    include_volumes: bool,
    /// Write digests and descriptor as JSON to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Add the annotation org.opencontainers.image.created (default: only as buildah)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    created_annotation: Option<bool>,
    /// Remove an environment variable of the image
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Add the label io.rbuild.version
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    identity_label: Option<bool>,
    /// Sign the image in the registry or dir: with this GPG key
    #[arg(long, value_name = "FINGERPRINT")]
    sign_by: Option<String>,
    /// Not supported: layers are not encrypted
    #[arg(long, value_name = "KEY", hide = true)]
    encryption_key: Vec<String>,
    /// Not supported: layers are not encrypted
    #[arg(long, value_name = "INDEX", hide = true, allow_hyphen_values = true)]
    encrypt_layer: Vec<String>,
    /// Set the comment in the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Set the author of the image
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// Print nothing but the image id
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    retry: RetryFlags,
    /// The container
    container: String,
    /// The name of the image, or the destination transport:…
    image: Option<String>,
}

impl Runnable for Commit {
    /// Makes the image and prints its id.
    fn run(self, app: &App) -> Result<u8, Failure> {
        self.refuse()?;
        let (names, elsewhere) = self.destination()?;
        let (epoch, keep_times) = self.times.resolve()?;
        let (compression, recompress) = self.compress.resolve(
            app.conf.paths.containers_conf()?.engine,
            elsewhere.as_ref(),
            app.conf.settings.room(),
        )?;
        let signer = self.signer(app, elsewhere.as_ref())?;
        let identity = ("io.rbuild.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let wish = working::Commit {
            squash: self.squash,
            docker: is_docker(self.format.as_deref())?,
            epoch,
            omit_history: self.omit_history.unwrap_or(false),
            compression,
            annotations: self.annotation.iter().map(|text| flags::pair(text)).collect(),
            labels: {
                let own = self.identity_label.unwrap_or(false).then_some(identity);
                let given = self.label.iter().map(|text| flags::pair(text));
                own.into_iter().chain(given).collect()
            },
            unset_annotations: self.unsetannotation.clone(),
            changes: self.change.clone(),
            config: self.config.as_deref().map(document).transpose()?,
            keep_times,
            created_annotation: self
                .created_annotation
                .unwrap_or_else(|| Dialect::spoken().names_base()),
            add_files: added(&self.add_file)?,
            add_trees: self.volumes(app)?,
            unset_env: self.unsetenv.clone(),
            names,
        };
        let progress = Progress::Auto.unless(self.quiet);
        let image = observed("commit", progress, |task| {
            let reach = self.retry.reach(self.registry.reach()?);
            let working = self.container(app, task)?;
            let _lease = app.store()?.lease()?;
            let image = working::commit(&working, &wish, &app.env(&reach)?, task)?;
            if let Some(to) = &elsewhere {
                let from = Location::Store(image.descriptor().digest.to_string());
                let options = CopyOptions {
                    select: Select::All,
                    recompress: recompress.clone(),
                    attempts: self.retry.attempts(),
                    ..CopyOptions::default()
                };
                let access = Access::new(app, reach.clone());
                let root = access.copy_ungated(&from, to, &options, task)?;
                if let Some(signer) = &signer {
                    place::sign(signer, &access, to, &root, task)?;
                }
            }
            if let Some(list) = &self.manifest {
                lists::add_to_list(app, list, image.descriptor())?;
            }
            if self.rm {
                working.remove()?;
            }
            Ok(image)
        })?;
        if let Some(file) = &self.metadata_file {
            let names: Vec<String> = wish.names.iter().map(ToString::to_string).collect();
            let metadata = json!({
                "containerimage.digest": image.descriptor().digest,
                "containerimage.config.digest": image.id(),
                "containerimage.descriptor": image.descriptor(),
                "image.name": names.join(","),
            });
            std::fs::write(file, format!("{metadata:#}\n"))
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
        }
        match &self.iidfile {
            Some(file) => std::fs::write(file, image.id().to_string())
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?,
            None => outln!("{}", image.id().hex()),
        }
        Ok(0)
    }
}

impl Commit {
    /// The data of the container's volumes, and where it is in the container.
    fn volumes(&self, app: &App) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
        let store = app.store()?;
        let found = containers::Containers::new(store.clone()).find(&self.container)?;
        let Some(found) = found.filter(|_| self.include_volumes) else { return Ok(Vec::new()) };
        let volumes = containers::Volumes::new(store.clone());
        let mounted = found.record().volumes.iter();
        let one = |one: &containers::MountedVolume| {
            Ok((volumes.get(&one.volume)?.path, one.target.clone()))
        };
        mounted.map(one).collect()
    }

    /// The container, locked where others could change it meanwhile.
    fn container(&self, app: &App, task: &Task) -> Result<working::WorkingContainer, Failure> {
        let store = app.store()?;
        let found = containers::Containers::new(store.clone()).find(&self.container)?;
        let program = found.filter(|found| found.kind() == containers::Kind::Program);
        let mut working = match program {
            Some(found) => {
                let image = &found.record().image;
                let row = found.row().clone();
                let mut working = working::WorkingContainer::of_program(store, row, image)?;
                working.mounted_on = found.mount_points();
                working.owners = found.owners();
                let command = found.record().command.join(" ");
                working.state.created_by = Some(command).filter(|command| !command.is_empty());
                working
            }
            None => locked(store, &self.container, task)?,
        };
        if let Some(message) = &self.message {
            working.state.history_comment = Some(message.clone());
            working.state.comment = Some(message.clone());
        }
        if self.author.is_some() {
            working.state.config.author.clone_from(&self.author);
        }
        Ok(working)
    }

    /// The key is looked up before anything is made.
    fn signer(&self, app: &App, to: Option<&Location>) -> Result<Option<Signer>, Failure> {
        match (&self.sign_by, to) {
            (None, _) => Ok(None),
            (key, Some(to)) => SignFlags::with_gpg(key.as_deref()).signer(app, &app.conf, to),
            (Some(_), None) => Err(Failure::usage("--sign-by: the store holds no GPG signatures")
                .hint("write the image to docker://NAME, or sign it with `push --sign-by`")),
        }
    }

    fn refuse(&self) -> Result<(), Failure> {
        let no = |flag: &str, hint: &str| {
            Err(Failure::usage(format!("{flag} is not supported")).hint(hint))
        };
        if !self.encryption_key.is_empty() || !self.encrypt_layer.is_empty() {
            return no("encrypting layers", "leave out --encryption-key and --encrypt-layer");
        }
        Ok(())
    }

    /// The names in the store, and where else the image goes.
    fn destination(&self) -> Result<(Vec<Reference>, Option<Location>), Failure> {
        let Some(text) = &self.image else { return Ok((Vec::new(), None)) };
        match transported(text) {
            Ok(Location::Store(name)) => Ok((vec![local_name(&name)?], None)),
            Ok(_) => Ok((Vec::new(), Some(location(text, "")?))),
            Err(_) => Ok((vec![local_name(text)?], None)),
        }
    }
}

/// The files of `--add-file`, and where each goes.
fn added(texts: &[String]) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
    let pairs = texts.iter().map(|text| {
        let (file, to) = text.split_once(':').unwrap_or((text, text));
        let file = environment::absolute(Path::new(file))?;
        match std::fs::metadata(&file) {
            Ok(about) if about.is_file() => Ok((file, PathBuf::from(to))),
            Ok(_) => Err(Failure::usage(format!("--add-file {text:?}: it is not a file"))),
            Err(error) => {
                Err(Failure::io(format!("--add-file: reading {}", file.display()), &error))
            }
        }
    });
    pairs.collect()
}

/// A JSON document in a file.
fn document(file: &Path) -> Result<Value, Failure> {
    let bytes = read_bounded(file, image::MAX_DOCUMENT)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new(Kind::Invalid, format!("reading {}: {error}", file.display()))
    })
}
