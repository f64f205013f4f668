//! `rcopy copy`, `inspect`, `list-tags`, `delete`, `digest`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use image::{Config, Descriptor, Document, Platform, Reference};
use registry_client::Target;
use serde_json::{Value, json};
use task::{Kind, Task};
use transport::{CopyOptions, Format, Location, Select, Source};

use super::place::{self, Access};
use super::registry_flags::{RegistryFlags, credential};
use crate::app::{App, Reach, observed};
use crate::format;
use crate::render::Progress;
use crate::report::{self, Failure};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    Oci,
    #[value(alias = "docker")]
    V2s2,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MultiArch {
    System,
    All,
    IndexOnly,
}

/// Copy an image from one place to another
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Where from: docker://NAME, oci:PATH[:NAME], oci-archive:, docker-archive:, dir:, store:NAME
    source: String,
    /// Where to: the same
    destination: String,
    /// Every image of an index, not only this platform's
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// What to copy of an index: system, all or index-only
    #[arg(long, value_enum, conflicts_with_all = ["all", "platform"])]
    multi_arch: Option<MultiArch>,
    /// Only this platform; several give a smaller index
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Fail rather than change a digest
    #[arg(long)]
    preserve_digests: bool,
    /// Convert documents to this family
    #[arg(short, long, value_enum)]
    format: Option<FormatName>,
    /// Copy signatures, SBOMs and whatever else refers to the image as well
    #[arg(long)]
    referrers: bool,
    /// Write the digest to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// How often a broken transfer is tried again
    #[arg(long, visible_alias = "retry", value_name = "TIMES", default_value_t = 3)]
    retry_times: u32,
    /// Say what would be copied, and copy nothing
    #[arg(long)]
    dry_run: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    #[command(flatten)]
    ends: EndFlags,
}

/// How the registries at both ends are reached.
#[derive(Debug, Args)]
struct EndFlags {
    /// Whether the source's certificates must be valid; false also allows plain HTTP
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Registry")]
    src_tls_verify: Option<bool>,
    /// Whether the destination's certificates must be valid; false also allows plain HTTP
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Registry")]
    dest_tls_verify: Option<bool>,
    /// User and password for the source
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Registry")]
    src_creds: Option<String>,
    /// User and password for the destination
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Registry")]
    dest_creds: Option<String>,
    /// Do not log in at the source
    #[arg(long, conflicts_with = "src_creds", help_heading = "Registry")]
    src_no_creds: bool,
    /// Do not log in at the destination
    #[arg(long, conflicts_with = "dest_creds", help_heading = "Registry")]
    dest_no_creds: bool,
    /// Credentials file for the source
    #[arg(long, value_name = "FILE", help_heading = "Registry")]
    src_authfile: Option<PathBuf>,
    /// Credentials file for the destination
    #[arg(long, value_name = "FILE", help_heading = "Registry")]
    dest_authfile: Option<PathBuf>,
    /// Directory of certificates for the source
    #[arg(long, value_name = "DIR", help_heading = "Registry")]
    src_cert_dir: Option<PathBuf>,
    /// Directory of certificates for the destination
    #[arg(long, value_name = "DIR", help_heading = "Registry")]
    dest_cert_dir: Option<PathBuf>,
}

fn reach(
    tls_verify: Option<bool>,
    creds: Option<&str>,
    none: bool,
    authfile: Option<&PathBuf>,
    cert_dir: Option<&PathBuf>,
) -> Result<Reach, Failure> {
    let credential = match (creds, none) {
        (Some(creds), _) => Some(credential(creds)?),
        (None, true) => Some(registry_client::Credential::Anonymous),
        (None, false) => None,
    };
    Ok(Reach { tls_verify, credential, authfile: authfile.cloned(), cert_dir: cert_dir.cloned() })
}

impl EndFlags {
    fn source(&self) -> Result<Reach, Failure> {
        let (file, dir) = (self.src_authfile.as_ref(), self.src_cert_dir.as_ref());
        reach(self.src_tls_verify, self.src_creds.as_deref(), self.src_no_creds, file, dir)
    }

    fn destination(&self) -> Result<Reach, Failure> {
        let (file, dir) = (self.dest_authfile.as_ref(), self.dest_cert_dir.as_ref());
        reach(self.dest_tls_verify, self.dest_creds.as_deref(), self.dest_no_creds, file, dir)
    }
}

impl Copy {
    /// Copies.
    ///
    /// # Errors
    /// A place fails; the policy refuses the image.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let (from, to) =
            (place::location(&self.source, "")?, place::location(&self.destination, "")?);
        let options = CopyOptions {
            select: self.select(),
            preserve_digests: self.preserve_digests,
            format: self.format(&from, &to),
            referrers: self.referrers,
            attempts: self.retry_times.saturating_add(1),
            ..CopyOptions::default()
        };
        let progress = if self.quiet { Progress::Quiet } else { self.progress };
        let root = observed(&format!("copy to {to}"), progress, |task| {
            let source = Access { app, reach: self.ends.source()?, unpack: Some(Platform::host()) };
            let sink =
                Access { app, reach: self.ends.destination()?, unpack: Some(Platform::host()) };
            if self.dry_run {
                return self.plan(app, &*source.source(&from)?, &options, task);
            }
            place::copy_between(&source, &from, &sink, &to, &*app.gate()?, &options, task)
        })?;
        if let Some(file) = &self.digestfile {
            std::fs::write(file, root.digest.to_string())
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
        }
        if !self.quiet && !self.dry_run && self.progress != Progress::Rawjson {
            eprintln!("copied {from} to {to} {}", root.digest);
        }
        Ok(0)
    }

    fn format(&self, from: &Location, to: &Location) -> Option<Format> {
        match (self.format, from, to) {
            (Some(FormatName::Oci), ..) => Some(Format::Oci),
            (Some(FormatName::V2s2), ..) => Some(Format::Docker),
            // The archive holds no manifest whose digest could be kept, and other readers of
            // layouts take OCI documents only.
            (
                None,
                Location::DockerArchive(..),
                Location::Layout(..) | Location::OciArchive(..),
            ) if !self.preserve_digests => Some(Format::Oci),
            _ => None,
        }
    }

    fn select(&self) -> Select {
        match (self.all, self.multi_arch, &self.platform[..]) {
            (true, ..) | (_, Some(MultiArch::All), _) => Select::All,
            (_, Some(MultiArch::IndexOnly), _) => Select::IndexOnly,
            (_, _, []) => Select::One(Platform::host()),
            (_, _, [one]) => Select::One(one.clone()),
            (_, _, several) => Select::List(several.to_vec()),
        }
    }

    fn plan(
        &self,
        app: &App,
        source: &dyn Source,
        options: &CopyOptions,
        task: &Task,
    ) -> Result<Descriptor, Failure> {
        let plan = app.wait(transport::Plan::new(source, options, task))??;
        for leaf in plan.leaves() {
            outln!("{} {} {}", leaf.role.as_str(), leaf.descriptor.digest, leaf.descriptor.size);
        }
        outln!("{} {} bytes in all", plan.root().digest, plan.size());
        Ok(plan.root().clone())
    }
}

/// Show what an image is, without copying it
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Which image
    image: String,
    /// The manifest as it is
    #[arg(long)]
    raw: bool,
    /// The configuration; with --raw, as it is
    #[arg(long)]
    config: bool,
    /// A Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Do not list the repository's tags
    #[arg(short = 'n', long)]
    no_tags: bool,
    /// Which image of an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Inspect {
    /// Shows.
    ///
    /// # Errors
    /// The image is not there.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let location = place::location(&self.image, "")?;
        let access = Access::new(app, self.registry.reach()?);
        let source = access.source(&location)?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let resolving = async {
            let root = source.resolve().await.map_err(|cause| report::cause(&cause))?;
            if self.raw && !self.config {
                let node = transport::node(&*source, &root).await?;
                return Ok::<_, Failure>((root, Shown::Raw(node.bytes().clone())));
            }
            let (root, image) = transport::open(&*source, &platform).await?;
            Ok((root, Shown::Image(Box::new(image))))
        };
        let (root, shown) = app.wait(resolving)??;
        match shown {
            Shown::Raw(bytes) => raw(&bytes),
            Shown::Image(image) if self.config && self.raw => raw(image.config().bytes()),
            Shown::Image(image) if self.config => self.show(&config_json(image.config())?),
            Shown::Image(image) => {
                let tags = match &location {
                    Location::Registry(reference) if !self.no_tags && self.needs_tags() => {
                        app.wait(access.client()?.repo(&reference.repository).tags(None))?.ok()
                    }
                    _ => None,
                };
                self.show(&summary(&location, &root, &image, tags))
            }
        }
    }

    fn needs_tags(&self) -> bool {
        self.format.as_ref().is_none_or(|format| format.contains("RepoTags") || format == "json")
    }

    fn show(&self, value: &Value) -> Result<u8, Failure> {
        match &self.format {
            None => outln!("{value:#}"),
            Some(template) => outln!("{}", format::template(template, value)?),
        }
        Ok(0)
    }
}

enum Shown {
    Raw(bytes::Bytes),
    Image(Box<image::Image>),
}

fn raw(bytes: &[u8]) -> Result<u8, Failure> {
    use std::io::Write;
    std::io::stdout().write_all(bytes).map_err(|error| Failure::io("writing to stdout", &error))?;
    Ok(0)
}

fn config_json(config: &Document<Config>) -> Result<Value, Failure> {
    serde_json::from_slice(config.bytes())
        .map_err(|error| Failure::new(Kind::Invalid, format!("reading config: {error}")))
}

/// The summary in skopeo's words.
fn summary(
    location: &Location,
    root: &Descriptor,
    image: &image::Image,
    tags: Option<Vec<String>>,
) -> Value {
    let config = image.config();
    let name = match location {
        Location::Registry(reference) => reference.repository.to_string(),
        _ => String::new(),
    };
    let layers = &image.manifest().layers;
    let data = layers.iter().map(|layer| {
        let annotations = (!layer.annotations.is_empty()).then_some(&layer.annotations);
        json!({"MIMEType": layer.media_type, "Digest": layer.digest, "Size": layer.size, "Annotations": annotations})
    });
    json!({
        "Name": name, "Digest": root.digest, "RepoTags": tags.unwrap_or_default(),
        "Created": config.created, "DockerVersion": config.rest.get("docker_version").cloned().unwrap_or("".into()),
        "Labels": config.config.labels, "Architecture": config.architecture, "Os": config.os,
        "Layers": layers.iter().map(|layer| layer.digest).collect::<Vec<_>>(),
        "LayersData": data.collect::<Vec<_>>(),
        "Env": config.config.env,
    })
}

/// List the tags of a repository
#[derive(Debug, Args)]
pub(crate) struct ListTags {
    /// docker://NAME, or a layout or archive
    repository: String,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl ListTags {
    /// Lists, as JSON.
    ///
    /// # Errors
    /// There is no such repository.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let location = place::location(&self.repository, "")?;
        let access = Access::new(app, self.registry.reach()?);
        let value = match &location {
            Location::Registry(reference) => {
                let repo = access.client()?.repo(&reference.repository);
                let tags = app.wait(repo.tags(None))??;
                json!({"Repository": reference.repository.to_string(), "Tags": tags})
            }
            other => json!({"Tags": access.names(other)?}),
        };
        outln!("{value:#}");
        Ok(0)
    }
}

/// Delete an image, or only its tag
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Which image
    image: String,
    /// Remove the tag only; the registry may not be able to
    #[arg(long)]
    tag_only: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Delete {
    /// Deletes. A tag's manifest goes, and with it every other tag of it, as skopeo does; with
    /// `--tag-only` the manifest stays.
    ///
    /// # Errors
    /// The image is not there; the registry does not delete.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let location = place::location(&self.image, "")?;
        let access = Access::new(app, self.registry.reach()?);
        match &location {
            Location::Registry(reference) => self.delete_on_registry(app, &access, reference)?,
            Location::Store(name) => {
                let store = app.store()?;
                let found = super::lookup::require(store, name)?;
                match found.name {
                    Some(name) => drop(store.unname(&name)?),
                    None => drop(store.unpublish(found.descriptor.digest)?),
                }
            }
            other => access.delete(other)?,
        }
        eprintln!("deleted {location}");
        Ok(0)
    }

    fn delete_on_registry(
        &self,
        app: &App,
        access: &Access<'_>,
        reference: &Reference,
    ) -> Result<(), Failure> {
        let repo = access.client()?.repo(&reference.repository);
        let target = Target::from(reference);
        let target = match (&target, self.tag_only) {
            (Target::Tag(_), false) => Target::Digest(app.wait(repo.resolve(&target))??.digest),
            _ => target,
        };
        Ok(app.wait(repo.delete_manifest(&target))??)
    }
}

/// Print the digest of an image
#[derive(Debug, Args)]
pub(crate) struct DigestOf {
    /// Which image: transport:…, or a manifest file
    image: String,
    /// Of an index, the digest of this platform's image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl DigestOf {
    /// Prints.
    ///
    /// # Errors
    /// The image is not there.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let file = std::path::Path::new(&self.image);
        if file.is_file() {
            let bytes = std::fs::read(file)
                .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
            outln!("{}", image::Digest::of(&bytes));
            return Ok(0);
        }
        let location = place::location(&self.image, "")?;
        let access = Access::new(app, self.registry.reach()?);
        let source = access.source(&location)?;
        let digest = app.wait(async {
            match &self.platform {
                None => {
                    let root = source.resolve().await.map_err(|cause| report::cause(&cause))?;
                    Ok::<_, Failure>(root.digest)
                }
                Some(platform) => {
                    let (_, image) = transport::open(&*source, platform).await?;
                    Ok(image.manifest().digest())
                }
            }
        })??;
        outln!("{digest}");
        Ok(0)
    }
}
