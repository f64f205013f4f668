//! Docker's forms of commands: a noun, then what is done with it.

use app::{App, Runnable, lookup};
use build_commands::{bake, bud, builds};
use clap::{Args, Subcommand};
use container_commands::{container, quadlet, run, working};
use image_commands::{image_list, images as image_names, imagetools, import, transfer};
use options::Failure;
use task::Kind;

use crate::{about, care, images, prune};

/// Exit with 0 if the name exists, else with 1
#[derive(Debug, Args)]
pub(crate) struct Exists {
    /// The name or id
    name: String,
}

impl Exists {
    fn container(&self, app: &App) -> Result<u8, Failure> {
        let found = container::containers(app)?.find(&self.name)?;
        Ok(u8::from(found.is_none()))
    }

    fn image(&self, app: &App) -> Result<u8, Failure> {
        Ok(u8::from(lookup::find(app.store()?, &self.name)?.is_none()))
    }
}

/// Builds, as docker buildx groups them
#[derive(Debug, Subcommand)]
pub(crate) enum Buildx {
    #[command(alias = "f")]
    Bake(Box<bake::Bake>),
    #[command(alias = "b")]
    Build(Box<bud::Bud>),
    Du(prune::Du),
    #[command(subcommand)]
    History(builds::Builds),
    #[command(subcommand)]
    Imagetools(imagetools::Imagetools),
    Prune(prune::Prune),
    Version(about::Version),
    /// Without effect: there is one builder, and it needs no daemon
    Create(IgnoredOptions),
    /// Without effect: there is one builder
    Use(IgnoredOptions),
    /// Show the builder; there is one
    Inspect(IgnoredOptions),
    /// List the builder; there is one
    Ls,
    /// Without effect: there is one builder
    Rm(IgnoredOptions),
}

/// The builder commands of scripts.
#[derive(Debug, Args)]
pub(crate) struct IgnoredOptions {
    /// The names and flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl IgnoredOptions {
    fn note(&self, verb: &str) {
        let line = self.arguments.join(" ");
        eprintln!("warning: `buildx {verb} {line}` has no effect: there is one builder, default");
    }
}

impl Runnable for Buildx {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            Buildx::Bake(command) => return command.run(app),
            Buildx::Build(command) => return command.run(app),
            Buildx::Du(command) => return command.run(app),
            Buildx::History(command) => return command.run(app),
            Buildx::Imagetools(command) => return command.run(app),
            Buildx::Prune(command) => return command.run(app),
            Buildx::Version(command) => return command.run("rbuild"),
            Buildx::Create(line) => line.note("create"),
            Buildx::Use(line) => line.note("use"),
            Buildx::Rm(line) => line.note("rm"),
            Buildx::Inspect(line) => return inspect(&line.arguments),
            Buildx::Ls => {
                outln!("NAME/NODE  DRIVER/ENDPOINT  STATUS\ndefault*   built-in         running");
            }
        }
        Ok(0)
    }
}

fn inspect(arguments: &[String]) -> Result<u8, Failure> {
    let names = arguments.iter().filter(|word| !word.starts_with('-'));
    match names.into_iter().find(|name| *name != "default") {
        Some(name) => Err(Failure::new(Kind::NotFound, format!("there is no builder {name:?}"))
            .hint("there is one builder, default")),
        None => {
            let platform = image::Platform::host();
            outln!(
                "Name:      default\nDriver:    built-in\nStatus:    running\nPlatforms: {platform}"
            );
            Ok(0)
        }
    }
}

/// Containers
#[derive(Debug, Subcommand)]
pub(crate) enum Container {
    Attach(container::Attach),
    Commit(Box<working::Commit>),
    Cp(container::Cp),
    Create(Box<run::Create>),
    Diff(container::Diff),
    Exec(container::Exec),
    Exists(Exists),
    Export(container::Export),
    Inspect(images::Inspect),
    Kill(container::Kill),
    Logs(container::Logs),
    #[command(aliases = ["list", "ps"])]
    Ls(container::Ps),
    Pause(container::Pause),
    Prune(container::ContainerPrune),
    Rename(working::Rename),
    Restart(container::Restart),
    #[command(alias = "remove")]
    Rm(container::Rm),
    Run(Box<run::Run>),
    Start(container::Start),
    Stats(container::Stats),
    Stop(container::Stop),
    Top(container::Top),
    Unpause(container::Unpause),
    Update(container::Update),
    Port(container::Port),
    Wait(container::Wait),
}

impl Runnable for Container {
    fn run(self, app: &App) -> Result<u8, Failure> {
        run_each! { self, app, Container {
            Attach, Commit, Cp, Create, Diff, Exec, Export, Inspect, Kill, Logs, Ls, Pause,
            Prune, Rename, Restart, Rm, Run, Start, Stats, Stop, Top, Unpause, Update, Port,
            Wait,
        }
            Container::Exists(command) => command.container(app),
        }
    }
}

/// Images
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    Build(Box<bud::Bud>),
    Exists(Exists),
    History(images::History),
    Import(import::Import),
    Inspect(images::Inspect),
    Load(transfer::Load),
    #[command(alias = "list")]
    Ls(image_list::Images),
    Prune(prune::Prune),
    Pull(transfer::Pull),
    Push(transfer::Push),
    #[command(alias = "remove")]
    Rm(image_names::Rmi),
    Save(transfer::Save),
    Tag(image_names::Tag),
    Untag(image_names::Untag),
}

impl Runnable for Image {
    fn run(self, app: &App) -> Result<u8, Failure> {
        run_each! { self, app, Image {
            Build, History, Import, Inspect, Load, Ls, Prune, Pull, Push, Rm, Save, Tag, Untag,
        }
            Image::Exists(command) => command.image(app),
        }
    }
}

/// The store and this machine
#[derive(Debug, Subcommand)]
pub(crate) enum System {
    Check(care::Check),
    Df(care::Df),
    Events(container::Events),
    Info(about::Info),
    /// Print a systemd unit that starts containers by restart policy at boot
    InstallUnit,
    /// Write systemd units of Quadlet files (.container, .volume), as a systemd generator
    Generator(quadlet::Generator),
    Prune(prune::Prune),
}

impl Runnable for System {
    fn run(self, app: &App) -> Result<u8, Failure> {
        run_each! { self, app, System {
            Check, Df, Events, Info, Generator, Prune,
        }
            System::InstallUnit => unit(app),
        }
    }
}

/// One unit for all containers: their monitors are not children of the unit, and stopping the unit
/// leaves them alone.
fn unit(app: &App) -> Result<u8, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::io("finding this program", &error))?;
    outln!(
        "[Unit]\n\
         Description=Start containers of rbuild by their restart policy\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         KillMode=process\n\
         ExecStart={} --root {} start --all --restart-policy\n\
         \n\
         [Install]\n\
         WantedBy=default.target",
        program.display(),
        app.conf.store_root()?.display()
    );
    Ok(0)
}
