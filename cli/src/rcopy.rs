use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::app::{App, Globals};
use crate::commands::{
    about, account, artifact, auth, beside, copy, crane, diff, edit, explore, index, inspect,
    layers, ratelimit, raw, standalone, sync, tags, trust, validate,
};
use crate::help::Overview;
use crate::reference;
use crate::report::Failure;
use crate::settings::Settings;
use crate::tree;

/// Copy, inspect, delete and sign images in registries, layouts and archives
#[derive(Debug, Parser)]
#[command(name = "rcopy", version, about, propagate_version = true, disable_help_subcommand = true)]
struct Rcopy {
    #[command(flatten)]
    globals: Globals,
    #[command(flatten)]
    settings: Settings,
    /// As in skopeo, before the command; the command's own flags take precedence
    #[arg(id = "tls-verify-everywhere", long = "tls-verify", hide = true, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    #[command(subcommand)]
    command: Command,
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
    Config(crane::Config),
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
    #[command(flatten)]
    Trust(trust::TrustCommand),
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
    const GROUPS: &[(&str, &[&str])] = &[
        ("Copy", &["copy", "sync", "pull", "push", "layers", "export", "get-file"]),
        (
            "Look",
            &[
                "inspect",
                "explore",
                "config",
                "list-tags",
                "ls",
                "catalog",
                "digest",
                "manifest-digest",
                "diff",
                "validate",
                "tree",
                "download",
                "ratelimit",
            ],
        ),
        (
            "Change",
            &[
                "append",
                "mutate",
                "flatten",
                "rebase",
                "check-base",
                "index",
                "tag",
                "delete",
                "clean",
            ],
        ),
        ("Parts", &["artifact", "blob", "manifest"]),
        (
            "Trust",
            &[
                "sign",
                "verify",
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
        ("System", &["login", "logout", "whoami", "auth", "version", "completion", "man"]),
    ];
    const EXAMPLES: &[&str] = &[
        "rcopy copy docker://registry.example/app:1 oci:app:1    to a layout",
        "rcopy copy --all docker://a.example/app docker://b.example/app",
        "rcopy inspect docker://registry.example/app:1",
        "rcopy list-tags docker://registry.example/app",
        "rcopy diff registry.example/app:1 registry.example/app:2",
    ];
}

/// Runs the command line of `rcopy`. Wrong use is an error of clap's; otherwise it gives what the
/// command answered.
pub(crate) fn run(
    arguments: &[OsString],
    rootless: bool,
) -> Result<Result<u8, Failure>, clap::Error> {
    let parsed = tree::parse::<Rcopy>(arguments)?;
    let mut globals = parsed.globals;
    if parsed.settings.debug && globals.log.is_none() {
        globals.log = Some("debug".to_owned());
    }
    let settings = Settings { tls_verify: parsed.tls_verify, ..parsed.settings };
    let app = App::new(globals, rootless).with(settings);
    let logs_in =
        matches!(parsed.command, Command::Login(_) | Command::Logout(_) | Command::Auth(_));
    let known = if logs_in { Ok(()) } else { app.check_authfile() };
    let done = known.and_then(|()| dispatch(parsed.command, &app));
    Ok(done.map_err(|failure| failure.full_disk(|| app.store_root().ok())))
}

fn dispatch(command: Command, app: &App) -> Result<u8, Failure> {
    match command {
        Command::Copy(copy) => copy.run(app),
        Command::Sync(sync) => sync.run(app),
        Command::Inspect(inspect) => inspect.run(app),
        Command::Explore(explore) => explore.run(app),
        Command::ListTags(list) => list.run(app),
        Command::Ls(list) => list.run(app),
        Command::Catalog(catalog) => catalog.run(app),
        Command::Pull(pull) => pull.run(app),
        Command::Push(push) => push.run(app),
        Command::Config(config) => config.run(app),
        Command::Whoami(whoami) => whoami.run(app),
        Command::Ratelimit(limit) => limit.run(app),
        Command::Delete(delete) => delete.run(app),
        Command::DigestOf(digest) => digest.run(app),
        Command::ManifestDigest(digest) => digest.run(),
        Command::Layers(layers) => layers.run(app),
        Command::Validate(validate) => validate.run(app),
        Command::Diff(diff) => diff.run(app),
        Command::Export(export) => export.run(app),
        Command::Append(append) => append.run(app),
        Command::Mutate(mutate) => mutate.run(app),
        Command::Flatten(flatten) => flatten.run(app),
        Command::Rebase(rebase) => rebase.run(app),
        Command::CheckBase(check) => check.run(app),
        Command::GetFile(get) => get.run(app),
        Command::Index(index) => index.run(app),
        Command::Artifact(artifact) => artifact.run(app),
        Command::Tree(discover) => discover.run(app),
        Command::Download(download) => download.run(app),
        Command::Clean(clean) => clean.run(app),
        Command::Blob(blob) => blob.run(app),
        Command::Manifest(manifest) => manifest.run(app),
        Command::Tag(tag) => tag.run(app),
        Command::StandaloneSign(sign) => sign.run(),
        Command::StandaloneVerify(verify) => verify.run(),
        Command::Trust(trust) => trust.run(app),
        Command::Login(login) => login.run(app),
        Command::Logout(logout) => logout.run(app),
        Command::Auth(auth) => auth.run(app),
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
    use crate::help;

    #[test]
    fn the_command_tree_is_sound() {
        Rcopy::command().debug_assert();
        tree::lenient(Rcopy::command()).debug_assert();
    }

    #[test]
    fn help_is_two_screens_and_says_what_every_command_has_once() {
        let mut tree = help::shown::<Rcopy>();
        let overview = tree.render_help().to_string();
        for (group, commands) in Rcopy::GROUPS {
            assert!(overview.contains(&format!("{group}:\n")), "{group} in {overview}");
            for name in *commands {
                assert!(tree.find_subcommand(name).is_some(), "{name} is a command");
                assert!(overview.contains(&format!("\n  {name} ")), "{name} in {overview}");
            }
        }
        assert!(overview.contains("Examples:"), "{overview}");
        let mut left: Vec<clap::Command> = tree.get_subcommands().cloned().collect();
        while let Some(mut command) = left.pop() {
            let (name, text) = (command.get_name().to_owned(), command.render_help().to_string());
            assert!(text.lines().count() <= 100, "{name} -h: {} lines", text.lines().count());
            assert!(!text.contains("--signature-policy"), "{name} -h has options of all commands");
            let usage = text.find("Usage:").unwrap();
            let examples = text.find("Examples:").unwrap_or(usage);
            let options = text.find("Options:").unwrap_or(usize::MAX);
            assert!(usage <= examples && examples < options, "{name}: {text}");
            left.extend(command.get_subcommands().cloned());
        }
    }
}
