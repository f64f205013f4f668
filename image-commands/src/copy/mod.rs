//! `rcopy copy`.

use std::path::{Path, PathBuf};

use app::place::{self, Access};
use app::{App, Runnable, observed};
use clap::Args;
use image::{Descriptor, Reference, Tag};
use options::compress::CompressFlags;
use options::copy::WhatFlags;
use options::ends::{DestinationFlags, RetryFlags, SourceFlags, only_for};
use options::place::location;
use options::progress::Progress;
use options::sign_copy::SignFlags;
use options::{Dialect, Failure, Reach};
use sign::lookaside::Lookaside;
use task::{Kind, Task};
use transport::at::{Archive, Form};
use transport::{CopyOptions, Gate, ImageSelector, Location, Sink, Source};

/// Copy an image from one location to another
#[derive(Debug, Args)]
pub struct Copy {
    /// The source: docker://NAME, oci:PATH[:NAME], oci-archive:, docker-archive:, dir:, store:NAME
    source: String,
    /// The destination, in the same form
    destination: String,
    #[command(flatten)]
    what: WhatFlags,
    /// Add this tag to the copy; repeatable
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    additional_tag: Vec<String>,
    /// Write the digest to a file
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    digestfile: Option<PathBuf>,
    /// Copy all tags of the source's repository; under the name crane also -a
    #[arg(long, conflicts_with_all = ["additional_tag", "digestfile", "sign_identity"])]
    all_tags: bool,
    /// Leave tags alone that exist at the destination
    #[arg(short, long)]
    no_clobber: bool,
    /// Send this many blobs at a time
    #[arg(short = 'j', long, visible_alias = "jobs", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    image_parallel_copies: Option<u16>,
    /// Show what would be copied; copy nothing
    #[arg(long)]
    dry_run: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Show progress in this form
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    #[command(flatten)]
    compress: CompressFlags,
    #[command(flatten)]
    sign: SignFlags,
    #[command(flatten)]
    source_end: SourceFlags,
    #[command(flatten)]
    destination_end: DestinationFlags,
    #[command(flatten)]
    retry: RetryFlags,
    #[command(flatten)]
    ends: EndFlags,
}

/// Flags of a single transport, and flags of skopeo that are refused by name.
#[derive(Debug, Clone, Default, Args)]
struct EndFlags {
    #[arg(long, hide = true, value_name = "KEY")]
    encryption_key: Vec<String>,
    #[arg(long, hide = true, value_name = "KEY")]
    decryption_key: Vec<String>,
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true)]
    encrypt_layer: Vec<i64>,
    /// Use the source's Docker daemon at this socket (default: $DOCKER_HOST)
    #[arg(long, value_name = "HOST", help_heading = "Registry at the source")]
    src_daemon_host: Option<String>,
    /// Use the destination's Docker daemon at this socket (default: $DOCKER_HOST)
    #[arg(long, value_name = "HOST", help_heading = "Registry at the destination")]
    dest_daemon_host: Option<String>,
    /// Read the blobs of the source's OCI layout from this directory
    #[arg(long, value_name = "DIR", help_heading = "Registry at the source")]
    src_shared_blob_dir: Option<PathBuf>,
    /// Write the blobs of the destination's OCI layout to this directory
    #[arg(long, value_name = "DIR", help_heading = "Registry at the destination")]
    dest_shared_blob_dir: Option<PathBuf>,
    /// Do not wait until the destination's layout or directory is on the disk: faster, but a loss of
    /// power soon after may leave it incomplete
    #[arg(long, help_heading = "Registry at the destination")]
    no_sync: bool,
}

impl EndFlags {
    fn check(&self, from: &Location, to: &Location) -> Result<(), Failure> {
        let encrypted = [
            ("--encryption-key", !self.encryption_key.is_empty()),
            ("--decryption-key", !self.decryption_key.is_empty()),
            ("--encrypt-layer", !self.encrypt_layer.is_empty()),
        ];
        if let Some((flag, _)) = encrypted.iter().find(|(_, given)| *given) {
            let what = format!("{flag} is not supported: layers are not encrypted or decrypted");
            return Err(Failure::usage(what));
        }
        only_for("--src-daemon-host", self.src_daemon_host.is_some(), "docker-daemon", from)?;
        only_for("--dest-daemon-host", self.dest_daemon_host.is_some(), "docker-daemon", to)?;
        only_for("--src-shared-blob-dir", self.src_shared_blob_dir.is_some(), "oci", from)?;
        only_for("--dest-shared-blob-dir", self.dest_shared_blob_dir.is_some(), "oci", to)?;
        if self.no_sync && !["oci", "dir"].contains(&to.transport()) {
            let what = format!("--no-sync works for oci: and dir: only, not for {to}");
            return Err(Failure::usage(what));
        }
        Ok(())
    }
}

impl Runnable for Copy {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let (from, to) =
            (location(&self.source, "docker://")?, location(&self.destination, "docker://")?);
        self.ends.check(&from, &to)?;
        if self.all_tags || self.what.all && Dialect::spoken() == Dialect::Crane {
            return self.each_tag(app, &from, &to);
        }
        if self.no_clobber {
            let there = self.taken(app, &to)?;
            if there.contains(&tag_of(&to)?) {
                eprintln!("{to} exists and is left alone");
                return Ok(0);
            }
        }
        self.one(app, &from, &to)
    }
}

impl Copy {
    /// Copies all tags of a repository but those derived from digests, which go with their images.
    fn each_tag(&self, app: &App, from: &Location, to: &Location) -> Result<u8, Failure> {
        let (Location::Registry(source), Location::Registry(target)) = (from, to) else {
            return Err(Failure::usage(
                "--all-tags: both places must be repositories of registries",
            )
            .hint("`rcopy sync` copies repositories to and from other places"));
        };
        let bare = |text: &str| {
            let name = text.trim_start_matches("docker://").parse::<Reference>();
            name.is_ok_and(|name| name.tag.is_none() && name.digest.is_none())
        };
        if !bare(&self.source) || !bare(&self.destination) {
            return Err(Failure::usage("--all-tags: name repositories without a tag"));
        }
        let mut tags = self.tags_at(app, from, &self.source_end.reach(&self.retry)?)?;
        tags.retain(|tag| !transport::is_digest_tag(tag));
        if self.no_clobber {
            let there = self.taken(app, to)?;
            tags.retain(|tag| !there.contains(tag));
        }
        for tag in tags {
            let tag: Tag = tag.parse()?;
            let named = |name: &Reference| Location::Registry(name.repository.tagged(tag.clone()));
            self.one(app, &named(source), &named(target))?;
        }
        Ok(0)
    }

    /// The tags at the destination; none if there is no such repository yet.
    fn taken(&self, app: &App, to: &Location) -> Result<Vec<String>, Failure> {
        match self.tags_at(app, to, &self.destination_end.reach(&self.retry)?) {
            Err(failure) if failure.kind == Kind::NotFound => Ok(Vec::new()),
            tags => tags,
        }
    }

    fn tags_at(&self, app: &App, at: &Location, reach: &Reach) -> Result<Vec<String>, Failure> {
        let Location::Registry(name) = at else {
            return Err(Failure::usage(format!("{at} is in no registry, and has no list of tags")));
        };
        let client = Access::new(app, reach.clone()).client()?;
        Ok(app.wait(client.repo(&name.repository).tags(None))??)
    }

    fn one(&self, app: &App, from: &Location, to: &Location) -> Result<u8, Failure> {
        let names = self.names(to)?;
        let signer = self.sign.signer(app, &app.conf, to)?;
        let compress = self.compress.for_copy(to, self.what.preserves_digests());
        let options = CopyOptions {
            recompress: compress.recompress(app.conf.settings.room())?,
            gzip_index: self.compress.gzip_index,
            concurrency: self.image_parallel_copies.map_or(8, usize::from),
            attempts: self.retry.attempts(),
            patience: app.conf.settings.patience(),
            tell_left: self.what.tells_left(),
            ..self.what.options(&app.conf.settings, from, to)
        };
        let progress = self.progress.unless(self.quiet);
        let root = observed(&format!("copy to {to}"), progress, |task| {
            let (mut reach, platform) =
                (self.source_end.reach(&self.retry)?, app.conf.settings.platform());
            reach.daemon_host.clone_from(&self.ends.src_daemon_host);
            reach.daemon_certs = from.transport() == "docker-daemon";
            reach.shared_blob_dir.clone_from(&self.ends.src_shared_blob_dir);
            let source = Access::unpacking(app, reach, platform.clone());
            let mut reach = self.destination_end.reach(&self.retry)?;
            reach.daemon_host.clone_from(&self.ends.dest_daemon_host);
            reach.daemon_certs = to.transport() == "docker-daemon";
            reach.shared_blob_dir.clone_from(&self.ends.dest_shared_blob_dir);
            reach.unsynced = self.ends.no_sync;
            let sink = Access::unpacking(app, reach, platform);
            if self.dry_run {
                return plan(app, &*source.source(from)?, &options, task);
            }
            let gate = app.gate()?;
            let opened = source.source(from)?;
            let root = copy_to_all(app, &*opened, &sink, &names, &*gate, &options, task)?;
            if options.signatures {
                let all = app.conf.lookaside()?;
                carry((app, &all), (from, &source), (to, &sink), &root, task)?;
            }
            if let Some(signer) = &signer {
                place::sign(signer, &sink, to, &root, task)?;
            }
            Ok(root)
        })?;
        if let Some(file) = &self.digestfile {
            write_digest(file, &root)?;
        }
        if !self.quiet && !self.dry_run && self.progress.tells() {
            eprintln!("copied {from} to {to} {}", root.digest);
        }
        Ok(0)
    }

    /// The destination and what it is called beside that.
    fn names(&self, to: &Location) -> Result<Vec<Location>, Failure> {
        let mut names = vec![to.clone()];
        for tag in &self.additional_tag {
            names.push(beside(to, tag)?);
        }
        Ok(names)
    }
}

/// The tag that an image gets.
fn tag_of(to: &Location) -> Result<String, Failure> {
    match to {
        Location::Registry(Reference { digest: None, tag, .. }) => {
            Ok(tag.as_ref().map_or_else(|| "latest".to_owned(), ToString::to_string))
        }
        _ => Err(Failure::usage(format!("--no-clobber: {to} has no tag"))),
    }
}

/// Brings the GPG signatures of a copy from beside the source to beside the destination.
///
/// # Errors
/// They cannot be read or written.
pub(crate) fn carry(
    (app, all): (&App, &Lookaside),
    (from, source): (&Location, &Access<'_>),
    (to, sink): (&Location, &Access<'_>),
    root: &Descriptor,
    task: &Task,
) -> Result<(), Failure> {
    if !all.may_have_at(from) {
        return Ok(());
    }
    let client = source.client()?;
    let servers = options::Servers::new(move || Ok(client.clone()));
    let copied = sink.source(to)?;
    app.wait(all.carry((from, &servers), (to, &*copied), root, task))?.map_err(Failure::of)
}

/// The same place under another tag, which may be written as a whole name.
fn beside(to: &Location, tag: &str) -> Result<Location, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--additional-tag {tag}: {why}"));
    match to {
        Location::Registry(reference) => {
            let own = format!("{}:", reference.repository);
            let short = tag.strip_prefix(&own).unwrap_or(tag);
            let tag: Tag = short.parse().map_err(|_| {
                refuse("it is not a tag").hint("give a tag of the destination's repository")
            })?;
            Ok(Location::Registry(reference.repository.tagged(tag)))
        }
        Location::Layout(path, _) => {
            Ok(Location::Layout(path.clone(), ImageSelector::Name(tag.to_owned())))
        }
        Location::DockerArchive(path, _) => {
            Ok(Location::DockerArchive(path.clone(), ImageSelector::Name(tag.to_owned())))
        }
        Location::OciArchive(path, _) => {
            Ok(Location::OciArchive(path.clone(), ImageSelector::Name(tag.to_owned())))
        }
        Location::Store(_) => Ok(Location::Store(tag.to_owned())),
        other => Err(refuse(&format!("{other} holds one image without a name"))),
    }
}

/// Copies to one place under several names.
fn copy_to_all(
    app: &App,
    source: &dyn Source,
    sink: &Access<'_>,
    names: &[Location],
    gate: &dyn Gate,
    options: &CopyOptions,
    task: &Task,
) -> Result<Descriptor, Failure> {
    let archive = match (names, &names[0]) {
        ([_], _) => None,
        (_, Location::OciArchive(path, _)) => Some(Archive::create(path, Form::Oci)?),
        (_, Location::DockerArchive(path, _)) => Some(Archive::create(path, Form::Docker)?),
        _ => None,
    };
    let open = |name: &Location| -> Result<Box<dyn Sink>, Failure> {
        match (&archive, name) {
            (Some(archive), Location::OciArchive(_, named) | Location::DockerArchive(_, named)) => {
                Ok(Box::new(archive.image(named.clone())))
            }
            _ => sink.sink(name, task),
        }
    };
    let mut root = None;
    for name in names {
        let copied = app.wait(transport::copy(source, &*open(name)?, gate, options, task))??;
        root.get_or_insert(copied);
    }
    if let Some(archive) = &archive {
        app.wait(archive.finish())??;
    }
    root.ok_or_else(|| Failure::usage("there is no destination"))
}

fn plan(
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

/// The digest in a file, without a line break, as skopeo writes it.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_digest(file: &Path, root: &Descriptor) -> Result<(), Failure> {
    std::fs::write(file, root.digest.to_string())
        .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))
}
