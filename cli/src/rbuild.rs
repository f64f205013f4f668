use std::ffi::OsString;
use std::path::PathBuf;

use app::{App, Runnable};
use build_commands::lock::Lock;
use build_commands::verify_build::VerifyBuild;
use build_commands::{bake, bud, debug, plan};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use container_commands::container::StatusCommand;
use container_commands::oci_runtime::OciRuntime;
use container_commands::{container, network, oci_runtime, run, volume, working};
use image_commands::attest::{Attest, VerifyAttestation};
#[cfg(feature = "registry")]
use image_commands::registry;
use image_commands::trust::TrustCommand;
use image_commands::{
    account, image_list, images as image_names, import, manifest, sbom, transfer,
};
use options::globals::Globals;
use options::overview::{Group, Overview};
use options::{Dialect, Failure, reference, tree};

use crate::{about, care, docker, images, prune};

/// Build, run, store, push and sign container images
#[derive(Debug, Parser)]
#[command(
    name = "rbuild",
    version,
    about,
    propagate_version = true,
    disable_help_subcommand = true
)]
struct Rbuild {
    #[command(flatten)]
    every: EveryCommand,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct EveryCommand {
    #[command(flatten)]
    globals: Globals,
    #[command(flatten)]
    buildah: options::buildah::BuildahFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "build", alias = "build-using-dockerfile")]
    Bud(Box<bud::Bud>),
    Bake(Box<bake::Bake>),
    Plan(Box<plan::Plan>),
    #[command(subcommand)]
    Debug(debug::Debug),
    Run(Box<run::Run>),
    Create(Box<run::Create>),
    Start(container::Start),
    Restart(container::Restart),
    Pause(container::Pause),
    Unpause(container::Unpause),
    Update(container::Update),
    Cp(container::Cp),
    Diff(container::Diff),
    Export(container::Export),
    Port(container::Port),
    #[command(flatten)]
    Status(StatusCommand),
    #[command(subcommand)]
    Volume(volume::Volume),
    #[command(subcommand)]
    Network(network::Network),
    #[command(subcommand)]
    Container(Box<docker::Container>),
    #[command(subcommand)]
    Image(Box<docker::Image>),
    #[command(subcommand)]
    System(Box<docker::System>),
    #[command(subcommand, alias = "builder")]
    Buildx(Box<docker::Buildx>),
    From(Box<working::From>),
    Copy(Box<working::Copy>),
    Add(Box<working::Add>),
    Config(Box<working::Config>),
    Commit(Box<working::Commit>),
    Mount(working::Mount),
    #[command(visible_alias = "unmount")]
    Umount(working::Umount),
    #[command(aliases = ["list", "ls"])]
    Containers(working::Containers),
    Rename(working::Rename),
    Unshare(working::Unshare),
    Ps(container::Ps),
    Logs(container::Logs),
    Exec(container::Exec),
    Attach(container::Attach),
    Stop(container::Stop),
    Kill(container::Kill),
    Wait(container::Wait),
    #[command(alias = "delete")]
    Rm(container::Rm),
    Images(image_list::Images),
    History(images::History),
    Inspect(images::Inspect),
    Tag(image_names::Tag),
    Untag(image_names::Untag),
    Rmi(image_names::Rmi),
    Pull(transfer::Pull),
    Push(transfer::Push),
    Save(transfer::Save),
    Load(transfer::Load),
    Import(import::Import),
    #[command(subcommand)]
    Manifest(Box<manifest::Manifest>),
    Lock(Lock),
    Sbom(sbom::Sbom),
    #[command(flatten)]
    Trust(TrustCommand),
    VerifyBuild(VerifyBuild),
    Attest(Attest),
    VerifyAttestation(VerifyAttestation),
    Login(account::Login),
    Logout(account::Logout),
    Prune(prune::Prune),
    Du(prune::Du),
    Df(care::Df),
    Check(care::Check),
    #[cfg(feature = "registry")]
    #[command(subcommand)]
    Registry(registry::Registry),
    /// Run OCI bundles for an engine, with runc's command line
    #[command(disable_help_flag = true)]
    Runtime {
        /// See `rbuild runtime --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    Info(about::Info),
    Version(about::Version),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// Write Markdown pages for the documentation site
        #[arg(long)]
        markdown: bool,
        /// The directory; it is created if missing
        directory: PathBuf,
    },
}

impl Overview for Rbuild {
    const GROUPS: &[Group] = &[
        ("Build", &["bud", "bake", "plan"], &["debug", "lock", "verify-build"]),
        (
            "Containers",
            &["run", "ps", "logs", "exec", "cp", "stop", "rm"],
            &[
                "create",
                "start",
                "restart",
                "kill",
                "wait",
                "pause",
                "unpause",
                "update",
                "attach",
                "top",
                "stats",
                "events",
                "port",
                "diff",
                "export",
                "healthcheck",
                "volume",
                "network",
            ],
        ),
        (
            "Images",
            &["images", "pull", "push", "tag", "rmi", "inspect", "history"],
            &["untag", "save", "load", "import", "manifest", "sbom"],
        ),
        ("Registries", &["login", "registry"], &["logout"]),
        (
            "Trust",
            &["sign", "verify", "policy"],
            &[
                "attest",
                "verify-attestation",
                "sign-blob",
                "verify-blob",
                "trust",
                "generate-key-pair",
                "public-key",
            ],
        ),
        (
            "Working containers, as in buildah",
            &["from", "commit"],
            &["copy", "add", "config", "mount", "umount", "containers", "rename", "unshare"],
        ),
        (
            "System",
            &["df", "prune", "check"],
            &["du", "info", "version", "runtime", "completion", "man"],
        ),
        ("Commands in Docker's groups", &[], &["container", "image", "system", "buildx"]),
    ];
    const EXAMPLES: &[&str] = &[
        "rbuild bud -t app .                            # build the Dockerfile here",
        "rbuild bud -t registry.example/app:1 --push .  # build and push",
        "rbuild run --rm -it app sh                     # a shell in it",
        "rbuild images                                  # what is in the store",
        "rbuild prune --older-than 7d                   # what nothing needed for a week",
    ];
}

/// Runs the command line of `rbuild`. Wrong use is an error of clap's; otherwise it gives what the
/// command answered.
pub(crate) fn run(
    arguments: &[OsString],
    rootless: bool,
) -> Result<Result<u8, Failure>, clap::Error> {
    if let Some(line) = oci_runtime::line(arguments) {
        return Ok(OciRuntime::parse(&line)?.run());
    }
    let Rbuild { every, mut command } = match quickly(arguments) {
        Some(parsed) => parsed,
        None => tree::parse::<Rbuild>(arguments)?,
    };
    let EveryCommand { mut globals, buildah } = every;
    if let Err(failure) = buildah.check::<App>() {
        return Ok(Err(failure));
    }
    globals.log_default(options::buildah::log_level());
    if let Command::Pull(pull) = &mut command
        && let Err(failure) = pull.take_policy(&mut globals.policy)
    {
        return Ok(Err(failure));
    }
    #[cfg(feature = "registry")]
    if matches!(command, Command::Registry(_)) {
        // The operator of a server reads what went wrong.
        globals.log_default(Some("registry_server=warn".to_owned()));
    }
    let app = App::new(globals, rootless).naming(buildah.short_names());
    let logs_in = matches!(command, Command::Login(_) | Command::Logout(_));
    let known = if logs_in { Ok(()) } else { app.conf.check_authfile() };
    let done = known.and_then(|()| dispatch(command, &app));
    Ok(done.map_err(|failure| failure.full_disk(|| app.conf.store_root().ok())))
}

/// Reads a line of a command that has no commands of its own.
fn quickly(line: &[OsString]) -> Option<Rbuild> {
    // A tree that the dialect changes is read whole.
    if Dialect::spoken() == Dialect::Buildah {
        return None;
    }
    let (every, command) = tree::parse_alone(ALONE, line)?;
    Some(Rbuild { every, command })
}

/// Commands without commands of their own, by name.
const ALONE: &[tree::CommandReader<EveryCommand, Command>] = options::each_alone! {
    "bud" => Command::Bud, "build" => Command::Bud, "build-using-dockerfile" => Command::Bud,
    "bake" => Command::Bake, "plan" => Command::Plan, "run" => Command::Run,
    "create" => Command::Create, "start" => Command::Start, "restart" => Command::Restart,
    "pause" => Command::Pause, "unpause" => Command::Unpause, "update" => Command::Update,
    "cp" => Command::Cp, "diff" => Command::Diff, "export" => Command::Export,
    "port" => Command::Port, "from" => Command::From, "copy" => Command::Copy,
    "add" => Command::Add, "config" => Command::Config, "commit" => Command::Commit,
    "mount" => Command::Mount, "umount" => Command::Umount, "containers" => Command::Containers,
    "rename" => Command::Rename, "unshare" => Command::Unshare, "ps" => Command::Ps,
    "logs" => Command::Logs, "exec" => Command::Exec, "attach" => Command::Attach,
    "stop" => Command::Stop, "kill" => Command::Kill, "wait" => Command::Wait,
    "rm" => Command::Rm, "images" => Command::Images, "history" => Command::History,
    "inspect" => Command::Inspect, "tag" => Command::Tag, "untag" => Command::Untag,
    "rmi" => Command::Rmi, "pull" => Command::Pull, "push" => Command::Push,
    "save" => Command::Save, "load" => Command::Load, "import" => Command::Import,
    "lock" => Command::Lock, "sbom" => Command::Sbom, "verify-build" => Command::VerifyBuild,
    "attest" => Command::Attest, "verify-attestation" => Command::VerifyAttestation,
    "login" => Command::Login, "logout" => Command::Logout, "prune" => Command::Prune,
    "du" => Command::Du, "df" => Command::Df, "check" => Command::Check, "info" => Command::Info,
    "version" => Command::Version,
    "top" => |own| Command::Status(StatusCommand::Top(own)),
    "stats" => |own| Command::Status(StatusCommand::Stats(own)),
    "events" => |own| Command::Status(StatusCommand::Events(own)),
    "sign" => |own| Command::Trust(TrustCommand::Sign(own)),
    "verify" => |own| Command::Trust(TrustCommand::Verify(own)),
    "generate-key-pair" => |own| Command::Trust(TrustCommand::GenerateKeyPair(own)),
    "public-key" => |own| Command::Trust(TrustCommand::PublicKey(own)),
    "sign-blob" => |own| Command::Trust(TrustCommand::SignBlob(own)),
    "verify-blob" => |own| Command::Trust(TrustCommand::VerifyBlob(own)),
};

fn dispatch(command: Command, app: &App) -> Result<u8, Failure> {
    run_each! { command, app, Command {
        Bud, Bake, Plan, Run, Create, Start, Restart, Pause, Unpause, Update, Cp, Diff,
        Export, Status, Port, Volume, Network, Container, Image, System, Buildx, Debug, From,
        Copy, Add, Config, Commit, Mount, Umount, Containers, Rename, Unshare, Ps, Logs,
        Exec, Attach, Stop, Kill, Wait, Rm, Images, History, Inspect, Tag, Untag, Rmi, Pull,
        Push, Save, Load, Import, Manifest, Lock, Sbom, Trust, VerifyBuild, Attest,
        VerifyAttestation, Login, Logout, Prune, Du, Df, Check, Info,
    }
        #[cfg(feature = "registry")]
        Command::Registry(registry) => registry.run(app),
        Command::Runtime { arguments } => OciRuntime::read(arguments).run(),
        Command::Version(version) => version.run("rbuild"),
        Command::Completion { shell } => {
            completion(shell);
            Ok(0)
        }
        Command::Man { directory, markdown } => {
            reference::pages::<Rbuild>(&directory, markdown)?;
            Ok(0)
        }
    }
}

fn completion(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Rbuild::command(), "rbuild", &mut script);
    out!("{}", String::from_utf8_lossy(&script));
}

#[cfg(test)]
mod tests {
    use super::*;
    use options::help_check;

    #[test]
    fn the_command_tree_is_sound() {
        Rbuild::command().debug_assert();
        tree::lenient(Rbuild::command()).debug_assert();
    }

    #[test]
    fn the_tree_of_one_command_reads_lines_as_the_whole_tree_does() {
        for (text, quick) in [
            ("rbuild run --rm -it --root /s --name=a -p 80:80 image cmd --rm", true),
            ("rbuild run --tty=false --log debug -e A=1 -e B=2 image", true),
            ("rbuild run -dp80:80 -eA=1 -v/a:/b --name=a image -p80", true),
            ("rbuild create --restart always --storage-driver overlay image", true),
            ("rbuild start -a --authfile f one two", true),
            ("rbuild exec -u 5 one env -u", true),
            ("rbuild stop -t 3 -t 4 one", true),
            ("rbuild rm -fv one", true),
            ("rbuild ps -aq --filter name=a", true),
            ("rbuild logs --tail 5 one", true),
            ("rbuild --root /s ps", false),
            ("rbuild images -q --filter dangling=true", true),
            ("rbuild build -t a --build-arg=A=1 --push=false .", true),
            ("rbuild sign --key k image", true),
            ("rbuild stats --no-stream one", true),
            ("rbuild image ls", false),
            ("rbuild run", false),
            ("rbuild ps --no-such-flag", false),
            ("rbuild run --help", false),
            ("rbuild ps --version", false),
        ] {
            let line: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            let found = quickly(&line);
            assert_eq!(found.is_some(), quick, "{text}");
            if let Some(found) = found {
                let whole = tree::parse::<Rbuild>(&line).unwrap();
                assert_eq!(format!("{found:?}"), format!("{whole:?}"), "{text}");
            }
        }
    }

    #[test]
    fn every_command_without_commands_is_read_alone() {
        let alone: Vec<&str> = ALONE.iter().map(|(name, _)| *name).collect();
        for command in Rbuild::command().get_subcommands().filter(|one| !one.has_subcommands()) {
            let name = command.get_name();
            let rare = ["runtime", "completion", "man"].contains(&name);
            assert!(rare || alone.contains(&name), "{name}");
        }
    }

    #[test]
    fn help_is_two_screens_and_says_what_every_command_has_once() {
        help_check::check::<Rbuild>();
    }

    #[test]
    fn every_example_is_a_line_of_a_command() {
        help_check::check_examples::<Rbuild>(|line| {
            let read = |line: Vec<OsString>| OciRuntime::parse(&line).is_ok();
            oci_runtime::line(line).is_some_and(read)
        });
    }

    #[test]
    fn minus_h_at_the_end_is_help_also_where_it_is_the_host_name() {
        let help = |text: &str| {
            let line: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            tree::parse::<Rbuild>(&line).err().map(|error| error.to_string())
        };
        for line in ["rbuild run -h", "rbuild create --rm=false -h", "rbuild container run -h"] {
            let text = help(line).unwrap();
            assert!(text.contains("Examples:") && text.contains("-h, --hostname"), "{text}");
            assert!(text.lines().count() <= 100, "{line}: {text}");
        }
        assert_eq!(help("rbuild run -h name image"), None);
        assert!(help("rbuild run --hostname").unwrap().contains("a value is required"));
    }
}
