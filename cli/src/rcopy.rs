use std::ffi::OsString;
use std::path::PathBuf;

use app::{App, Runnable};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use image_commands::trust::TrustCommand;
use image_commands::{
    account, artifact, auth, beside, copy, crane, diff, edit, explore, image_proxy, index, inspect,
    layers, ratelimit, raw, standalone, sync, tags, validate,
};
use options::globals::Globals;
use options::overview::{Group, Overview};
use options::settings::Settings;
use options::{Failure, reference, translate, tree};

use crate::about;

/// Copy, inspect, delete and sign images in registries, layouts and archives
#[derive(Debug, Parser)]
#[command(name = "rcopy", version, about, propagate_version = true, disable_help_subcommand = true)]
struct Rcopy {
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
    settings: Settings,
    /// As in skopeo, before the command; the command's own flags take precedence
    #[arg(id = "tls-verify-everywhere", long = "tls-verify", hide = true, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "cp")]
    Copy(Box<copy::Copy>),
    Sync(Box<sync::Sync>),
    Inspect(inspect::Inspect),
    Explore(explore::Explore),
    ListTags(tags::ListTags),
    Ls(crane::Ls),
    Catalog(tags::Catalog),
    Pull(crane::Pull),
    Push(crane::Push),
    Config(crane::PrintConfig),
    Whoami(account::Whoami),
    Ratelimit(ratelimit::RateLimit),
    Delete(tags::Delete),
    #[command(name = "digest")]
    DigestOf(tags::DigestOf),
    ManifestDigest(tags::ManifestDigest),
    Layers(layers::Layers),
    Validate(validate::Validate),
    Diff(diff::Diff),
    Export(edit::Export),
    Append(edit::Append),
    Mutate(Box<edit::Mutate>),
    Flatten(edit::Flatten),
    Rebase(edit::Rebase),
    CheckBase(edit::CheckBase),
    GetFile(edit::GetFile),
    Index(index::IndexCommand),
    Artifact(artifact::Artifact),
    /// Show what is attached to an image
    #[command(visible_alias = "discover")]
    Tree(artifact::Discover),
    #[command(subcommand)]
    Download(beside::Download),
    Clean(beside::Clean),
    Blob(raw::Blob),
    Manifest(raw::Manifest),
    Tag(raw::TagCommand),
    #[command(name = "experimental-image-proxy", hide = true)]
    ImageProxy(image_proxy::ImageProxy),
    #[command(flatten)]
    Trust(TrustCommand),
    StandaloneSign(standalone::StandaloneSign),
    StandaloneVerify(standalone::StandaloneVerify),
    Login(account::Login),
    Logout(account::Logout),
    Auth(auth::Auth),
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

impl Overview for Rcopy {
    const GROUPS: &[Group] = &[
        ("Copy", &["copy", "sync", "pull", "push"], &["layers", "export", "get-file"]),
        (
            "Look",
            &["inspect", "list-tags", "digest", "diff", "explore", "tree"],
            &[
                "config",
                "ls",
                "catalog",
                "manifest-digest",
                "validate",
                "download",
                "ratelimit",
                "whoami",
            ],
        ),
        (
            "Change",
            &["tag", "delete", "mutate", "rebase"],
            &["append", "flatten", "check-base", "index", "clean"],
        ),
        ("Parts of images", &["artifact"], &["blob", "manifest"]),
        (
            "Trust",
            &["sign", "verify"],
            &[
                "sign-blob",
                "verify-blob",
                "trust",
                "policy",
                "standalone-sign",
                "standalone-verify",
                "generate-key-pair",
                "public-key",
            ],
        ),
        ("System", &["login", "logout"], &["auth", "version", "completion", "man"]),
    ];
    const EXAMPLES: &[&str] = &[
        "rcopy copy docker://registry.example/app:1 oci:app:1            # to a layout",
        "rcopy copy --all docker://a.example/app docker://b.example/app  # all platforms",
        "rcopy inspect docker://registry.example/app:1                   # tags, layers, labels",
        "rcopy list-tags docker://registry.example/app                   # as JSON",
        "rcopy diff registry.example/app:1 registry.example/app:2        # two versions",
    ];
}

/// Runs the command line of `rcopy`. Wrong use is an error of clap's; otherwise it gives what the
/// command answered.
pub(crate) fn run(
    arguments: &[OsString],
    rootless: bool,
) -> Result<Result<u8, Failure>, clap::Error> {
    let arguments = match translate::translated(arguments) {
        Ok(line) => line,
        Err(failure) => return Ok(Err(failure)),
    };
    let Rcopy { every, command } = match quickly(&arguments) {
        Some(parsed) => parsed,
        None => tree::parse::<Rcopy>(&arguments)?,
    };
    let EveryCommand { mut globals, settings, tls_verify } = every;
    if settings.debug && globals.log.is_none() {
        globals.log = Some("debug".to_owned());
    }
    let settings = Settings { tls_verify, ..settings };
    let app = App::new(globals, rootless).with(settings);
    let logs_in = matches!(command, Command::Login(_) | Command::Logout(_) | Command::Auth(_));
    let known = if logs_in { Ok(()) } else { app.conf.check_authfile() };
    let done = known.and_then(|()| dispatch(command, &app));
    Ok(done.map_err(|failure| failure.full_disk(|| app.conf.store_root().ok())))
}

/// Reads a line of a command that has no commands of its own.
fn quickly(line: &[OsString]) -> Option<Rcopy> {
    let (every, command) = tree::parse_alone(ALONE, line)?;
    Some(Rcopy { every, command })
}

/// Commands without commands of their own, by name.
const ALONE: &[tree::CommandReader<EveryCommand, Command>] = options::each_alone! {
    "copy" => Command::Copy, "cp" => Command::Copy, "sync" => Command::Sync,
    "inspect" => Command::Inspect, "explore" => Command::Explore, "list-tags" => Command::ListTags,
    "ls" => Command::Ls, "catalog" => Command::Catalog, "pull" => Command::Pull,
    "push" => Command::Push, "config" => Command::Config, "whoami" => Command::Whoami,
    "ratelimit" => Command::Ratelimit, "delete" => Command::Delete,
    "digest" => Command::DigestOf, "manifest-digest" => Command::ManifestDigest,
    "layers" => Command::Layers, "validate" => Command::Validate, "diff" => Command::Diff,
    "export" => Command::Export, "append" => Command::Append, "mutate" => Command::Mutate,
    "flatten" => Command::Flatten, "rebase" => Command::Rebase,
    "check-base" => Command::CheckBase, "get-file" => Command::GetFile, "tree" => Command::Tree,
    "clean" => Command::Clean, "tag" => Command::Tag,
    "experimental-image-proxy" => Command::ImageProxy,
    "standalone-sign" => Command::StandaloneSign,
    "standalone-verify" => Command::StandaloneVerify, "login" => Command::Login,
    "logout" => Command::Logout, "version" => Command::Version,
    "sign" => |own| Command::Trust(TrustCommand::Sign(own)),
    "verify" => |own| Command::Trust(TrustCommand::Verify(own)),
    "generate-key-pair" => |own| Command::Trust(TrustCommand::GenerateKeyPair(own)),
    "public-key" => |own| Command::Trust(TrustCommand::PublicKey(own)),
    "sign-blob" => |own| Command::Trust(TrustCommand::SignBlob(own)),
    "verify-blob" => |own| Command::Trust(TrustCommand::VerifyBlob(own)),
};

fn dispatch(command: Command, app: &App) -> Result<u8, Failure> {
    run_each! { command, app, Command {
        Copy, Sync, Inspect, Explore, ListTags, Ls, Catalog, Pull, Push, Config, Whoami,
        Ratelimit, Delete, DigestOf, Layers, Validate, Diff, Export, Append, Mutate,
        Flatten, Rebase, CheckBase, GetFile, Index, Artifact, Tree, Download, Clean, Blob,
        Manifest, Tag, StandaloneSign, StandaloneVerify, Trust, Login, Logout, Auth,
        ImageProxy,
    }
        Command::ManifestDigest(digest) => digest.run(),
        Command::Version(version) => version.run("rcopy"),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Rcopy::command(), "rcopy", &mut script);
            out!("{}", String::from_utf8_lossy(&script));
            Ok(0)
        }
        Command::Man { directory, markdown } => {
            reference::pages::<Rcopy>(&directory, markdown)?;
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use options::help_check;

    #[test]
    fn the_command_tree_is_sound() {
        Rcopy::command().debug_assert();
        tree::lenient(Rcopy::command()).debug_assert();
    }

    #[test]
    fn every_command_without_commands_is_read_alone() {
        let alone: Vec<&str> = ALONE.iter().map(|(name, _)| *name).collect();
        for command in Rcopy::command().get_subcommands().filter(|one| !one.has_subcommands()) {
            let name = command.get_name();
            let rare = ["completion", "man"].contains(&name);
            assert!(rare || alone.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_tree_of_one_command_reads_lines_as_the_whole_tree_does() {
        for (text, quick) in [
            ("rcopy copy --all -f oci docker://a/b oci:c --src-tls-verify=false", true),
            ("rcopy cp -a --format v2s2 docker://a/b docker-archive:c", true),
            ("rcopy inspect --format {{.Name}} --raw=false docker://a/b", true),
            ("rcopy list-tags --policy p docker://a/b", true),
            ("rcopy verify --key k docker://a/b", true),
            ("rcopy --debug copy docker://a/b oci:c", false),
            ("rcopy copy docker://a/b", false),
            ("rcopy inspect --version", false),
            ("rcopy sync --help", false),
        ] {
            let line: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            let found = quickly(&line);
            assert_eq!(found.is_some(), quick, "{text}");
            if let Some(found) = found {
                let whole = tree::parse::<Rcopy>(&line).unwrap();
                assert_eq!(format!("{found:?}"), format!("{whole:?}"), "{text}");
            }
        }
    }

    #[test]
    fn help_is_two_screens_and_says_what_every_command_has_once() {
        help_check::check::<Rcopy>();
    }

    #[test]
    fn every_example_is_a_line_of_a_command() {
        help_check::check_examples::<Rcopy>(|_| false);
    }
}
