//! What the help of a program must be: for the tests of the programs, whose trees are here only as
//! types.
#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests")]

use std::ffi::OsString;

use clap::Command;

use crate::examples;
use crate::help::{asked, shown};
use crate::overview::Overview;

/// The lines and columns of two screens.
const SCREENS: (usize, usize) = (100, 100);
/// The lines of the first page: two screens of a small terminal.
const FIRST: usize = 72;

/// Checks that the help of each command is complete and short.
///
/// # Panics
/// It is not.
pub fn check<P: Overview>() {
    let mut tree = shown::<P>();
    check_overview::<P>(&mut tree);
    let hidden = hidden::<P>();
    each(&mut tree, &mut |name, command| {
        let text = command.render_help().to_string();
        fits(name, &text);
        let globals = ["--signature-policy", "--registries-conf", "--log <"];
        let global = globals.iter().find(|global| text.contains(**global));
        assert_eq!(global, None, "{name} -h has options of all commands: {text}");
        let (usage, first) = (text.find("Usage:").unwrap(), text.find("\nArguments:\n"));
        let first = first.or(text.find("\nOptions:\n")).or(text.find("\nCommands:\n"));
        let bare = command.has_subcommands() || hidden.iter().any(|hidden| hidden == name);
        match bare || name.ends_with(" runtime") {
            true => assert!(usage < first.unwrap(), "{name}: {text}"),
            false => {
                let examples = text.find("Examples:\n").unwrap_or_else(|| panic!("{name}: {text}"));
                assert!(usage < examples && examples < first.unwrap(), "{name}: {text}");
            }
        }
        // A heading of flattened options would cover these if they came after it.
        for flag in ["--quiet", "--progress", "--dry-run"] {
            let own = |arg: &&clap::Arg| arg.get_long() == Some(&flag[2..]);
            let heading = command.get_arguments().find(own).and_then(|arg| arg.get_help_heading());
            assert_eq!(heading, None, "{name} {flag}");
        }
        let cache = text.find("\nCache:\n");
        for flag in ["--cache-from", "--cache-to", "--disk-limit"] {
            let at = text.find(&format!("      {flag}"));
            assert!(at.is_none() || cache < at && cache.is_some(), "{name}: {flag} in {text}");
        }
    });
}

/// Checks that the first page is short and shows the common commands, and that `help all` shows all.
fn check_overview<P: Overview>(tree: &mut Command) {
    let first = tree.render_help().to_string();
    assert!(first.lines().count() <= FIRST, "{} lines: {first}", first.lines().count());
    assert!(first.contains("Examples:"), "{first}");
    let name = tree.get_name().to_owned();
    let asked = |words: &[&str]| {
        let line = [&[name.as_str()], words].concat();
        let line: Vec<OsString> = line.into_iter().map(OsString::from).collect();
        asked::<P>(&line).unwrap().to_string()
    };
    let (with_options, all) = (asked(&["--help"]), asked(&["help", "all"]));
    fits("--help", &with_options);
    assert!(with_options.contains("--registries-conf"), "{with_options}");
    let wide = first.lines().chain(all.lines()).find(|line| line.chars().count() > SCREENS.1);
    assert_eq!(wide, None, "what is wider than 100 columns wraps in the middle of the table");
    assert!(!all.contains("Other:\n"), "each command has a group: {all}");
    for (group, common, others) in P::GROUPS {
        for (text, names) in [(&first, *common), (&all, *common), (&all, *others)] {
            assert!(text.contains(&format!("{group}:\n")), "{group} in {text}");
            for name in names {
                assert!(tree.find_subcommand(name).is_some(), "{name} is a command");
                let ends = [' ', ','].map(|end| format!("\n  {name}{end}"));
                assert!(ends.iter().any(|end| text.contains(end)), "{name} in {text}");
            }
        }
        assert!(others.iter().all(|name| first.contains(name)), "{group} in {first}");
    }
}

/// Checks that each example is a line that the tree, or else `other`, reads, of a command that there
/// is.
///
/// # Panics
/// One is not.
pub fn check_examples<P: Overview>(mut other: impl FnMut(&[OsString]) -> bool) {
    let mut commands = Vec::new();
    let mut tree = shown::<P>();
    each(&mut tree, &mut |name, _| {
        commands.push(name.to_owned());
        for example in examples::of(name) {
            assert!(example.line.len() + 2 <= SCREENS.1 - 2, "wraps: {}", example.line);
            let line = words(&example.line);
            let read = P::command().try_get_matches_from(&line);
            assert!(read.is_ok(), "{}: {}", example.line, read.unwrap_err());
        }
    });
    let program = tree.get_name();
    for path in examples::named(program) {
        let name = format!("{program} {path}");
        let lines: Vec<_> = examples::of(&name).iter().map(|one| words(&one.line)).collect();
        assert!(commands.contains(&name) || lines.iter().all(|line| other(line)), "{name}");
    }
}

fn fits(name: &str, text: &str) {
    let lines = text.lines().count();
    assert!(lines <= SCREENS.0, "{name} -h: {lines} lines: {text}");
    let wide = text.lines().find(|line| line.chars().count() > SCREENS.1);
    assert_eq!(wide, None, "{name} -h is wider than a screen");
}

/// The commands that no list shows.
fn hidden<P: Overview>() -> Vec<String> {
    let (mut tree, mut hidden) = (P::command(), Vec::new());
    tree.build();
    each(&mut tree, &mut |name, command| {
        if command.is_hide_set() {
            hidden.push(name.to_owned());
        }
    });
    hidden
}

/// Looks at every command below one.
fn each(command: &mut Command, look: &mut dyn FnMut(&str, &mut Command)) {
    for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
        let name = below.get_bin_name().unwrap().to_owned();
        look(&name, below);
        each(below, look);
    }
}

/// The words of a line up to a pipe or a redirection, as a shell splits them.
fn words(line: &str) -> Vec<OsString> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars().chain([' ']) {
        match (quote, letter) {
            (Some(mark), letter) if letter == mark => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, ' ') if matches!(word.as_str(), "|" | ">") => return words,
            (None, ' ') => words.push(std::mem::take(&mut word).into()),
            (_, letter) => word.push(letter),
        }
    }
    words
}
