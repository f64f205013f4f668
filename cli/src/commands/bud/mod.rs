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
mod run_flags;
mod signing;
mod stages;
mod supply;
mod value;

use options::environment;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use builder::syntax::{self, Invocation, Outputs};
use builder::{Built, Env, Forecast, Request, RunningBuild, TimeOf};
use clap::Args;
use task::Task;

use self::call::CallFlags;
pub(crate) use self::debug::own_terminal;
use self::image_flags::Epoch;
pub(crate) use self::image_flags::epoch_variable;
pub(crate) use self::input_flags::InputFlags;
pub(crate) use self::platform::PlatformFlags;
pub(crate) use self::pull_flags::PullPolicy;
pub(crate) use self::run_flags::{kept, network, recorded, wants_proxy};
use self::supply::SupplyFlags;
pub(crate) use self::value::{agent, invocation, secret};
use super::builds;
use super::manifest::add_to_list;
use super::secret_flags::SecretFlags;
use crate::app::{App, observed, observed_by};
use crate::render::{self, Progress};
use options::Dialect;
use options::Failure;
use options::container::SharedFlags;
use options::flags;
use options::registry::RegistryFlags;

/// Build an image from a Dockerfile
#[derive(Debug, Args)]
pub(crate) struct Bud {
    /// The build context: a directory, a git URL, the URL of a tar archive, or `-` for an archive
    /// or a Dockerfile on stdin
    #[arg(default_value = ".")]
    pub(super) context: String,
    /// The Dockerfile, its URL, or `-` for stdin (default: Containerfile, Dockerfile or dockerfile
    /// in the context); several are read in order as one
    #[arg(short, long = "file", value_name = "FILE")]
    pub(super) file: Vec<String>,
    /// Name the image; repeat for several names
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(super) tag: Vec<String>,
    #[command(flatten)]
    pub(super) inputs: InputFlags,
    /// Build this stage instead of the last one
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Run every step again
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Run every step of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// Use this ignore file instead of the context's
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write the image id without `sha256:` to a file
    #[arg(long, value_name = "FILE")]
    iidfile_raw: Option<PathBuf>,
    /// Add the images to this manifest list; create it if missing
    #[arg(long, value_name = "NAME")]
    manifest: Option<String>,
    /// Write digests and descriptor as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Show progress in this form
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    pub(super) progress: Progress,
    /// Print nothing but the image id
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Push the image to each of its names
    #[arg(long)]
    pub(super) push: bool,
    /// Write the result: type=oci|docker|tar|local,dest=PATH, or a directory; repeatable
    #[arg(short, long, value_name = "type=…,dest=…")]
    pub(super) output: Vec<String>,
    /// Run at most this many steps at once (default: one per CPU)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
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
    pub(super) allow: allow::AllowFlags,
    #[command(flatten)]
    pub(super) call: CallFlags,
    #[command(flatten)]
    pub(super) image: image_flags::ImageFlags,
    #[command(flatten)]
    pub(super) pull: pull_flags::PullFlags,
    #[command(flatten)]
    stages: stages::StageFlags,
    #[command(flatten)]
    compat: compat::CompatFlags,
    #[command(flatten)]
    pub(super) run_flags: SharedFlags,
    #[command(flatten)]
    pub(super) platforms: PlatformFlags,
    #[command(flatten)]
    pub(super) cache: cache::CacheFlags,
    #[command(flatten)]
    pub(super) supply: SupplyFlags,
    #[command(flatten)]
    signing: signing::SigningFlags,
    #[command(flatten)]
    secrets: SecretFlags,
    #[command(flatten)]
    debug: debug::DebugFlags,
    #[command(flatten)]
    pub(super) registry: RegistryFlags,
}

impl Bud {
    /// Builds.
    ///
    /// # Errors
    /// Wrong flags, wrong Dockerfiles, failing commands.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let file = self.file.first().map(String::as_str);
        let target = self.target.as_deref();
        let mut running = RunningBuild::begin(&self.context, file, target, SystemTime::now())?;
        let done = self.recorded(app, &mut running);
        builds::keep(app, running, &done);
        done
    }

    fn recorded(mut self, app: &App, running: &mut RunningBuild) -> Result<u8, Failure> {
        let start = Instant::now();
        self.progress = render::chosen(self.progress)?;
        let prints_id = !self.output.iter().any(|text| Outputs::takes_stdout(text));
        let piped = output::piped(&mut self.output)?;
        let request = self.request()?;
        running.hide_secrets_of(&request);
        if let Some(code) = self.answer(app, &request)? {
            return Ok(code);
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
            None => render::observer(progress),
        };
        if let Some(path) = &self.trace {
            rendering = render::traced(rendering, path)?;
        }
        self.stages.build(&self, app, &request, &rendering)?;
        let built = observed_by("build", &rendering, |task| self.build(app, request, task))?;
        running.built(&built);
        if let Some(signer) = &signer {
            signer.sign(app, &built, &self.registry.reach()?, progress)?;
        }
        self.list(app, &built)?;
        self.write_files(&built)?;
        self.supply.record(&built)?;
        if !quiet {
            self.summary(&built, start);
        }
        if self.log_rusage || self.rusage_logfile.is_some() {
            log::rusage(self.rusage_logfile.as_deref(), start)?;
        }
        drop(log);
        if self.cache.explain(&built) {
            return Ok(0);
        }
        if let Some(piped) = piped {
            piped.print()?;
        }
        let dialect = self.compat.dialect();
        let id = built.id.filter(|_| prints_id).and_then(|id| dialect.built(id, quiet));
        if let Some(id) = id {
            outln!("{id}");
        }
        Ok(0)
    }

    /// Adds what was built to `--manifest`.
    fn list(&self, app: &App, built: &Built) -> Result<(), Failure> {
        let Some(name) = &self.manifest else { return Ok(()) };
        if built.images.is_empty() {
            return Err(Failure::usage("--manifest: no image was made"));
        }
        for image in &built.images {
            add_to_list(app, name, &image.manifest)?;
        }
        Ok(())
    }

    fn build(&self, app: &App, request: Request, task: &Task) -> Result<Built, Failure> {
        let env = self.env(app)?;
        app.wait(builder::build(request, &env, task))?.map_err(failure)
    }

    /// What would become of each step.
    pub(crate) fn forecast(&self, app: &App) -> Result<Vec<Forecast>, Failure> {
        let request = self.request()?;
        observed("plan", Progress::Quiet, |task| {
            let env = self.env(app)?;
            app.wait(builder::forecast(request, &env, task))?.map_err(failure)
        })
    }

    fn env(&self, app: &App) -> Result<Env, Failure> {
        if let Some(limit) = self.cache.limit() {
            app.store()?.set_limit(Some(limit));
        }
        Ok(Env {
            store: app.store()?.clone(),
            places: app.places_for(&self.pull.reach(self.registry.reach()?))?,
            gate: app.gate()?,
            guard: self.secrets.guard(app)?,
            clock: SystemTime::now,
            user_namespace: runtime::in_user_namespace(),
            single_id: runtime::single_id(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            threads: std::thread::available_parallelism().map_or(2, usize::from),
        })
    }

    /// What the flags ask for.
    ///
    /// # Errors
    /// They are wrong.
    pub(crate) fn request(&self) -> Result<Request, Failure> {
        self.compat.check()?;
        let call = invocation()?;
        let stdin = std::io::stdin();
        let inputs = syntax::inputs(&self.context, &self.file, &self.cpp_flag, stdin, &call)
            .map_err(flags::wrong_use)?;
        let mut request = Request::new(inputs.dockerfile, inputs.context);
        request.ignore = inputs.ignore;
        request.sources.dockerfile = inputs.at;
        request.sources.search_path = std::env::var_os("PATH").unwrap_or_default();
        let limit = self.pull.max_download;
        request.sources.download_limit = limit.unwrap_or(request.sources.download_limit);
        if let Some(file) = &self.ignorefile {
            request.ignore = Some(syntax::source(file)?);
        }
        self.inputs.apply(&mut request, &call)?;
        let outputs = self.outputs(&call)?;
        request.tags = outputs.tags;
        if self.push && request.tags.is_empty() {
            return Err(Failure::usage("--push: there is no --tag to push to"));
        }
        request.push = self.push;
        request.keep = self.compat.load == Some(true) || self.manifest.is_some();
        request.canonical = outputs.canonical;
        request.outputs = outputs.outputs;
        request.from.clone_from(&self.pull.from);
        request.target.clone_from(&self.target);
        request.platforms = self.platforms.platforms()?;
        request.all_platforms = self.platforms.all();
        request.dialect = self.compat.builder();
        request.drop_volumes = self.compat.volumes();
        request.labels = self.image.labels().into_iter().collect();
        request.image = self.image.options(&outputs.settings, self.compat.dialect())?;
        output::has_entry(&request.image, &request.outputs)?;
        request.no_cache = self.no_cache;
        request.no_cache_filter.clone_from(&self.no_cache_filter);
        request.pull = self.pull.pull();
        request.inputs.policies = self.pull.policies()?;
        request.run = run_flags::options(&self.run_flags)?;
        request.network = network(&request.run.base);
        request.run.stdin = self.allow.stdin(self.reads_stdin())?;
        request.allow = self.allow.allow()?;
        match self.image.epoch(request.build_args.get("SOURCE_DATE_EPOCH"))? {
            Epoch::Given(time) => request.source_date_epoch = Some(time),
            Epoch::Of(source) => {
                request.time_of = source;
                if source == TimeOf::Context {
                    // What the Dockerfile sees is the time itself.
                    request.build_args.remove("SOURCE_DATE_EPOCH");
                }
            }
        }
        request.format = self.image.format(&outputs.settings);
        request.compression = self.image.compression(&outputs.settings)?;
        // Compress now if the digest of the manifest or a compression is requested.
        request.defer = self.image.compression_is_free(&outputs.settings)
            && self.metadata_file.is_none()
            && self.manifest.is_none();
        request.jobs = match self.jobs {
            Some(jobs) => usize::from(jobs),
            None => std::thread::available_parallelism().map_or(2, usize::from),
        };
        request.cache = self.cache.request()?;
        request.heed_build_args();
        if wants_proxy(&request.run.base) {
            request.proxy = environment::proxies().into_iter().collect();
        }
        self.supply.apply(&mut request, &self.context)?;
        request.debug = self.debug.request()?;
        if self.debug.interactive() || request.run.stdin {
            // Nothing else writes to the terminal, or reads what comes in, meanwhile.
            request.jobs = 1;
        }
        Ok(request)
    }

    fn outputs(&self, call: &Invocation<'_>) -> Result<Outputs, Failure> {
        let mut outputs = Outputs::default();
        for text in &self.tag {
            outputs.add_tag(text, call).map_err(flags::of_flag("--tag", text))?;
        }
        for text in &self.output {
            outputs.add(text, call).map_err(flags::of_flag("--output", text))?;
        }
        Ok(outputs)
    }

    /// What reads standard input besides commands.
    fn reads_stdin(&self) -> Option<&'static str> {
        if self.context == "-" {
            Some("the build context")
        } else if self.file.iter().any(|file| file == "-") {
            Some("--file")
        } else {
            self.debug.interactive().then_some("the shell of --on-failure")
        }
    }

    fn write_files(&self, built: &Built) -> Result<(), Failure> {
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
        // The digest is printed only once it is final.
        let manifest = built.manifest.as_ref().filter(|_| built.settled);
        let digest = manifest.map(|manifest| manifest.digest).or(built.id);
        let what = match (built.names.join(", "), digest) {
            (_, None) => "files".to_owned(),
            (names, Some(digest)) if names.is_empty() => digest.to_string(),
            (names, Some(digest)) => format!("{names} {digest}"),
        };
        eprintln!(
            "built {what} in {took}: {ran} {} run, {} from the cache",
            if ran == 1 { "step" } else { "steps" },
            built.cached
        );
        for place in &built.pushed {
            eprintln!("wrote {place}");
        }
        if self.push && built.names.is_empty() {
            eprintln!("not kept in the store, because no step needed its base (--load keeps it)");
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
    // A command that failed ends the build with its code, as buildah has it.
    let code = error.exit_code().map(|code| Dialect::spoken().failed_step(code));
    Failure { excerpt, code, ..Failure::from(error) }
}
