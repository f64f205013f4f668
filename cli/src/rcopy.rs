use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::app::{App, Globals};
use crate::commands::{
    about, account, artifact, auth, copy, diff, edit, explore, index, inspect, layers, raw, sign,
    standalone, sync, tags, validate,
};
use crate::entry;
use crate::report::Failure;
use crate::settings::Settings;

/// Copy, inspect, delete and sign images in registries, layouts and archives
#[derive(Debug, Parser)]
#[command(name = "rcopy", version, about, propagate_version = true, disable_help_subcommand = true)]
struct Rcopy {
    #[command(flatten)]
    globals: Globals,
    #[command(flatten)]
    settings: Settings,
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
    #[command(visible_alias = "ls")]
    ListTags(tags::ListTags),
    Catalog(tags::Catalog),
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
    Index(index::IndexCommand),
    Artifact(artifact::Artifact),
    /// Show what is attached to an image
    #[command(visible_alias = "discover")]
    Tree(artifact::Discover),
    Blob(raw::Blob),
    Manifest(raw::Manifest),
    Tag(raw::TagCommand),
    Sign(sign::Sign),
    Verify(sign::Verify),
    StandaloneSign(standalone::StandaloneSign),
    StandaloneVerify(standalone::StandaloneVerify),
    #[command(visible_alias = "generate-sigstore-key")]
    GenerateKeyPair(sign::GenerateKeyPair),
    Login(account::Login),
    Logout(account::Logout),
    Auth(auth::Auth),
    Version(about::Version),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: Shell,
    },
}

/// The whole of the command `rcopy`.
pub fn rcopy() -> ExitCode {
    entry::enter("rcopy", |arguments, rootless| {
        let parsed = Rcopy::try_parse_from(arguments)?;
        let mut globals = parsed.globals;
        if parsed.settings.debug && globals.log.is_none() {
            globals.log = Some("debug".to_owned());
        }
        let app = App::new(globals, rootless).with(parsed.settings);
        let done = dispatch(parsed.command, &app);
        Ok(done.map_err(|failure| failure.full_disk(|| app.store_root().ok())))
    })
}

fn dispatch(command: Command, app: &App) -> Result<u8, Failure> {
    match command {
        Command::Copy(copy) => copy.run(app),
        Command::Sync(sync) => sync.run(app),
        Command::Inspect(inspect) => inspect.run(app),
        Command::Explore(explore) => explore.run(app),
        Command::ListTags(list) => list.run(app),
        Command::Catalog(catalog) => catalog.run(app),
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
        Command::Index(index) => index.run(app),
        Command::Artifact(artifact) => artifact.run(app),
        Command::Tree(discover) => discover.run(app),
        Command::Blob(blob) => blob.run(app),
        Command::Manifest(manifest) => manifest.run(app),
        Command::Tag(tag) => tag.run(app),
        Command::StandaloneSign(sign) => sign.run(),
        Command::StandaloneVerify(verify) => verify.run(),
        Command::Sign(sign) => sign.run(app),
        Command::Verify(verify) => verify.run(app),
        Command::GenerateKeyPair(generate) => generate.run(),
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Rcopy::command().debug_assert();
    }
}
