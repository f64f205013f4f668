//! How the command trees are shown: commands in groups with examples, examples before options,
//! options of every command once.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::ArgAction;
use clap::{Arg, Command};

use crate::overview::{Extent, Overview, overview};
use crate::{Failure, examples};

/// The lines of one command that `-h` may have: two screens.
const TWO_SCREENS: usize = 100;

/// How the help of a command is laid out: examples come before options.
const TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}{after-help}\n\n{all-args}";
/// The lines below it.
const FOOTER: usize = 2;

/// The tree as it is shown.
pub fn shown<P: Overview>() -> Command {
    shown_to::<P>(Extent::Common, false)
}

/// What `--help`, `help`, `help all` and `help COMMAND` show, if a line asks for that.
pub fn asked<P: Overview>(line: &[OsString]) -> Option<clap::Error> {
    let [program, word, topic @ ..] = line else { return None };
    let (tree, words) = match (word.to_str()?, topic) {
        // In short form: two screens show the options of every command, too.
        ("--help" | "help", []) => (shown_to::<P>(Extent::Common, true), vec!["-h".into()]),
        ("help", [all]) if all == "all" => {
            (shown_to::<P>(Extent::All, false), vec![OsString::from("-h")])
        }
        ("help", topic) => (shown::<P>(), [topic, &["--help".into()]].concat()),
        _ => return None,
    };
    tree.try_get_matches_from(std::iter::once(program.clone()).chain(words)).err()
}

/// The tree as it is shown; with the options of every command also in short form.
fn shown_to<P: Overview>(extent: Extent, options: bool) -> Command {
    let mut tree = P::command();
    let (name, overview) = (tree.get_name().to_owned(), overview::<P>(&tree, extent));
    // What `-h` hides must be known before the tree is built: else `--help` is the same.
    tree = tree
        .mut_args(|arg| match arg.is_global_set() && !options {
            true => arg.hide_short_help(true),
            false => arg,
        })
        .mut_subcommands(|command| {
            let path = format!("{name} {}", command.get_name());
            short(examples::added(command, &path))
        });
    tree.build();
    let below_footer = format!("Options of every command: {name} --help");
    let footer = format!("Help for one command: {name} COMMAND -h. All commands: {name} help all");
    let template = "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}{all-args}";
    tree.mut_subcommands(|command| below(command, &below_footer).hide(true))
        .before_help(overview)
        .override_usage(format!("{name} [OPTIONS] <COMMAND>"))
        .help_template(format!("{template}\n\n{footer}"))
}

/// A tree of its own, such as `rbuild runtime`, as it is shown.
pub fn shown_alone(tree: Command, path: &str) -> Command {
    let mut tree = examples::added(tree, path).bin_name(path);
    tree.build();
    tree.mut_subcommands(|command| below(command, &format!("Options of every command: {path} -h")))
}

/// Leaves the list of values out for switches, and where the help names all of them.
fn without_known_values(arg: Arg) -> Arg {
    let values = arg.get_possible_values();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let words: Vec<&str> = help.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
    let switch = values.len() == 2 && values.iter().any(|value| value.get_name() == "true");
    let named = values.iter().all(|value| words.contains(&value.get_name()));
    if switch || named { arg.hide_possible_values(true) } else { arg }
}

/// As shown below the program, where options of every command are left out.
fn below(command: Command, footer: &str) -> Command {
    let command = command
        .mut_args(|arg| match arg.is_global_set() || arg.get_id() == "version" {
            true => arg.hide(true),
            false => without_known_values(arg),
        })
        .help_template(format!("{TEMPLATE}\n\n{footer}"));
    command.mut_subcommands(|command| below(command, footer))
}

/// The help that a line asks for whose last word is `-h` of a command where that is an option with
/// a value, as docker's `run` has it.
pub fn short_of<P: Overview>(line: &[OsString]) -> Option<clap::Error> {
    let (_, words) = line.split_last().filter(|(last, _)| *last == "-h")?;
    let taken = |command: &Command| {
        let mut args = command.get_arguments();
        args.any(|arg| arg.get_short() == Some('h') && arg.get_id() != "help")
    };
    let tree = each(shown::<P>(), &|command| match taken(&command) {
        true => command.mut_args(|arg| match arg.get_id() == "help" {
            true => arg.action(ArgAction::HelpShort),
            false => arg,
        }),
        false => command,
    });
    let line = words.iter().cloned().chain(std::iter::once(OsString::from("--help")));
    tree.try_get_matches_from(line).err()
}

fn each(command: Command, change: &dyn Fn(Command) -> Command) -> Command {
    change(command).mut_subcommands(|below| each(below, change))
}

/// The options that `-h` shows where all of them would take more than two screens: of commands
/// that have the first one.
const COMMON: &[(&str, &str)] = &[
    (
        "build-arg",
        "add-host build-arg build-context cache-from cache-to check creds file format label \
         memory metadata-file network no-cache on-failure output platform progress provenance \
         pull push quiet sbom secret sign sign-key squash ssh tag target tls-verify volume",
    ),
    (
        "cap-add",
        "add-host cap-add cap-drop cidfile cpus creds detach device dns entrypoint env env- \
         file format health-cmd help hostname init interactive label lazy memory mount name \
         network network-alias pids-limit platform privileged publish publish-all pull quiet \
         read-only replace restart rm security-opt shm-size stop-timeout timeout tls-verify \
         tmpfs tty ulimit user userns volume workdir",
    ),
    (
        "dest-creds",
        "additional-tag all all-tags dest-cert-dir dest-compress-format dest-compress-level \
         dest-creds dest-tls-verify digest-tags digestfile dry-run format image-parallel- \
         copies multi-arch no-clobber platform preserve-digests progress quiet referrers \
         remove-signatures retry-times sign sign-by sign-by-sigstore-private-key src-cert-dir \
         src-creds src-tls-verify",
    ),
];

/// Leaves what few need to `--help` where `-h` would be longer than two screens: what is not
/// common, then the options under the last headings.
fn short(mut command: Command) -> Command {
    let lines = |command: &Command| {
        let text = command.clone().help_template(TEMPLATE).render_help().to_string();
        text.lines().count() + FOOTER
    };
    if lines(&command) > TWO_SCREENS {
        let has = |long: &str| command.get_arguments().any(|arg| arg.get_long() == Some(long));
        let common = COMMON.iter().find(|(long, _)| has(long)).map(|(_, common)| *common);
        command = command.mut_args(|arg| match (arg.get_long(), common) {
            (Some(long), Some(common)) if common.split(' ').all(|one| one != long) => {
                arg.hide_short_help(true)
            }
            _ => arg,
        });
    }
    loop {
        let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let headings = visible
            .filter(|arg| !arg.is_hide_short_help_set())
            .filter_map(|arg| arg.get_help_heading().map(str::to_owned));
        let last = headings.last().filter(|_| lines(&command) > TWO_SCREENS);
        let Some(last) = last else { break };
        command = command.mut_args(|arg| match arg.get_help_heading() == Some(&last) {
            true => arg.hide_short_help(true),
            false => arg,
        });
    }
    command.mut_subcommands(short)
}

/// Writes a manual page for the program and for each command.
///
/// # Errors
/// The directory cannot be written to.
pub fn manual<P: Overview>(directory: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::io(format!("writing manual pages to {}", directory.display()), &error)
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let tree = P::command();
    let name = tree.get_name().to_owned();
    clap_mangen::generate_to(examples::added(tree, &name), directory).map_err(failed)
}
