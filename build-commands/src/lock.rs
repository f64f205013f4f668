//! `rbuild lock`: every remote input of a build, pinned in a file.

use std::path::PathBuf;

use app::values::invocation;
use app::{App, observed};
use builder::{EnforcedLock, Input, Lock as Pins, Pull, Request};
use clap::{Args, Subcommand};
use options::Failure;
use options::progress::Progress;
use options::registry::RegistryFlags;
use task::Kind;

use crate::bud::{self, BuildResources, InputFlags};
use options::environment::write_whole;

/// Pin every remote input of a build in rbuild.lock
///
/// Resolves images (FROM, COPY --from, RUN --mount from=), downloads and repositories (ADD) and
/// named contexts, and writes the digest of each to the lock file. `rbuild bud --locked` builds
/// with exactly these. Keep the file beside the Dockerfile, under version control.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Lock {
    #[command(subcommand)]
    action: Option<Action>,
    /// The build context
    #[arg(default_value = ".")]
    context: String,
    #[command(flatten)]
    build: BuildFlags,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Resolve some inputs again, or all; the others keep their content
    Update {
        /// The inputs: identifiers, or their ends (debian, debian:12, tool.git)
        names: Vec<String>,
        /// The build context
        #[arg(long, value_name = "CONTEXT", default_value = ".")]
        context: String,
        #[command(flatten)]
        build: BuildFlags,
    },
    /// Print one line for each input that differs from the lock; exit with 1 if there is one
    Check {
        /// The build context
        #[arg(default_value = ".")]
        context: String,
        #[command(flatten)]
        build: BuildFlags,
    },
}

/// The flags that decide which inputs a build has, as in `rbuild bud`.
#[derive(Debug, Clone, Default, Args)]
struct BuildFlags {
    /// The lock file (default: rbuild.lock in the context)
    #[arg(long, value_name = "FILE")]
    lock_file: Option<PathBuf>,
    /// The Dockerfile
    #[arg(short, long = "file", value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    inputs: InputFlags,
    /// Lock only what this stage needs
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Lock for these platforms
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',')]
    platform: Vec<String>,
    /// Show progress in this form
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl BuildFlags {
    /// The build whose inputs are locked.
    fn request(&self, context: &str) -> Result<Request, Failure> {
        let call = invocation()?;
        let files: Vec<_> = self.file.iter().cloned().collect();
        let mut request = bud::plain(bud::inputs(context, &files, &[], &call)?)?;
        self.inputs.apply(&mut request, &call)?;
        request.target.clone_from(&self.target);
        if !self.platform.is_empty() {
            request.platforms = bud::platforms(&self.platform)?;
        }
        request.pull = Pull::Always;
        bud::completed(request)
    }

    fn file(&self, context: &str) -> PathBuf {
        self.lock_file.clone().unwrap_or_else(|| Pins::default_file(context))
    }

    /// What the build takes from elsewhere, with the pins that are to hold.
    fn resolve(
        &self,
        app: &App,
        context: &str,
        pins: Option<EnforcedLock>,
    ) -> Result<Vec<Input>, Failure> {
        let mut request = self.request(context)?;
        request.inputs.lock = pins;
        let means = BuildResources { reach: self.registry.reach()?, ..BuildResources::default() };
        observed("lock", self.progress, |task| means.resolve(app, request, task))
    }
}

impl Lock {
    /// Locks.
    ///
    /// # Errors
    /// An input cannot be resolved; the lock cannot be read or written; `check` found drift.
    pub fn run(self, app: &App) -> Result<u8, Failure> {
        match self.action {
            None => {
                let file = self.build.file(&self.context);
                let pins = Pins::of(&self.build.resolve(app, &self.context, None)?);
                write_whole(&file, pins.to_string().as_bytes())?;
                eprintln!("locked {} inputs in {}", pins.sources().count(), file.display());
                Ok(0)
            }
            Some(Action::Update { names, context, build }) => update(app, &names, &context, &build),
            Some(Action::Check { context, build }) => check(app, &context, &build),
        }
    }
}

fn update(app: &App, names: &[String], context: &str, build: &BuildFlags) -> Result<u8, Failure> {
    let file = build.file(context);
    let before = Pins::read(&file)?;
    let mut kept = before.clone();
    for name in names {
        if kept.forget(name) == 0 {
            let known: Vec<_> = before.sources().collect();
            let message = format!("no input in {} is called {name:?}", file.display());
            return Err(Failure::new(Kind::NotFound, message)
                .hint(format!("there are: {}", known.join(", "))));
        }
    }
    let pins = EnforcedLock { lock: kept, file: file.display().to_string(), partial: true };
    let inputs = build.resolve(app, context, (!names.is_empty()).then_some(pins))?;
    let now = Pins::of(&inputs).recorded(before.exchanges.clone(), before.time);
    let drift = before.compare(&now, &inputs);
    for line in &drift {
        outln!("{line}");
    }
    write_whole(&file, now.to_string().as_bytes())?;
    if drift.is_empty() {
        eprintln!("{}: nothing has changed", file.display());
    }
    Ok(0)
}

fn check(app: &App, context: &str, build: &BuildFlags) -> Result<u8, Failure> {
    let file = build.file(context);
    let locked = Pins::read(&file)?;
    let inputs = build.resolve(app, context, None)?;
    let drift = locked.compare(&Pins::of(&inputs), &inputs);
    for line in &drift {
        outln!("{line}");
    }
    match drift.len() {
        0 => {
            eprintln!("{}: nothing has changed", file.display());
            Ok(0)
        }
        // A question that was answered with no.
        count => {
            let what = format!("{count} inputs differ from {}", file.display());
            let failure = Failure { code: Some(1), ..Failure::new(Kind::Invalid, what) };
            let hint = "`rbuild bud --locked` builds with the locked inputs; `rbuild lock update` updates them";
            Err(failure.hint(hint))
        }
    }
}
