//! How the command trees are shown: commands in groups with examples, examples before options,
//! options of every command once.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::{ArgAction, StyledStr};
use clap::{Command, CommandFactory};

use crate::{Failure, examples};

/// What a program shows first.
pub trait Overview: CommandFactory {
    /// Groups of commands; what is in none comes last.
    const GROUPS: &[(&str, &[&str])];
    /// A few lines that are worth copying.
    const EXAMPLES: &[&str];
}

/// The lines of one command that `-h` may have: two screens.
const TWO_SCREENS: usize = 100;
/// The columns that lists of commands take at most.
const WIDTH: usize = 100;

/// How the help of a command is laid out: examples come before options.
const TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}{after-help}\n\n{all-args}";
/// The lines below it.
const FOOTER: usize = 2;

/// The tree as it is shown.
pub fn shown<P: Overview>() -> Command {
    let mut tree = P::command();
    let (name, overview) = (tree.get_name().to_owned(), overview::<P>(&tree));
    // What `-h` hides must be known before the tree is built: else `--help` is the same.
    tree = tree
        .mut_args(|arg| if arg.is_global_set() { arg.hide_short_help(true) } else { arg })
        .mut_subcommands(|command| {
            let path = format!("{name} {}", command.get_name());
            short(examples::added(command, &path))
        });
    tree.build();
    let footer = format!("Options of every command: {name} --help");
    let template = "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}{all-args}";
    tree.mut_subcommands(|command| below(command, &footer).hide(true))
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

/// As shown below the program, where options of every command are left out.
fn below(command: Command, footer: &str) -> Command {
    let command = command
        .mut_args(|arg| match arg.is_global_set() || arg.get_id() == "version" {
            true => arg.hide(true),
            false => arg,
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

fn overview<P: Overview>(tree: &Command) -> StyledStr {
    let header = *tree.get_styles().get_header();
    let literal = *tree.get_styles().get_literal();
    let mut text = String::new();
    let mut left: Vec<&Command> = tree.get_subcommands().filter(|one| !one.is_hide_set()).collect();
    let width = left.iter().map(|one| one.get_name().len()).max().unwrap_or(0);
    let mut show = |name: &str, commands: &[&Command]| {
        text += &format!("{header}{name}:{header:#}\n");
        for command in commands {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let aliases: Vec<&str> = command.get_visible_aliases().collect();
            let aliases = match aliases.is_empty() {
                true => String::new(),
                false => format!(" [{}]", aliases.join(", ")),
            };
            let name = command.get_name();
            let about = hanging(&format!("{about}{aliases}"), width + 4);
            text += &format!("  {literal}{name:width$}{literal:#}  {about}\n");
        }
        text.push('\n');
    };
    for (group, names) in P::GROUPS {
        let of = |name: &&str| left.iter().position(|command| command.get_name() == *name);
        let mut members = Vec::new();
        for at in names.iter().filter_map(of).collect::<Vec<_>>() {
            members.push(left[at]);
        }
        show(group, &members);
        left.retain(|command| !names.contains(&command.get_name()));
    }
    if !left.is_empty() {
        show("Other", &left);
    }
    text += &format!("{header}Examples:{header:#}\n");
    for example in P::EXAMPLES {
        text += &format!("  {example}\n");
    }
    StyledStr::from(text.trim_end().to_owned())
}

/// Text that begins at a column and goes on there in further lines.
fn hanging(text: &str, column: usize) -> String {
    let (mut out, mut at) = (String::new(), column);
    for word in text.split(' ') {
        let length = word.chars().count();
        if at + length >= WIDTH && at > column {
            out += &format!("\n{:column$}", "");
            at = column;
        } else if at > column {
            out.push(' ');
            at += 1;
        }
        out += word;
        at += length;
    }
    out
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
