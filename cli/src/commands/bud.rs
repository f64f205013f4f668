//! `rbuild bud`: a Dockerfile becomes an image.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use builder::{Built, Context, Env, Format, Network, Output, Pull, Request, Secret, SourceFile};
use clap::{Args, ValueEnum};
use image::{Encoding, Platform, Reference};
use task::{Kind, Task};

use super::registry_flags::RegistryFlags;
use crate::app::{App, observed};
use crate::config;
use crate::flags;
use crate::render::{self, Progress};
use crate::report::Failure;

/// Build an image from a Dockerfile
#[derive(Debug, Args)]
pub(crate) struct Bud {
    /// The directory whose files COPY and ADD see; `-` reads a Dockerfile from stdin
    #[arg(default_value = ".")]
    context: String,
    /// The Dockerfile (default: Containerfile, Dockerfile or dockerfile in the context); `-` is stdin
    #[arg(short, long = "file", value_name = "FILE")]
    file: Option<String>,
    /// Name the image; repeat for several names
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Set a build argument; a bare NAME takes its value from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Read build arguments from a file
    #[arg(long, value_name = "FILE")]
    build_arg_file: Vec<PathBuf>,
    /// Another named context: a directory, or docker-image://NAME
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// Build this stage instead of the last one
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    /// Run every step of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Ask registries for base images: missing (default), always, never, newer
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pull: Option<PullPolicy>,
    /// What to build for, such as linux/amd64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Add a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Add an annotation to the manifest
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Use this ignore file instead of the context's
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write digests and descriptor as JSON to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    /// Print nothing but the image id
    #[arg(short, long)]
    quiet: bool,
    /// Network of RUN: default, none or host
    #[arg(long, value_name = "NETWORK", default_value = "default")]
    network: NetworkName,
    /// Add a line to /etc/hosts of RUN
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Give RUN --mount=type=secret a secret: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "id=…")]
    secret: Vec<String>,
    /// Give RUN --mount=type=ssh an agent: default ($SSH_AUTH_SOCK), or ID=SOCKET
    #[arg(long, value_name = "default|ID=SOCKET")]
    ssh: Vec<String>,
    /// Media types of the image
    #[arg(long, value_enum, default_value = "oci")]
    format: FormatName,
    /// Push the image to each of its names
    #[arg(long)]
    push: bool,
    /// Where else the result goes: type=oci|docker|tar|local,dest=PATH, or a directory
    #[arg(short, long, value_name = "type=…,dest=…")]
    output: Vec<String>,
    /// How layers are compressed
    #[arg(long, value_enum, default_value = "gzip")]
    compression: CompressionName,
    /// Compression level, in the encoder's own scale
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<i32>,
    /// How many steps may run at once (default: one per CPU)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Seconds since 1970 that every time in the image is set to (default: $SOURCE_DATE_EPOCH)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timestamp: Option<i64>,
    #[command(flatten)]
    registry: RegistryFlags,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PullPolicy {
    Missing,
    #[value(alias = "true")]
    Always,
    #[value(alias = "false")]
    Never,
    #[value(alias = "ifnewer")]
    Newer,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NetworkName {
    Default,
    None,
    Host,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    Oci,
    Docker,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CompressionName {
    Gzip,
    Zstd,
    None,
}

impl Bud {
    /// Builds.
    ///
    /// # Errors
    /// Wrong flags, wrong Dockerfiles, failing commands.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let start = Instant::now();
        let request = self.request()?;
        let progress = if self.quiet { Progress::Quiet } else { self.progress };
        let built = observed("build", progress, |task| self.build(app, request, task))?;
        self.write_files(&built)?;
        if !self.quiet {
            self.summary(&built, start);
        }
        if let Some(id) = built.id.filter(|_| !self.output.iter().any(|text| to_stdout(text))) {
            outln!("{}", if self.quiet { id.to_string() } else { id.hex() });
        }
        Ok(0)
    }

    fn build(&self, app: &App, request: Request, task: &Task) -> Result<Built, Failure> {
        let env = Env {
            store: app.store()?.clone(),
            places: app.places_for(&self.registry.reach()?)?,
            gate: app.gate()?,
            clock: SystemTime::now,
            user_namespace: runtime::in_user_namespace(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            threads: std::thread::available_parallelism().map_or(2, usize::from),
        };
        app.wait(builder::build(request, &env, task))?.map_err(failure)
    }

    fn request(&self) -> Result<Request, Failure> {
        let (dockerfile, ignore, context) = self.inputs()?;
        let mut request = Request::new(dockerfile, context);
        request.ignore = ignore;
        if let Some(file) = &self.ignorefile {
            request.ignore = Some(read_source(file)?);
        }
        for text in &self.build_context {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--build-context {text:?}: expected NAME=VALUE"))
            })?;
            request.contexts.insert(name.to_owned(), named_context(value)?);
        }
        request.tags = self.tag.iter().map(|tag| local_name(tag)).collect::<Result<_, _>>()?;
        if self.push && self.tag.is_empty() {
            return Err(Failure::usage("--push: there is no --tag that says where to"));
        }
        request.push = self.push;
        request.outputs =
            self.output.iter().map(|text| output(text, &self.tag)).collect::<Result<_, _>>()?;
        request.build_args = self.build_args()?;
        request.target.clone_from(&self.target);
        if let Some(platform) = &self.platform {
            request.platform = platform.clone();
        }
        request.labels = self.label.iter().map(|text| flags::pair(text)).collect();
        request.annotations = self.annotation.iter().map(|text| flags::pair(text)).collect();
        request.no_cache = self.no_cache;
        request.no_cache_filter.clone_from(&self.no_cache_filter);
        request.pull = match self.pull {
            None | Some(PullPolicy::Missing) => Pull::Missing,
            Some(PullPolicy::Always) => Pull::Always,
            Some(PullPolicy::Never) => Pull::Never,
            Some(PullPolicy::Newer) => Pull::Newer,
        };
        request.network = match self.network {
            NetworkName::Default => Network::Default,
            NetworkName::None => Network::None,
            NetworkName::Host => Network::Host,
        };
        request.hosts = self.add_host.iter().map(|text| host(text)).collect::<Result<_, _>>()?;
        for text in &self.secret {
            let (id, secret) = secret(text)?;
            request.secrets.insert(id, secret);
        }
        for text in &self.ssh {
            let (id, socket) = agent(text)?;
            request.ssh.insert(id, socket);
        }
        request.source_date_epoch = self.epoch()?;
        request.format = match self.format {
            FormatName::Oci => Format::Oci,
            FormatName::Docker => Format::Docker,
        };
        request.compression.level = self.compression_level;
        request.compression.encoding = match self.compression {
            CompressionName::Gzip => Encoding::Gzip,
            CompressionName::Zstd => Encoding::Zstd,
            CompressionName::None => Encoding::Plain,
        };
        request.jobs = match self.jobs {
            Some(jobs) => usize::from(jobs),
            None => std::thread::available_parallelism().map_or(2, usize::from),
        };
        request.proxy = config::proxies().into_iter().collect();
        Ok(request)
    }

    fn epoch(&self) -> Result<Option<i64>, Failure> {
        if self.timestamp.is_some() {
            return Ok(self.timestamp);
        }
        match std::env::var("SOURCE_DATE_EPOCH") {
            Err(_) => Ok(None),
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => text.parse().map(Some).map_err(|_| {
                Failure::usage(format!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds"))
            }),
        }
    }

    fn build_args(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut args = BTreeMap::new();
        let lines = flags::environment(&self.build_arg_file, &self.build_arg)?;
        for line in lines {
            let (name, value) = flags::pair(&line);
            args.insert(name, value);
        }
        Ok(args)
    }

    /// The Dockerfile and the context, found as Docker, BuildKit and buildah find them.
    /// The ignore file is the one that belongs to the Dockerfile alone.
    fn inputs(&self) -> Result<(SourceFile, Option<SourceFile>, Context), Failure> {
        if self.context == "-" {
            let (dockerfile, context) = self.inputs_on_stdin()?;
            return Ok((dockerfile, None, context));
        }
        let remote = ["http://", "https://", "git://", "git@"];
        if remote.iter().any(|prefix| self.context.starts_with(prefix)) {
            return Err(Failure::usage(format!(
                "context {:?}: remote contexts are not supported",
                self.context
            ))
            .hint("clone or download it and give the directory"));
        }
        let directory = config::absolute(Path::new(&self.context))?;
        if !directory.is_dir() {
            return Err(Failure::new(
                Kind::NotFound,
                format!("the build context {} is not a directory", directory.display()),
            ));
        }
        let (dockerfile, ignore) = match self.file.as_deref() {
            Some("-") => (read_stdin("-")?, None),
            Some(file) => {
                let beside = directory.join(file);
                let file = Path::new(file);
                // As Docker: relative to where we are; as buildah: else relative to the context.
                let outside = file.exists() || !beside.exists();
                builder::read_dockerfile(if outside { file } else { &beside })?
            }
            None => find_dockerfile(&directory)?,
        };
        Ok((dockerfile, ignore, Context::Directory(directory)))
    }

    fn inputs_on_stdin(&self) -> Result<(SourceFile, Context), Failure> {
        if self.file.is_some() {
            return Err(Failure::usage("a context on stdin with --file is not supported")
                .hint("unpack the archive and give the directory"));
        }
        let bytes = read_bytes(std::io::stdin(), "-")?;
        let archive = bytes.get(257..262) == Some(b"ustar")
            || bytes.starts_with(&[0x1f, 0x8b])
            || bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        if archive {
            return Err(Failure::usage("an archive on stdin as context is not supported")
                .hint("unpack the archive and give the directory"));
        }
        Ok((as_text(bytes, "-".to_owned())?, Context::Empty))
    }

    fn write_files(&self, built: &Built) -> Result<(), Failure> {
        let write = |file: &Path, text: String| {
            std::fs::write(file, text)
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))
        };
        if let (Some(file), Some(id)) = (&self.iidfile, built.id) {
            write(file, id.to_string())?;
        }
        if let Some(file) = &self.metadata_file {
            write(file, format!("{:#}\n", built.metadata))?;
        }
        Ok(())
    }

    fn summary(&self, built: &Built, start: Instant) {
        for warning in &built.warnings {
            let file = &built.dockerfile;
            eprintln!("{}", dockerfile::render(&file.text, &file.name, warning));
        }
        if self.progress == Progress::Rawjson {
            return;
        }
        let ran = built.steps - built.cached;
        let took = render::duration(start.elapsed());
        let what = match (&built.names[..], &built.manifest) {
            ([], None) => "files".to_owned(),
            ([], Some(manifest)) => manifest.digest.to_string(),
            (names, manifest) => {
                let digest =
                    manifest.as_ref().map(|m| format!(" {}", m.digest)).unwrap_or_default();
                format!("{}{digest}", names.join(", "))
            }
        };
        eprintln!(
            "built {what} in {took}: {ran} {} run, {} from the cache",
            if ran == 1 { "step" } else { "steps" },
            built.cached
        );
        for place in &built.pushed {
            eprintln!("wrote {place}");
        }
    }
}

/// Shows the place in the Dockerfile above the error.
fn failure(error: builder::Error) -> Failure {
    let excerpt = match &error {
        builder::Error::Dockerfile { file, diagnostics } => {
            let errors = diagnostics.iter().filter(|d| d.severity == dockerfile::Severity::Error);
            let rendered = errors.map(|d| dockerfile::render(&file.text, &file.name, d));
            Some(rendered.collect::<Vec<_>>().join("\n"))
        }
        builder::Error::Step { file, diagnostic, .. }
        | builder::Error::Command { file, diagnostic, .. } => {
            Some(dockerfile::render(&file.text, &file.name, diagnostic))
        }
        _ => None,
    };
    Failure { excerpt, ..Failure::from(error) }
}

/// A name for the store: without a registry it is `localhost/NAME`.
pub(crate) fn local_name(text: &str) -> Result<Reference, Failure> {
    let reference = Reference::parse_with(text, "localhost")?;
    if reference.digest.is_some() {
        return Err(Failure::usage(format!("{text:?}: an image cannot be named by a digest")));
    }
    Ok(reference.or_latest())
}

/// No Dockerfile is larger than this.
const LARGEST: u64 = 4 << 20;

fn read_source(path: &Path) -> Result<SourceFile, Failure> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path)
        .map_err(|error| Failure::io(format!("reading {name}"), &error))?;
    read_text(file, name)
}

fn read_stdin(name: &str) -> Result<SourceFile, Failure> {
    read_text(std::io::stdin(), name.to_owned())
}

fn read_text(source: impl Read, name: String) -> Result<SourceFile, Failure> {
    as_text(read_bytes(source, &name)?, name)
}

/// As much as can be a Dockerfile, and one byte more where there is more.
fn read_bytes(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(LARGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io(format!("reading {name}"), &error))?;
    Ok(bytes)
}

fn as_text(bytes: Vec<u8>, name: String) -> Result<SourceFile, Failure> {
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::new(Kind::Invalid, format!("{name} is larger than 4 MiB")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::new(Kind::Invalid, format!("{name} is not UTF-8 text")))?;
    Ok(SourceFile { name, text })
}

/// The Dockerfile of a context and the ignore file that is its own, links followed inside only.
fn find_dockerfile(directory: &Path) -> Result<(SourceFile, Option<SourceFile>), Failure> {
    builder::find_dockerfile(directory).map_err(|error| match error {
        builder::Error::Missing { .. } => Failure::new(
            Kind::NotFound,
            format!("there is no Containerfile or Dockerfile in {}", directory.display()),
        )
        .hint("name one with --file"),
        other => Failure::from(other),
    })
}

fn named_context(value: &str) -> Result<Context, Failure> {
    if let Some(image) = value.strip_prefix("docker-image://") {
        return Ok(Context::Image(image.to_owned()));
    }
    let path = config::absolute(Path::new(value))?;
    if path.is_dir() {
        return Ok(Context::Directory(path));
    }
    Err(Failure::usage(format!(
        "build context {value:?} is neither a directory nor docker-image://NAME"
    )))
}

fn host(text: &str) -> Result<(String, std::net::IpAddr), Failure> {
    let refuse = || Failure::usage(format!("--add-host {text:?}: expected NAME:ADDRESS"));
    let (name, address) = text.split_once([':', '=']).ok_or_else(refuse)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok((name.to_owned(), address.parse().map_err(|_| refuse())?))
}

/// `default`, or `ID=SOCKET`; a bare id takes `$SSH_AUTH_SOCK`.
fn agent(text: &str) -> Result<(String, PathBuf), Failure> {
    let refuse = |why: String| Failure::usage(format!("--ssh {text:?}: {why}"));
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id, PathBuf::from(socket)),
        None => match std::env::var_os("SSH_AUTH_SOCK") {
            Some(socket) => (text, PathBuf::from(socket)),
            None => return Err(refuse("$SSH_AUTH_SOCK is not set".to_owned())),
        },
    };
    let socket = config::absolute(&socket)?;
    let kind = std::fs::metadata(&socket).map(|meta| meta.file_type());
    match kind {
        Ok(kind) if std::os::unix::fs::FileTypeExt::is_socket(&kind) => Ok((id.to_owned(), socket)),
        Ok(_) => Err(refuse(format!("{} is not the socket of an agent", socket.display()))),
        Err(error) => Err(Failure::io(format!("finding the agent {}", socket.display()), &error)),
    }
}

fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let refuse = |why: &str| Failure::usage(format!("--secret: {why}"));
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("id", value)) => id = Some(value),
            Some(("src" | "source", value)) => source = Some(value),
            Some(("env", value)) => variable = Some(value),
            Some(("type", value @ ("file" | "env"))) => kind = Some(value),
            Some((key, _)) => return Err(refuse(&format!("key {key:?} is not known"))),
            None => return Err(refuse("expected id=NAME,src=FILE or id=NAME,env=VARIABLE")),
        }
    }
    let id = id.ok_or_else(|| refuse("it has no id="))?;
    let (source, variable) = match (source, variable, kind) {
        (Some(_), Some(_), _) => return Err(refuse("src= and env= exclude each other")),
        (Some(name), None, Some("env")) => (None, Some(name)),
        (None, None, Some("file")) => (Some(id), None),
        (None, None, _) if std::env::var_os(id).is_some() => (None, Some(id)),
        (None, None, _) => (Some(id), None),
        (source, variable, _) => (source, variable),
    };
    let secret = match (source, variable) {
        (_, Some(variable)) => match std::env::var_os(variable) {
            Some(value) => Secret::Value(std::os::unix::ffi::OsStringExt::into_vec(value)),
            None => return Err(refuse(&format!("the variable {variable:?} is not set"))),
        },
        (Some(file), None) => {
            let path = config::absolute(Path::new(file))?;
            if !path.is_file() {
                return Err(refuse(&format!("the file {file:?} is not there")));
            }
            Secret::File(path)
        }
        (None, None) => return Err(refuse("it has neither src= nor env=")),
    };
    Ok((id.to_owned(), secret))
}

/// Whether an `--output` has standard output for itself.
fn to_stdout(text: &str) -> bool {
    let mut keys = text.split(',');
    text == "-"
        || keys.clone().any(|pair| pair == "dest=-")
        || keys.clone().any(|pair| pair == "type=tar")
            && !keys.any(|pair| pair.starts_with("dest="))
}

/// `type=oci,dest=PATH`, or a lone path for `type=local`, as Docker reads `--output`.
fn output(text: &str, tags: &[String]) -> Result<Output, Failure> {
    let refuse = |why: String| Failure::usage(format!("--output {text:?}: {why}"));
    if !text.contains('=') {
        return match text {
            "-" => Ok(Output::Tar("/dev/stdout".into())),
            path => Ok(Output::Files(config::absolute(Path::new(path))?)),
        };
    }
    let (mut kind, mut destination, mut name) = (None, None, None);
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("type", value)) => kind = Some(value),
            Some(("dest", value)) => destination = Some(value),
            Some(("name", value)) => name = Some(value),
            Some((key, _)) => return Err(refuse(format!("key {key:?} is not supported"))),
            None => return Err(refuse(format!("{pair:?} is not KEY=VALUE"))),
        }
    }
    let path = |destination: Option<&str>| match destination {
        Some("-") => Ok(PathBuf::from("/dev/stdout")),
        Some(path) => config::absolute(Path::new(path)),
        None => Err(refuse("it has no dest=".to_owned())),
    };
    let tag = name.or(tags.first().map(String::as_str));
    let place = |transport: &str, path: &Path| -> Result<String, Failure> {
        let name = match tag {
            Some(tag) => format!(":{}", local_name(tag)?),
            None => String::new(),
        };
        Ok(format!("{transport}:{}{name}", path.display()))
    };
    if destination == Some("-") && matches!(kind, Some("oci" | "docker" | "local")) {
        return Err(refuse("only type=tar goes to standard output".to_owned()));
    }
    match kind {
        Some("local") => Ok(Output::Files(path(destination)?)),
        Some("tar") => Ok(Output::Tar(path(destination.or(Some("-")))?)),
        Some("oci") => Ok(Output::Image(place("oci-archive", &path(destination)?)?)),
        Some("docker") => Ok(Output::Image(place("docker-archive", &path(destination)?)?)),
        Some("registry") => {
            let name =
                tag.ok_or_else(|| refuse("it has no name=, and there is no --tag".to_owned()))?;
            Ok(Output::Image(format!("docker://{name}")))
        }
        Some(other) => Err(refuse(format!("type {other:?} is not supported"))
            .hint("supported types are local, tar, oci, docker and registry")),
        None => Err(refuse("it has no type=".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tar_goes_to_standard_output() {
        for (text, taken) in [
            ("-", true),
            ("type=tar", true),
            ("type=tar,dest=-", true),
            ("type=tar,dest=out.tar", false),
            ("type=oci,dest=image.tar", false),
            ("out", false),
        ] {
            assert_eq!(to_stdout(text), taken, "{text}");
            assert!(output(text, &[]).is_ok(), "{text}");
        }
        for text in ["type=oci,dest=-", "type=docker,dest=-", "type=local,dest=-"] {
            assert!(output(text, &[]).is_err(), "{text}");
        }
    }
}
