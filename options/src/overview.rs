//! What a program shows first: its commands in groups, the common ones with a line each.

use clap::builder::StyledStr;
use clap::{Command, CommandFactory};

/// A group of commands: its title, the commands that most people need, and the others.
pub type Group = (&'static str, &'static [&'static str], &'static [&'static str]);

/// What a program shows first.
pub trait Overview: CommandFactory {
    /// Groups of commands. Each command is in one.
    const GROUPS: &[Group];
    /// A few lines that are worth copying.
    const EXAMPLES: &[&str];
}

/// How much of the commands is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A line for each common command, and the names of the others.
    Common,
    /// A line for each command.
    All,
}

/// The columns that lists of commands take at most.
const WIDTH: usize = 100;
/// The columns of names; longer ones push their line to the right.
const WIDEST: usize = 18;

/// The commands of a program and its examples.
pub(crate) fn overview<P: Overview>(tree: &Command, extent: Extent) -> StyledStr {
    let mut page = Page::new(tree, extent, P::GROUPS);
    for (title, common, others) in P::GROUPS {
        page.group(title, common, others);
    }
    let listed = |name: &str| {
        P::GROUPS.iter().any(|(_, common, others)| common.contains(&name) || others.contains(&name))
    };
    let left = tree.get_subcommands().filter(|one| !one.is_hide_set());
    let left: Vec<&str> = left.map(Command::get_name).filter(|name| !listed(name)).collect();
    if !left.is_empty() {
        page.group("Other", &left, &[]);
    }
    if extent == Extent::Common {
        page.heading("Examples");
        for example in P::EXAMPLES {
            page.text += &format!("  {example}\n");
        }
    }
    StyledStr::from(page.text.trim_end().to_owned())
}

struct Page<'a> {
    tree: &'a Command,
    extent: Extent,
    /// The columns of the longest name.
    width: usize,
    text: String,
}

impl<'a> Page<'a> {
    fn new(tree: &'a Command, extent: Extent, groups: &[Group]) -> Self {
        let mut page = Self { tree, extent, width: 0, text: String::new() };
        let names = groups.iter().flat_map(|(_, common, others)| page.shown(common, others).0);
        let widths = names.filter_map(|name| page.names(name)).map(|names| names.len());
        page.width = widths.max().unwrap_or(0).min(WIDEST);
        page
    }

    /// The commands that get a line, and those of which the names are enough.
    fn shown(&self, common: &[&'a str], others: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
        match self.extent {
            Extent::Common => (common.to_vec(), others.to_vec()),
            Extent::All => ([common, others].concat(), Vec::new()),
        }
    }

    fn command(&self, name: &str) -> Option<&'a Command> {
        self.tree.get_subcommands().find(|command| command.get_name() == name)
    }

    /// The name of a command and its other names; nothing for one that was left out of the program.
    fn names(&self, name: &str) -> Option<String> {
        let command = self.command(name)?;
        let names = std::iter::once(command.get_name()).chain(command.get_visible_aliases());
        Some(names.collect::<Vec<_>>().join(", "))
    }

    /// The names of further commands, without their other names.
    fn others(&self, names: &[&str]) -> String {
        let known = names.iter().filter_map(|name| self.command(name));
        known.map(Command::get_name).collect::<Vec<_>>().join(", ")
    }

    fn heading(&mut self, title: &str) {
        let header = *self.tree.get_styles().get_header();
        self.text += &format!("{header}{title}:{header:#}\n");
    }

    fn group(&mut self, title: &str, common: &[&'a str], others: &[&'a str]) {
        let literal = *self.tree.get_styles().get_literal();
        let (lines, names) = self.shown(common, others);
        self.heading(title);
        let width = self.width;
        for name in lines {
            let Some((command, names)) = self.command(name).zip(self.names(name)) else { continue };
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let about = hanging(&about, width.max(names.len()) + 4);
            self.text += &format!("  {literal}{names:width$}{literal:#}  {about}\n");
        }
        if !names.is_empty() {
            let lead = if common.is_empty() { "  " } else { "  more: " };
            let names = hanging(&self.others(&names), lead.len());
            self.text += &format!("{lead}{names}\n");
        }
        self.text.push('\n');
    }
}

/// Text that begins at a column and continues there in further lines.
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
