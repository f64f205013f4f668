//! `rcopy blob`, `manifest`, `tag`: content as it is.

use std::io::Write;
use std::path::{Path, PathBuf};

use app::place::Access;
use app::{App, Runnable, observed};
use clap::{Args, Subcommand};
use image::{Descriptor, Digest, MediaType, Node, Platform, Reference, Tag};
use options::ends::OneEnd;
use options::environment::read_bounded;
use options::place::{location, on_registry, pinned};
use options::progress::Progress;
use options::{Dialect, Failure};
use registry_client::{Repo, Target};
use serde_json::json;
use task::{Kind, Task};
use transport::{CopyOptions, Location, Select};

/// Read, write and delete blobs in registries; `blob REPOSITORY@DIGEST` prints one
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Blob {
    /// REPOSITORY@DIGEST
    #[arg(required = true)]
    blob: Option<String>,
    #[command(flatten)]
    end: OneEnd,
    #[command(subcommand)]
    command: Option<BlobCommand>,
}

#[derive(Debug, Subcommand)]
enum BlobCommand {
    /// Verify a blob and write it to standard output or a file
    Get {
        /// REPOSITORY@DIGEST
        blob: String,
        /// Write to this file
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        end: OneEnd,
    },
    /// Print the size of a blob if it exists
    Head {
        /// REPOSITORY@DIGEST
        blob: String,
        #[command(flatten)]
        end: OneEnd,
    },
    /// Upload a file to a repository as a blob and print its descriptor
    Put {
        /// The repository
        repository: String,
        /// The file; - is standard input
        file: PathBuf,
        /// Fail if the digest is not this one
        #[arg(long, value_name = "DIGEST")]
        digest: Option<Digest>,
        #[command(flatten)]
        end: OneEnd,
    },
    /// Delete a blob
    Delete {
        /// REPOSITORY@DIGEST
        blob: String,
        #[command(flatten)]
        end: OneEnd,
    },
    /// Copy a blob to another repository; on the same registry mount it
    Copy {
        /// REPOSITORY@DIGEST
        blob: String,
        /// The other repository
        repository: String,
        #[command(flatten)]
        end: OneEnd,
    },
}

fn repo(app: &App, end: &OneEnd, reference: &Reference) -> Result<Repo, Failure> {
    let at = Location::Registry(reference.clone());
    Ok(Access::new(app, end.reach_at(&at)?).client()?.repo(&reference.repository))
}

fn missing(digest: Digest, reference: &Reference) -> Failure {
    let what = format!("finding blob {digest} in {}: no such blob", reference.repository);
    Failure::new(Kind::NotFound, what)
}

impl Runnable for Blob {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let printed = || BlobCommand::Get {
            blob: self.blob.unwrap_or_default(),
            output: None,
            end: self.end,
        };
        match self.command.unwrap_or_else(printed) {
            BlobCommand::Get { blob, output, end } => {
                let (reference, digest) = pinned(&blob)?;
                get(app, &repo(app, &end, &reference)?, digest, output.as_deref())?;
            }
            BlobCommand::Head { blob, end } => {
                let (reference, digest) = pinned(&blob)?;
                let size = app.wait(repo(app, &end, &reference)?.has_blob(digest))??;
                let size = size.ok_or_else(|| missing(digest, &reference))?;
                outln!("{}", json!({"digest": digest, "size": size}));
            }
            BlobCommand::Put { repository, file, digest, end } => {
                let reference = on_registry(&repository)?;
                let piped = (file == Path::new("-")).then(spooled).transpose()?;
                let file = piped.as_ref().map_or(file.as_path(), tempfile::NamedTempFile::path);
                let descriptor = put(app, &repo(app, &end, &reference)?, file, digest)?;
                match Dialect::spoken().prints_digests() {
                    true => outln!("{}", descriptor.digest),
                    false => outln!("{}", json!(descriptor)),
                }
            }
            BlobCommand::Delete { blob, end } => {
                let (reference, digest) = pinned(&blob)?;
                app.wait(repo(app, &end, &reference)?.delete_blob(digest))??;
                eprintln!("deleted blob {digest} of {}", reference.repository);
            }
            BlobCommand::Copy { blob, repository, end } => {
                let (from, digest) = pinned(&blob)?;
                let to = on_registry(&repository)?;
                let (source, sink) = (repo(app, &end, &from)?, repo(app, &end, &to)?);
                let ends = ((&source, &from.repository), (&sink, &to.repository));
                if !app.wait(transport::copy_blob(digest, ends.0, ends.1))?? {
                    return Err(missing(digest, &from));
                }
                outln!("{}@{digest}", to.repository);
            }
        }
        Ok(0)
    }
}

/// What comes through standard input, in a file.
fn spooled() -> Result<tempfile::NamedTempFile, Failure> {
    crate::transfer::piped("name a file, or send the content in")
}

fn get(app: &App, repo: &Repo, digest: Digest, output: Option<&Path>) -> Result<(), Failure> {
    let part = match output {
        Some(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Some(path.with_file_name(format!(".{name}.part-{}", std::process::id())))
        }
        None => None,
    };
    let name = output.map_or("standard output".to_owned(), |path| path.display().to_string());
    let failed = |error| Failure::io(format!("writing {name}"), &error);
    let mut out: Box<dyn Write + Send> = match &part {
        Some(part) => Box::new(std::fs::File::create_new(part).map_err(failed)?),
        None => Box::new(std::io::stdout()),
    };
    let read = app.wait(async {
        let mut pass = |bytes: &[u8]| out.write_all(bytes);
        transport::read_blob(repo, digest, &mut pass).await?;
        out.flush().map_err(failed)
    });
    let done = read.and_then(|read| read).and_then(|()| match (&part, output) {
        (Some(part), Some(output)) => std::fs::rename(part, output).map_err(failed),
        _ => Ok(()),
    });
    if let (true, Some(part)) = (done.is_err(), &part) {
        // The failure that counts is reported.
        let _ = std::fs::remove_file(part);
    }
    done
}

fn put(
    app: &App,
    repo: &Repo,
    path: &Path,
    expected: Option<Digest>,
) -> Result<Descriptor, Failure> {
    let algorithm = expected.map_or(image::Algorithm::Sha256, |digest| digest.algorithm());
    let (descriptor, file) = transport::describe_file(path, algorithm)?;
    let found = descriptor.digest;
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        let error = image::Error::DigestMismatch { expected, found };
        return Err(Failure::from(error).context(format!("reading {}", path.display())));
    }
    app.wait(transport::write_blob(repo, &descriptor, file))??;
    Ok(descriptor)
}

/// Read, write and delete manifests; `manifest NAME` prints one unchanged
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Manifest {
    /// A name on a registry, or transport:…
    #[arg(required = true)]
    image: Option<String>,
    /// Print the manifest of the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    end: OneEnd,
    #[command(subcommand)]
    command: Option<ManifestCommand>,
}

#[derive(Debug, Subcommand)]
enum ManifestCommand {
    /// Write a manifest or index to standard output unchanged
    Get {
        /// A name on a registry, or transport:…
        image: String,
        /// Print the manifest of the image of this platform in an index
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<Platform>,
        /// Indent the JSON
        #[arg(long)]
        pretty: bool,
        /// Write to this file (default: standard output)
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        end: OneEnd,
    },
    /// Print the descriptor of a manifest or index
    Head {
        /// A name on a registry, or transport:…
        image: String,
        #[command(flatten)]
        end: OneEnd,
    },
    /// Upload a manifest or index unchanged under a name on a registry
    Put {
        /// The name
        image: String,
        /// The file; - is standard input
        file: PathBuf,
        /// The media type, if the document does not contain it
        #[arg(long, value_name = "TYPE")]
        media_type: Option<String>,
        #[command(flatten)]
        end: OneEnd,
    },
    /// Delete a manifest; with a tag delete only the tag if the registry supports that
    Delete {
        /// The name
        image: String,
        #[command(flatten)]
        end: OneEnd,
    },
}

impl Runnable for Manifest {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let named = || ManifestCommand::Get {
            image: self.image.unwrap_or_default(),
            platform: self.platform,
            pretty: false,
            output: None,
            end: self.end,
        };
        match self.command.unwrap_or_else(named) {
            ManifestCommand::Get { image, platform, pretty, output, end } => {
                let at = location(&image, "docker://")?;
                let source = Access::new(app, end.reach_at(&at)?).source(&at)?;
                let bytes = app.wait(async {
                    if let Some(platform) = &platform {
                        let (_, image) = transport::open(&*source, platform).await?;
                        return Ok(image.manifest().bytes().clone());
                    }
                    let root = source.resolve().await.map_err(Failure::of)?;
                    Ok::<_, Failure>(transport::node(&*source, &root).await?.bytes().clone())
                })??;
                let bytes = if pretty { indented(&bytes)? } else { bytes };
                match output.as_deref() {
                    Some(file) if file != Path::new("-") => {
                        let failed =
                            |error| Failure::io(format!("writing {}", file.display()), &error);
                        std::fs::write(file, &bytes).map_err(failed)?;
                    }
                    _ => app::out::bytes(&bytes),
                }
            }
            ManifestCommand::Head { image, end } => {
                let at = location(&image, "docker://")?;
                let source = Access::new(app, end.reach_at(&at)?).source(&at)?;
                let root = app.wait(source.resolve())?.map_err(Failure::of)?;
                outln!("{}", json!(root.bare()));
            }
            ManifestCommand::Put { image, file, media_type, end } => {
                let reference = on_registry(&image)?;
                let bytes = read_bounded(&file, image::MAX_DOCUMENT)?;
                let kind = media_type.map(MediaType::from);
                let kind = kind.or_else(|| transport::kind_of_manifest(&bytes));
                let kind = kind.ok_or_else(|| {
                    let what = "the manifest does not say what it is";
                    Failure::usage(what).hint("give --media-type TYPE")
                })?;
                let descriptor = Descriptor::of(kind, &bytes);
                let node = Node::read(descriptor, bytes)?;
                put_manifest(app, &repo(app, &end, &reference)?, &reference, &node)?;
                outln!("{}@{}", reference.repository, node.digest());
            }
            ManifestCommand::Delete { image, end } => {
                let reference = on_registry(&image)?;
                let repo = repo(app, &end, &reference)?;
                app.wait(repo.delete_manifest(&Target::from(&reference)))??;
                eprintln!("deleted {reference}");
            }
        }
        Ok(0)
    }
}

fn indented(document: &[u8]) -> Result<bytes::Bytes, Failure> {
    let value: serde_json::Value = serde_json::from_slice(document)
        .map_err(|error| Failure::new(Kind::Invalid, format!("reading the manifest: {error}")))?;
    Ok(format!("{value:#}\n").into())
}

fn put_manifest(app: &App, repo: &Repo, reference: &Reference, node: &Node) -> Result<(), Failure> {
    if let Some(expected) = reference.digest.filter(|digest| *digest != node.digest()) {
        let found = node.digest();
        return Err(image::Error::DigestMismatch { expected, found }.into());
    }
    Ok(app.wait(transport::put_manifest(repo, &Target::from(reference), node))??)
}

/// Give an image other tags in its repository
#[derive(Debug, Args)]
pub struct TagCommand {
    /// The image, on a registry or in a layout
    image: String,
    /// The tags
    #[arg(required = true)]
    tag: Vec<String>,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for TagCommand {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.image, "docker://")?;
        let named = |tag: &String| match &from {
            Location::Registry(reference) => {
                let tag: Tag = tag.parse()?;
                Ok(Location::Registry(reference.repository.tagged(tag)))
            }
            Location::Layout(path, _) => {
                Ok(Location::Layout(path.clone(), transport::ImageSelector::Name(tag.clone())))
            }
            other => Err(Failure::usage(format!("{other} has no tags"))
                .hint("`rbuild tag` names images in the store")),
        };
        let names = self.tag.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        let access = Access::new(app, self.end.reach_at(&from)?);
        let options = CopyOptions { select: Select::All, ..CopyOptions::default() };
        for to in names {
            let root = observed(&format!("tag {from}"), Progress::Quiet, |task: &Task| {
                access.copy(&from, &to, &options, task)
            })?;
            outln!("{to} {}", root.digest);
        }
        Ok(0)
    }
}
