//! Short flags with their values in one word, `-p8080:80`, for commands whose last arguments are
//! another program's: clap takes such a word for the first of those.

use std::ffi::OsString;

use clap::{Arg, Command};

/// The line with `--publish=8080:80` in place of `-p8080:80`, before the first word that is no flag
/// of the command.
pub(crate) fn spread(tree: &Command, line: &[OsString]) -> Vec<OsString> {
    let mut out: Vec<OsString> = line.iter().take(1).cloned().collect();
    let mut above = vec![tree];
    let mut words = line.iter().skip(1);
    while let Some(word) = words.next() {
        let command = above[above.len() - 1];
        match word.to_str() {
            Some(text) if text.starts_with("--") && text.len() > 2 => {
                let name = text.trim_start_matches('-');
                let takes = find(&above, |arg| is_long(arg, name)).is_some_and(takes_next);
                out.push(word.clone());
                out.extend(words.by_ref().take(usize::from(takes)).cloned());
            }
            Some(text) if text.starts_with('-') && text.len() > 1 && text != "--" => {
                let (spread, takes) = cluster(&above, text);
                out.extend(spread);
                out.extend(words.by_ref().take(usize::from(takes)).cloned());
            }
            Some(text)
                if text != "--"
                    && let Some(below) = command.find_subcommand(text) =>
            {
                out.push(word.clone());
                above.push(below);
            }
            _ => {
                out.push(word.clone());
                break;
            }
        }
    }
    out.extend(words.cloned());
    let trails = |arg: &Arg| arg.is_positional() && arg.is_trailing_var_arg_set();
    match above[above.len() - 1].get_arguments().any(trails) {
        true => out,
        false => line.to_vec(),
    }
}

/// The words of a cluster of short flags, and whether its last flag takes the next word.
fn cluster(above: &[&Command], text: &str) -> (Vec<OsString>, bool) {
    let mut before = String::from("-");
    let whole = || vec![OsString::from(text)];
    for (at, letter) in text.char_indices().skip(1) {
        let rest = &text[at + letter.len_utf8()..];
        let is = |arg: &Arg| {
            arg.get_short_and_visible_aliases().is_some_and(|all| all.contains(&letter))
        };
        let Some(arg) = find(above, is) else { return (whole(), false) };
        let has_value = rest.starts_with('=') || takes_next(arg) && !rest.is_empty();
        match (has_value, arg.get_long()) {
            (true, Some(long)) => {
                let value = rest.strip_prefix('=').unwrap_or(rest);
                let switches = (before.len() > 1).then(|| OsString::from(&before));
                let flag = OsString::from(format!("--{long}={value}"));
                return (switches.into_iter().chain([flag]).collect(), false);
            }
            (true, None) => return (whole(), false),
            (false, _) if takes_next(arg) => return (whole(), true),
            (false, _) => before.push(letter),
        }
    }
    (whole(), false)
}

fn find<'a>(above: &[&'a Command], is: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
    above.iter().rev().find_map(|command| command.get_arguments().find(|arg| is(arg)))
}

fn is_long(arg: &Arg, name: &str) -> bool {
    let aliases = arg.get_all_aliases().unwrap_or_default();
    arg.get_long() == Some(name) || aliases.contains(&name)
}

/// Whether the flag's value may be the next word.
fn takes_next(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;
    use clap::Parser;
    use std::ffi::OsStr;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long, global = true)]
        root: Option<String>,
        #[command(subcommand)]
        command: Verb,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Verb {
        Run(Run),
        Plain(Plain),
    }

    #[derive(Debug, clap::Args)]
    struct Run {
        #[arg(short, long)]
        detach: bool,
        #[arg(short = 'i', long)]
        interactive: bool,
        #[arg(short, long)]
        publish: Vec<String>,
        #[arg(long, alias = "title")]
        name: Option<String>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    }

    #[derive(Debug, clap::Args)]
    struct Plain {
        #[arg(short, long)]
        publish: Vec<String>,
    }

    fn spread_text(text: &str) -> String {
        use clap::CommandFactory;
        let line: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        let words = spread(&tree::lenient(Line::command()), &line);
        let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn values_in_the_word_of_a_short_flag_are_found() {
        for (text, expected) in [
            ("x run -p80:80 image", "x run --publish=80:80 image"),
            ("x run -dip80 image", "x run -di --publish=80 image"),
            ("x run -d=false -p=1 image", "x run --detach=false --publish=1 image"),
            ("x run -p -p80 image -p90", "x run -p -p80 image -p90"),
            ("x run -dp 80 -p81 image", "x run -dp 80 --publish=81 image"),
            ("x run --name -p80 image", "x run --name -p80 image"),
            ("x run --title a -p80 image", "x run --title a --publish=80 image"),
            ("x --root /s run -p80 image", "x --root /s run --publish=80 image"),
            ("x run --root /s -p80 image", "x run --root /s --publish=80 image"),
            ("x run --detach -z80 image", "x run --detach -z80 image"),
            ("x run -- -p80 image", "x run -- -p80 image"),
            ("x run image -p80", "x run image -p80"),
            ("x plain -p80", "x plain -p80"),
        ] {
            assert_eq!(spread_text(text), expected, "{text}");
        }
    }
}
