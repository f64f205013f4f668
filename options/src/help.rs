//! How the command trees are shown: commands in groups with examples, examples before options,
//! options of every command once; and which flag is meant where a script has one of another program.

use std::path::Path;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Command, CommandFactory};

use crate::Failure;

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

/// The tree as it is shown.
pub fn shown<P: Overview>() -> Command {
    let mut tree = P::command();
    tree.build();
    let overview = overview::<P>(&tree);
    let usage = format!("{} [OPTIONS] <COMMAND>", tree.get_name());
    let footer = format!("Options of every command: {} --help", tree.get_name());
    let tree = tree.mut_subcommands(|command| below(command, &footer));
    tree.mut_subcommands(|command| command.hide(true))
        .before_help(overview)
        .override_usage(usage)
        .help_template("{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}{all-args}")
}

fn below(command: Command, footer: &str) -> Command {
    let template = "{about-with-newline}\n{usage-heading} {usage}{after-help}\n\n{all-args}\n\n";
    let command = command
        .mut_args(|arg| match arg.is_global_set() || arg.get_id() == "version" {
            true => arg.hide(true),
            false => arg,
        })
        .help_template(format!("{template}{footer}"));
    short(command).mut_subcommands(|command| below(command, footer))
}

/// Leaves what few need to `--help` where `-h` would be longer than two screens: the options under
/// the last headings.
fn short(mut command: Command) -> Command {
    loop {
        let lines = command.render_help().to_string().lines().count();
        let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let headings = visible
            .filter(|arg| !arg.is_hide_short_help_set())
            .filter_map(|arg| arg.get_help_heading().map(str::to_owned));
        let Some(last) = headings.last().filter(|_| lines > TWO_SCREENS) else { return command };
        command = command.mut_args(|arg| match arg.get_help_heading() == Some(&last) {
            true => arg.hide_short_help(true),
            false => arg,
        });
    }
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
    clap_mangen::generate_to(P::command(), directory).map_err(failed)
}

/// Flags of docker, podman, buildah, skopeo and crane that are spelled another way here.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "--load",
        "what is built is in the store; -o type=docker,dest=- gives `docker load` an archive",
    ),
    ("--builder", "there is one builder, and it needs no daemon"),
    ("--attest", "--sbom and --provenance"),
    ("--bundle", "--output type=oci"),
    ("--gpus", "--device"),
    ("--publish", "-p in `rbuild run`; a build publishes no ports"),
    ("--link", "--network"),
    ("--image", "name the image without a flag"),
    ("--insecure", "--tls-verify=false"),
    ("--src-insecure", "--src-tls-verify=false"),
    ("--dest-insecure", "--dest-tls-verify=false"),
    ("--allow-nondistributable-artifacts", "foreign layers are copied where the source holds them"),
    ("--jobs-per-image", "--jobs"),
    ("--image-parallel-copies", "--jobs"),
    ("--cache-repo", "--cache-to type=registry,ref=NAME and --cache-from type=registry,ref=NAME"),
    ("--destination", "-t NAME --push"),
    ("--dockerfile", "-f FILE"),
    ("--context", "name the context without a flag"),
    ("--log-driver", "`rbuild logs` reads what a container wrote"),
    ("--dest-precompute-digests", "a blob that is there already is never sent"),
    ("--username-stdin", "--password-stdin"),
];

/// Says what another program's flag is called here.
pub fn translated(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let name = flag.split(['=', ' ']).next().unwrap_or_default();
    if let Some((_, here)) = ELSEWHERE.iter().find(|(known, _)| *known == name) {
        let hint = StyledStr::from(format!("here: {here}"));
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    }
    error
}
