//! `rbuild bud`: a Dockerfile becomes an image.

mod allow;
mod cache;
mod call;
mod compat;
mod debug;
mod image_flags;
mod input_flags;
mod log;
mod output;
mod platform;
mod pull_flags;
mod rebuild;
mod request;
mod run_flags;
mod signing;
mod stages;
mod supply;
mod work;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use app::lists::add_to_list;
use app::secret_flags::SecretFlags;
use app::{App, observed_by};
use builder::{BuildResult, RunningBuild};
use clap::Args;

pub(crate) use self::allow::allowed;
pub(crate) use self::cache::caches;
use self::call::CallFlags;
pub(crate) use self::call::Question;
pub(crate) use self::debug::own_terminal;
pub(crate) use self::input_flags::InputFlags;
pub(crate) use self::output::{piped, prints_id};
pub(crate) use self::platform::{PlatformFlags, platforms};
pub(crate) use self::rebuild::Rebuild;
pub(crate) use self::request::{completed, deliver, inputs, outputs, plain, usual};
pub(crate) use self::run_flags::{kept, network, options, recorded, wants_proxy};
use self::supply::SupplyFlags;
pub(crate) use self::supply::attested;
pub(crate) use self::work::{BuildResources, ResultDisplay};
use crate::builds;
use options::Dialect;
use options::Failure;
use options::container::{MapFlags, RuntimeFlags, SharedFlags};
use options::progress::Progress;
use options::registry::RegistryFlags;

/// Build an image from a Dockerfile
#[derive(Debug, Args)]
pub struct Bud {
    /// The build context: a directory, a git URL, the URL of a tar archive, or `-` for an archive
    /// or a Dockerfile on stdin
    #[arg(default_value = ".")]
    context: String,
    /// The Dockerfile, its URL, or `-` for stdin (default: Containerfile, Dockerfile or dockerfile
    /// in the context); several are read in order as one
    #[arg(short, long = "file", value_name = "FILE")]
    file: Vec<String>,
    /// Name the image; repeat for several names
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    #[command(flatten)]
    inputs: InputFlags,
    /// Build this stage instead of the last one
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Run every step again
    #[arg(long, help_heading = "Cache")]
    no_cache: bool,
    /// Run every step of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',', help_heading = "Cache")]
    no_cache_filter: Vec<String>,
    /// Use this ignore file instead of the context's
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write the image id without `sha256:` to a file
    #[arg(long, alias = "raw-iidfile", value_name = "FILE")]
    iidfile_raw: Option<PathBuf>,
    /// Add the images to this manifest list; create it if missing
    #[arg(long, value_name = "NAME")]
    manifest: Option<String>,
    /// Write digests and descriptor as JSON to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Show progress in this form
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    /// Print nothing but the image id
    #[arg(short, long)]
    quiet: bool,
    /// Push the image to each of its names
    #[arg(long)]
    push: bool,
    /// Write the result: type=oci|docker|tar|local,dest=PATH, or a directory; repeatable
    #[arg(short, long, value_name = "type=…,dest=…")]
    output: Vec<String>,
    /// Run at most this many steps at once; 0 is one per CPU (default)
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<u16>,
    /// Print the resource usage of the build
    #[arg(long)]
    log_rusage: bool,
    /// Append the resource usage of the build to a file
    #[arg(long, value_name = "FILE")]
    rusage_logfile: Option<PathBuf>,
    /// Pass a flag to cpp, which preprocesses a --file whose name ends with .in
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    cpp_flag: Vec<String>,
    /// Write a trace of the steps for Chrome and Perfetto
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    log: log::LogFlags,
    #[command(flatten)]
    allow: allow::AllowFlags,
    #[command(flatten)]
    call: CallFlags,
    #[command(flatten)]
    image: image_flags::ImageFlags,
    #[command(flatten)]
    pull: pull_flags::PullFlags,
    #[command(flatten)]
    stages: stages::StageFlags,
    #[command(flatten)]
    compat: compat::CompatFlags,
    #[command(flatten)]
    run_flags: SharedFlags,
    #[command(flatten)]
    maps: MapFlags,
    #[command(flatten)]
    runtime: RuntimeFlags,
    #[command(flatten)]
    platforms: PlatformFlags,
    #[command(flatten)]
    cache: cache::CacheFlags,
    #[command(flatten)]
    supply: SupplyFlags,
    #[command(flatten)]
    signing: signing::SigningFlags,
    #[command(flatten)]
    secrets: SecretFlags,
    #[command(flatten)]
    debug: debug::DebugFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Bud {
    /// Builds.
    ///
    /// # Errors
    /// Wrong flags, wrong Dockerfiles, failing commands.
    pub fn run(mut self, app: &App) -> Result<u8, Failure> {
        self.take_file();
        let file = self.file.first().map(String::as_str);
        let target = self.target.as_deref();
        let mut running = RunningBuild::begin(&self.context, file, target, SystemTime::now());
        let done = self.recorded(app, &mut running);
        builds::keep(app, running, &done);
        done
    }

    /// A context that is a file is a Dockerfile in its directory, as buildah has it.
    fn take_file(&mut self) {
        let path = Path::new(&self.context);
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return,
        };
        if self.compat.dialect() == Dialect::Buildah && self.file.is_empty() && path.is_file() {
            self.file = vec![self.context.clone()];
            self.context = directory.display().to_string();
        }
    }

    fn recorded(mut self, app: &App, running: &mut RunningBuild) -> Result<u8, Failure> {
        let start = Instant::now();
        self.progress = options::progress::chosen(self.progress)?;
        let prints_id = prints_id(&self.output);
        let piped = piped(&mut self.output)?;
        let (request, means) = (self.request()?, self.means()?);
        running.hide_secrets_of(&request);
        if let Some(question) = self.call.asked()? {
            return question.answer(app, request, &means);
        }
        let signer = self.signing.signer(app, &request)?;
        let log = self.log.start(&request.platforms, request.all_platforms, self.progress)?;
        let quiet = self.quiet || self.progress == Progress::Quiet;
        let progress = match (quiet, self.progress) {
            (true, _) => Progress::Quiet,
            // A shell may need the terminal for itself.
            (false, Progress::Auto) if self.debug.interactive() => Progress::Plain,
            (false, progress) => progress,
        };
        let mut rendering = match &log {
            Some(log) => log.rendering(progress),
            None => options::progress::observer(progress),
        };
        if let Some(path) = &self.trace {
            rendering = options::progress::traced(rendering, path)?;
        }
        self.stages.build(&means, app, &request, &rendering)?;
        let built = observed_by("build", &rendering, |task| means.build(app, request, task))?;
        running.built(&built);
        if let Some(signer) = &signer {
            signer.sign(app, &built, &self.registry.reach()?, progress)?;
        }
        self.list(app, &built)?;
        self.write_files(&built)?;
        self.supply.record(&built)?;
        let (progress, dialect) = (self.progress, self.compat.dialect());
        let (pushes, tags) = (self.push, self.tag);
        let shown =
            ResultDisplay { start, progress, quiet, dialect, piped, prints_id, pushes, tags };
        shown.summary(&built);
        if self.log_rusage || self.rusage_logfile.is_some() {
            log::rusage(self.rusage_logfile.as_deref(), start)?;
        }
        drop(log);
        if !self.cache.explain(&built) {
            shown.result(&built)?;
        }
        Ok(0)
    }

    /// Adds what was built to `--manifest`.
    fn list(&self, app: &App, built: &BuildResult) -> Result<(), Failure> {
        let Some(name) = &self.manifest else { return Ok(()) };
        if built.images.is_empty() {
            return Err(Failure::usage("--manifest: no image was made"));
        }
        for image in &built.images {
            add_to_list(app, name, &image.manifest)?;
        }
        Ok(())
    }

    /// What the build is done with.
    ///
    /// # Errors
    /// Credentials that are not `user:password`.
    pub(crate) fn means(&self) -> Result<BuildResources, Failure> {
        Ok(BuildResources {
            reach: self.pull.reach(self.registry.reach()?),
            limit: self.cache.limit(),
            secrets: self.secrets.clone(),
        })
    }

    fn write_files(&self, built: &BuildResult) -> Result<(), Failure> {
        let write = |file: &Path, text: String| {
            std::fs::write(file, text)
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))
        };
        if let (Some(file), Some(id)) = (&self.iidfile, built.id) {
            write(file, id.to_string())?;
        }
        if let (Some(file), Some(id)) = (&self.iidfile_raw, built.id) {
            write(file, id.hex())?;
        }
        if let Some(file) = &self.metadata_file {
            write(file, format!("{:#}\n", built.metadata))?;
        }
        Ok(())
    }
}

/// Where a build failed and why, in the words of buildah, which scripts look for.
fn at_step(error: &builder::Error) -> String {
    let (instruction, reason) = match error {
        builder::Error::Command { file, diagnostic, code, .. } => {
            let text =
                file.text.get(diagnostic.span.start..diagnostic.span.end).unwrap_or_default();
            let text = text.split_whitespace().filter(|word| *word != "\\");
            (text.collect::<Vec<_>>().join(" "), format!("exit status {code}"))
        }
        builder::Error::Step { instruction, source, .. } => {
            let reason = match source.downcast_ref() {
                Some(builder::Error::Missing { .. }) => "no such file or directory".to_owned(),
                _ => task::chain(source).pop().unwrap_or_default(),
            };
            (instruction.clone(), reason)
        }
        other => (String::new(), other.to_string()),
    };
    format!("building at STEP {instruction:?}: {reason}")
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
            let rendered = dockerfile::render(&file.text, &file.name, diagnostic);
            Some(match Dialect::spoken().numbers_steps() {
                true => format!("{}\n{}", rendered.trim_end(), at_step(&error)),
                false => rendered,
            })
        }
        _ => None,
    };
    // A command that failed ends the build with its code, as buildah has it.
    let code = error.exit_code().map(|code| Dialect::spoken().failed_step(code));
    Failure { excerpt, code, ..Failure::from(error) }
}
