//! The command trees as they are parsed: what holds for every flag of every command, said once.

use std::ffi::OsString;

use clap::builder::ArgAction;
use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches};

use crate::clusters::spread;
use crate::dialect::Dialect;
use crate::elsewhere;
use crate::help;
use crate::overview::Overview;

/// Reads a command line.
///
/// # Errors
/// Wrong use, or help that was asked for.
pub fn parse<P: Overview + FromArgMatches>(arguments: &[OsString]) -> Result<P, clap::Error> {
    if let Some(help) = help::asked::<P>(arguments) {
        return Err(help);
    }
    let dialect = Dialect::spoken();
    // Every switch that is changed is moved twice: only those of the line are.
    let mut tree = lenient_of(dialect.tree(P::command()), arguments);
    let arguments = &spread(&tree, arguments);
    match tree.try_get_matches_from_mut(arguments) {
        Ok(mut matches) => {
            P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut tree))
        }
        Err(error) if is_help(error.kind()) => {
            // Help shows switches as people write them.
            Err(help::shown::<P>().try_get_matches_from(arguments).err().unwrap_or(error))
        }
        Err(error) => {
            // Reported for the flags as people write them, if that is the same fault.
            let plain = dialect.tree(P::command()).try_get_matches_from(arguments).err();
            let plain = plain.filter(|plain| plain.kind() == error.kind());
            let help = (error.kind() == ErrorKind::InvalidValue)
                .then(|| help::short_of::<P>(arguments))
                .flatten()
                .filter(|help| is_help(help.kind()));
            Err(help.unwrap_or_else(|| elsewhere::translated(plain.unwrap_or(error))))
        }
    }
}

/// Reads a command without the rest of the tree: its name, and the function that reads a line of it
/// into the options `E` of every
/// command and the command `K`.
pub type CommandReader<E, K> = (&'static str, fn(&[OsString]) -> Option<(E, K)>);

/// The table of commands that are read alone: names, and what makes a command of its own options.
#[macro_export]
macro_rules! each_alone {
    ($($name:literal => $command:expr),+ $(,)?) => {
        &[$(($name, |line| {
            let (every, own) = $crate::tree::parse_one($name, line)?;
            Some((every, $command(own)))
        })),+]
    };
}

/// Reads a line with the tree of its command alone: building the tree of all commands takes longer
/// than many a command. `None` as for [`parse_one`], and for a command that the table does not have.
pub fn parse_alone<E, K>(table: &[CommandReader<E, K>], line: &[OsString]) -> Option<(E, K)> {
    let name = line.get(1)?;
    let (_, read) = table.iter().find(|(known, _)| name == known)?;
    read(line)
}

/// Reads the line of the one command `name` with a tree that has no other: building the whole tree
/// takes longer than many a command. `None` where the line is another's, at fault, or asks for
/// help: [`parse`] knows what to say then.
pub fn parse_one<G: Args, C: Args>(name: &'static str, line: &[OsString]) -> Option<(G, C)> {
    if line.get(1)? != name {
        return None;
    }
    let tree = G::augment_args(Command::new("program"))
        .subcommand_required(true)
        .subcommand(C::augment_args(Command::new(name)));
    let tree = lenient(tree);
    let line = spread(&tree, line);
    let mut matches = tree.try_get_matches_from(line).ok()?;
    let globals = G::from_arg_matches(&matches).ok()?;
    let (_, mut own) = matches.remove_subcommand()?;
    Some((globals, C::from_arg_matches_mut(&mut own).ok()?))
}

fn is_help(kind: ErrorKind) -> bool {
    let on_missing = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    kind == ErrorKind::DisplayHelp || kind == on_missing
}

/// Of an option given twice the last counts, and a switch takes `=true` and `=false`: as scripts
/// for the programs written in Go have it.
pub fn lenient(tree: Command) -> Command {
    switches(tree.args_override_self(true))
}

/// As [`lenient`] for the commands that a line names.
fn lenient_of(tree: Command, line: &[OsString]) -> Command {
    let named = |command: &Command| {
        let mut names = std::iter::once(command.get_name()).chain(command.get_all_aliases());
        names.any(|name| line.iter().any(|word| word == name))
    };
    own_switches(tree.args_override_self(true))
        .mut_subcommands(|command| if named(&command) { switches(command) } else { command })
}

fn switches(command: Command) -> Command {
    own_switches(command).mut_subcommands(switches)
}

fn own_switches(command: Command) -> Command {
    command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(truth),
        _ => arg,
    })
}

/// A truth value as Go reads it.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(short, long)]
        all: bool,
        #[arg(short, long, conflicts_with = "name")]
        quiet: bool,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        label: Vec<String>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    }

    impl Overview for Line {
        const GROUPS: &[crate::overview::Group] = &[];
        const EXAMPLES: &[&str] = &[];
    }

    fn line(text: &str) -> Result<Line, clap::Error> {
        let arguments: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        parse(&arguments)
    }

    #[test]
    fn every_switch_takes_a_truth_value_and_the_last_option_counts() {
        for (text, all, quiet) in [
            ("x", false, false),
            ("x -aq", true, true),
            ("x --all=true --quiet=false", true, false),
            ("x --all --all=0", false, false),
            ("x --all=false --quiet=T", false, true),
        ] {
            let line = line(text).unwrap();
            assert_eq!((line.all, line.quiet), (all, quiet), "{text}");
        }
        assert!(line("x --all=perhaps").is_err());
        let twice = line("x --name one --name=two --label a --label b").unwrap();
        assert_eq!((twice.name.as_deref(), twice.label.len()), (Some("two"), 2));
        let conflict = line("x --quiet --name one").unwrap_err().to_string();
        assert!(conflict.contains("'--quiet' cannot be used with"), "{conflict}");
        let rest = line("x --all program --all=false --name").unwrap();
        assert!(rest.all && rest.rest == ["program", "--all=false", "--name"]);
    }
}
