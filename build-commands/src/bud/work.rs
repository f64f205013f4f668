//! A build that this process does: the request, and what it is done with and shown by.

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use app::secret_flags::SecretFlags;
use app::{App, observed};
use builder::{BuildResult, DockerfileAt, Env, Input, Request, StepForecast};
use runtime::Ids;
use task::Task;

use super::failure;
use super::output::StdoutArchive;
use options::Dialect;
use options::Failure;
use options::Reach;
use options::progress::Progress;

/// What a build uses beside its request: how it reaches registries, how large its store may be, and
/// which images it lets out.
#[derive(Debug, Clone, Default)]
pub(crate) struct BuildResources {
    pub(crate) reach: Reach,
    /// Bytes.
    pub(crate) limit: Option<u64>,
    pub(crate) secrets: SecretFlags,
}

impl BuildResources {
    /// What a build works with.
    ///
    /// # Errors
    /// The store cannot be opened; a configuration file is malformed.
    pub(crate) fn env(&self, app: &App) -> Result<Env, Failure> {
        if let Some(limit) = self.limit {
            app.store()?.set_limit(Some(limit));
        }
        Ok(Env {
            store: app.store()?.clone(),
            places: app.places_for(&self.reach)?,
            gate: app.gate()?,
            guard: self.secrets.guard(app)?,
            clock: SystemTime::now,
            user_namespace: runtime::in_user_namespace(),
            single_id: runtime::single_id(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            threads: std::thread::available_parallelism().map_or(2, usize::from),
        })
    }

    /// Builds.
    ///
    /// # Errors
    /// Wrong Dockerfiles, failing commands.
    pub(crate) fn build(
        &self,
        app: &App,
        mut request: Request,
        task: &Task,
    ) -> Result<BuildResult, Failure> {
        let env = self.env(app)?;
        let ids = &mut request.run.base.isolation.ids;
        if let Some(Ids::Auto(count)) = ids {
            let (maps, _) = containers::free_ids(&env.store, *count)?;
            *ids = Some(Ids::Maps(maps));
        }
        app.wait(builder::build(request, &env, task))?.map_err(failure)
    }

    /// What the build takes from elsewhere; nothing is built.
    ///
    /// # Errors
    /// An input cannot be had.
    pub(crate) fn resolve(
        &self,
        app: &App,
        request: Request,
        task: &Task,
    ) -> Result<Vec<Input>, Failure> {
        let env = self.env(app)?;
        app.wait(builder::resolve_inputs(request, &env, task))?.map_err(failure)
    }

    /// What would become of each step.
    ///
    /// # Errors
    /// As [`BuildResources::build`], before any step.
    pub(crate) fn forecast(
        &self,
        app: &App,
        request: Request,
    ) -> Result<Vec<StepForecast>, Failure> {
        observed("plan", Progress::Quiet, |task| {
            let env = self.env(app)?;
            app.wait(builder::forecast(request, &env, task))?.map_err(failure)
        })
    }

    /// The request with its Dockerfile, wherever that is.
    ///
    /// # Errors
    /// It cannot be had.
    pub(super) fn complete(&self, app: &App, request: Request) -> Result<Request, Failure> {
        if request.sources.dockerfile == DockerfileAt::Given {
            return Ok(request);
        }
        observed("read", Progress::Quiet, |task| {
            let env = self.env(app)?;
            app.wait(builder::complete(request, &env, task))?.map_err(failure)
        })
    }
}

/// What was made, in the form of buildah. `tags` are the names as they were given.
fn committed(built: &BuildResult, tags: &[String]) {
    let Some(id) = built.id else { return };
    match tags.first() {
        Some(name) => eprintln!("COMMIT {name}"),
        None => eprintln!("COMMIT"),
    }
    eprintln!("--> {}", &id.hex()[..12]);
    for name in &built.names {
        eprintln!("Successfully tagged {name}");
    }
}

/// How the end of a build is shown.
pub(crate) struct ResultDisplay {
    pub(crate) start: Instant,
    pub(crate) progress: Progress,
    pub(crate) quiet: bool,
    pub(crate) dialect: Dialect,
    /// The archive for standard output.
    pub(crate) piped: Option<StdoutArchive>,
    /// Whether standard output is for the image id.
    pub(crate) prints_id: bool,
    /// Whether the image is pushed to its names.
    pub(crate) pushes: bool,
    /// The names that the image was asked to have.
    pub(crate) tags: Vec<String>,
}

impl ResultDisplay {
    /// Warnings about the Dockerfile, and what was made: on standard error.
    pub(crate) fn summary(&self, built: &BuildResult) {
        if self.quiet {
            return;
        }
        for warning in &built.warnings {
            let file = &built.dockerfile;
            eprintln!("{}", dockerfile::render(&file.text, &file.name, warning));
        }
        if self.progress == Progress::Rawjson {
            return;
        }
        if Dialect::spoken().numbers_steps() && self.progress == Progress::Auto {
            return committed(built, &self.tags);
        }
        let ran = built.steps - built.cached;
        let took = progress::duration(self.start.elapsed());
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
        if self.pushes && built.names.is_empty() {
            eprintln!("not kept in the store, because no step needed its base (--load keeps it)");
        }
    }

    /// The archive, or the image id: on standard output.
    ///
    /// # Errors
    /// Standard output is gone.
    pub(crate) fn result(self, built: &BuildResult) -> Result<(), Failure> {
        if let Some(piped) = self.piped {
            piped.print()?;
        }
        let id = built.id.filter(|_| self.prints_id);
        if let Some(id) = id.and_then(|id| self.dialect.built(id, self.quiet)) {
            outln!("{id}");
        }
        Ok(())
    }
}
