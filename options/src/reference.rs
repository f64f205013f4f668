//! The reference pages of the documentation site: the command tree as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command};

use crate::Failure;
use crate::help;
use crate::overview::Overview;

/// Writes the manual pages, or the Markdown pages.
///
/// # Errors
/// The directory cannot be written to.
pub fn pages<P: Overview>(directory: &Path, markdown: bool) -> Result<(), Failure> {
    match markdown {
        true => write::<P>(directory),
        false => help::manual::<P>(directory),
    }
}

/// Writes `PROGRAM.md` with an overview, and `PROGRAM/COMMAND.md` for each command.
fn write<P: Overview>(directory: &Path) -> Result<(), Failure> {
    let mut tree = P::command();
    tree.build();
    let name = tree.get_name().to_owned();
    let pages = directory.join(&name);
    let failed =
        |error: std::io::Error| Failure::io(format!("writing {}", pages.display()), &error);
    std::fs::create_dir_all(&pages).map_err(failed)?;
    let page = directory.join(format!("{name}.md"));
    std::fs::write(page, overview::<P>(&tree)).map_err(failed)?;
    for command in tree.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        let mut text = String::new();
        section(&mut text, command, 1);
        let page = pages.join(format!("{}.md", command.get_name()));
        std::fs::write(page, text).map_err(failed)?;
    }
    Ok(())
}

fn overview<P: Overview>(tree: &Command) -> String {
    let name = tree.get_name();
    let mut text = format!("# {name}\n\n{}.\n", about(tree));
    let mut left: Vec<&Command> = tree.get_subcommands().filter(|one| !one.is_hide_set()).collect();
    let mut group = |title: &str, commands: &[&Command]| {
        let _ = write!(text, "\n## {title}\n\n| command | what it does |\n|---|---|\n");
        for command in commands {
            let word = command.get_name();
            let _ = writeln!(text, "| [`{word}`]({name}/{word}.md) | {} |", cell(&about(command)));
        }
    };
    for (title, common, others) in P::GROUPS {
        let of = |name: &&str| left.iter().find(|command| command.get_name() == *name).copied();
        let names = common.iter().chain(*others);
        group(title, &names.filter_map(of).collect::<Vec<_>>());
        left.retain(|one| !common.contains(&one.get_name()) && !others.contains(&one.get_name()));
    }
    if !left.is_empty() {
        group("Other", &left);
    }
    let _ = write!(text, "\n## Examples\n\n```console\n");
    for example in P::EXAMPLES {
        let _ = writeln!(text, "$ {example}");
    }
    text += "```\n\n## Global options\n";
    options(&mut text, tree.get_arguments().filter(|arg| !is_help(arg)), None);
    text
}

/// One command and, one level below, its subcommands.
fn section(text: &mut String, command: &mut Command, level: usize) {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let title = command.get_bin_name().unwrap_or(command.get_name());
    let _ = write!(text, "{} {title}\n\n{}.\n", "#".repeat(level), about(command));
    if let Some(long) = command.get_long_about().map(ToString::to_string) {
        let rest = long.strip_prefix(&about(command)).unwrap_or(&long).trim();
        if !rest.is_empty() {
            let _ = write!(text, "\n{}\n", prose(rest));
        }
    }
    let aliases: Vec<String> =
        command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        let _ = write!(text, "\nAlso: {}.\n", aliases.join(", "));
    }
    let _ = write!(text, "\n```console\n{usage}\n```\n");
    let examples = crate::examples::of(title);
    if !examples.is_empty() {
        let _ = write!(text, "\n**Examples**\n\n```console\n");
        for crate::examples::Example { line, what } in examples {
            let _ = write!(text, "# {what}\n$ {line}\n");
        }
        text.push_str("```\n");
    }
    let own: Vec<&Arg> =
        command.get_arguments().filter(|arg| !arg.is_global_set() && !is_help(arg)).collect();
    options(text, own.iter().copied().filter(|arg| arg.is_positional()), Some("Arguments"));
    let flags: Vec<&Arg> = own.into_iter().filter(|arg| !arg.is_positional()).collect();
    let mut headings: Vec<Option<&str>> = flags.iter().map(|arg| arg.get_help_heading()).collect();
    headings.dedup();
    let mut seen: Vec<Option<&str>> = Vec::new();
    for heading in headings {
        if !seen.contains(&heading) {
            seen.push(heading);
            let of = flags.iter().copied().filter(|arg| arg.get_help_heading() == heading);
            options(text, of, Some(heading.unwrap_or("Options")));
        }
    }
    for below in command.get_subcommands_mut().filter(|below| !below.is_hide_set()) {
        text.push('\n');
        section(text, below, level + 1);
    }
}

/// A table of arguments; nothing if there are none.
fn options<'a>(text: &mut String, args: impl Iterator<Item = &'a Arg>, title: Option<&str>) {
    let shown: Vec<&Arg> = args.filter(|arg| !arg.is_hide_set()).collect();
    if shown.is_empty() {
        return;
    }
    if let Some(title) = title {
        let _ = write!(text, "\n**{title}**\n");
    }
    let kind = if shown.iter().all(|arg| arg.is_positional()) { "argument" } else { "option" };
    let _ = write!(text, "\n| {kind} | meaning |\n|---|---|\n");
    for arg in shown {
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
        let help = cell(&help.unwrap_or_default());
        let _ = writeln!(text, "| {} | {help}{} |", spelling(arg), values(arg));
    }
}

/// How an argument is written: `-f`, `--file FILE`.
fn spelling(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let value = names.iter().map(clap::builder::Str::as_str).collect::<Vec<_>>().join(" ");
    if arg.is_positional() {
        return format!("`{}`", value.replace('|', "\\|"));
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let aliases = arg.get_visible_aliases().unwrap_or_default();
    let aliases = aliases.into_iter().map(|alias| format!("--{alias}"));
    let mut words: Vec<String> = short.into_iter().chain(long).chain(aliases).collect();
    if let Some(last) = words.last_mut().filter(|_| takes && !value.is_empty()) {
        *last = format!("{last} {}", value.replace('|', "\\|"));
    }
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The values an argument takes, if they are a few words.
fn values(arg: &Arg) -> String {
    let possible = arg.get_possible_values();
    let shown: Vec<String> = possible
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if shown.is_empty() || !arg.get_action().takes_values() {
        return String::new();
    }
    format!(" ({})", shown.join(", "))
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn is_help(arg: &Arg) -> bool {
    ["help", "version"].contains(&arg.get_id().as_str())
}

/// Text that is not read as HTML.
fn prose(text: &str) -> String {
    text.replace('<', "&lt;")
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    prose(text).replace('|', "\\|").replace("\n\n", "<br>").replace('\n', " ")
}
