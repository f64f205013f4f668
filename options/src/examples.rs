//! Examples of the commands: for `-h`, the manual pages and the documentation site.
//!
//! The texts list commands, each with lines below it: arguments, two blanks, `#` and what they do.

use clap::Command;
use clap::builder::StyledStr;

const RBUILD: &str = include_str!("examples/rbuild.txt");
const RCOPY: &str = include_str!("examples/rcopy.txt");
/// Commands that both programs have.
const BOTH: &str = include_str!("examples/both.txt");
/// The columns that examples take at most.
const WIDTH: usize = 98;

/// A line that is worth copying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The line, from the program's name on.
    pub line: String,
    /// What it does.
    pub what: &'static str,
}

/// The examples of a command, such as `rbuild volume ls`; none if it is unknown.
pub fn of(command: &str) -> Vec<Example> {
    let Some((program, path)) = command.split_once(' ') else { return Vec::new() };
    let own = if program == "rcopy" { RCOPY } else { RBUILD };
    let mut found = lines(own, path);
    if found.is_empty() {
        found = lines(BOTH, path);
    }
    let example = |line: &'static str| {
        let (arguments, what) = line.split_once("# ").unwrap_or((line, ""));
        let line = format!("{command} {}", arguments.trim());
        Example { line: line.trim_end().to_owned(), what }
    };
    found.into_iter().map(example).collect()
}

/// The lines below the heading that names `path`.
fn lines(text: &'static str, path: &str) -> Vec<&'static str> {
    let mut lines = text
        .lines()
        .skip_while(|line| line.starts_with(' ') || !line.split(", ").any(|named| named == path));
    lines.next();
    lines.take_while(|line| line.starts_with(' ')).collect()
}

/// The commands that the examples of a program name, for a check against its tree.
pub fn named(program: &str) -> Vec<&'static str> {
    let own = if program == "rcopy" { RCOPY } else { RBUILD };
    let headings = own.lines().filter(|line| !line.starts_with(' '));
    headings.flat_map(|line| line.split(", ")).collect()
}

/// The command `path` with its examples and those of the commands below it.
pub fn added(command: Command, path: &str) -> Command {
    let header = *command.get_styles().get_header();
    let examples = of(path);
    let command = match examples.is_empty() {
        true => command,
        false => {
            let text = format!("{header}Examples:{header:#}\n{}", listed(&examples));
            command.after_help(StyledStr::from(text))
        }
    };
    command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        added(below, &path)
    })
}

/// Examples with what they do beside them, or above them where a line would be too wide.
pub fn listed(examples: &[Example]) -> String {
    let columns = |text: &str| text.chars().count();
    let longest = examples.iter().map(|one| columns(&one.line)).max().unwrap_or(0);
    let beside = examples.iter().all(|one| longest + 4 + columns(one.what) <= WIDTH);
    let show = |Example { line, what }: &Example| match beside {
        true => format!("  {line:longest$}  # {what}"),
        false => format!("  # {what}\n  {line}"),
    };
    examples.iter().map(show).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_a_group_has_the_examples_of_the_command_it_stands_for() {
        let (list, group) = (of("rbuild ps"), of("rbuild container ls"));
        assert_eq!(list[0].line, "rbuild ps");
        assert_eq!(group[0], Example { line: "rbuild container ls".to_owned(), ..list[0].clone() });
        assert_eq!(of("rcopy login")[0].line, "rcopy login registry.example");
        assert_eq!((of("rbuild nothing"), of("rbuild")), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_an_example_does_stands_above_it_where_the_line_would_be_too_wide() {
        let example = |line: &str| Example { line: line.to_owned(), what: "what it does" };
        assert_eq!(listed(&[example("a b")]), "  a b  # what it does");
        let long = "x".repeat(90);
        assert_eq!(listed(&[example(&long)]), format!("  # what it does\n  {long}"));
    }

    #[test]
    fn every_line_of_the_texts_says_what_it_does() {
        for line in [RBUILD, RCOPY, BOTH].iter().flat_map(|text| text.lines()) {
            let what = line.split_once("# ").map_or("", |(_, what)| what);
            assert!(!line.starts_with(' ') || !what.is_empty(), "{line:?}");
        }
    }
}
