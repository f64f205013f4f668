//! Docker's forms of commands: a noun, then what is done with it.

use clap::Subcommand;

use super::{about, bud, care, container, image_list, images, prune, run, transfer, working};
use crate::app::App;
use crate::report::Failure;

/// Containers
#[derive(Debug, Subcommand)]
pub(crate) enum Container {
    Attach(container::Attach),
    Commit(Box<working::Commit>),
    Cp(container::Cp),
    Create(Box<run::Create>),
    Diff(container::Diff),
    Exec(container::Exec),
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

impl Container {
    /// Does it.
    ///
    /// # Errors
    /// Those of the command.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            Container::Attach(command) => command.run(app),
            Container::Commit(command) => command.run(app),
            Container::Cp(command) => command.run(app),
            Container::Create(command) => command.run(app),
            Container::Diff(command) => command.run(app),
            Container::Exec(command) => command.run(app),
            Container::Export(command) => command.run(app),
            Container::Inspect(command) => command.run(app),
            Container::Kill(command) => command.run(app),
            Container::Logs(command) => command.run(app),
            Container::Ls(command) => command.run(app),
            Container::Pause(command) => command.run(app),
            Container::Prune(command) => command.run(app),
            Container::Rename(command) => command.run(app),
            Container::Restart(command) => command.run(app),
            Container::Rm(command) => command.run(app),
            Container::Run(command) => command.run(app),
            Container::Start(command) => command.run(app),
            Container::Stats(command) => command.run(app),
            Container::Stop(command) => command.run(app),
            Container::Top(command) => command.run(app),
            Container::Unpause(command) => command.run(app),
            Container::Update(command) => command.run(app),
            Container::Port(command) => command.run(app),
            Container::Wait(command) => command.run(app),
        }
    }
}

/// Images
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    Build(Box<bud::Bud>),
    History(images::History),
    Inspect(images::Inspect),
    Load(transfer::Load),
    #[command(alias = "list")]
    Ls(image_list::Images),
    Prune(prune::Prune),
    Pull(transfer::Pull),
    Push(transfer::Push),
    #[command(alias = "remove")]
    Rm(images::Rmi),
    Save(transfer::Save),
    Tag(images::Tag),
}

impl Image {
    /// Does it.
    ///
    /// # Errors
    /// Those of the command.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            Image::Build(command) => command.run(app),
            Image::History(command) => command.run(app),
            Image::Inspect(command) => command.run(app),
            Image::Load(command) => command.run(app),
            Image::Ls(command) => command.run(app),
            Image::Prune(command) => command.run(app),
            Image::Pull(command) => command.run(app),
            Image::Push(command) => command.run(app),
            Image::Rm(command) => command.run(app),
            Image::Save(command) => command.run(app),
            Image::Tag(command) => command.run(app),
        }
    }
}

/// The store and this machine
#[derive(Debug, Subcommand)]
pub(crate) enum System {
    Df(care::Df),
    Events(container::Events),
    Info(about::Info),
    /// Print a systemd unit that starts containers by restart policy at boot
    InstallUnit,
    Prune(prune::Prune),
}

impl System {
    /// Does it.
    ///
    /// # Errors
    /// Those of the command.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            System::Df(command) => command.run(app),
            System::Events(command) => command.run(app),
            System::Info(command) => command.run(app),
            System::InstallUnit => unit(app),
            System::Prune(command) => command.run(app),
        }
    }
}

/// One unit for all containers: their monitors are nobody's children, and stopping the unit leaves
/// them alone.
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
        app.store_root()?.display()
    );
    Ok(0)
}
