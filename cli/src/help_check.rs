#![allow(clippy::unwrap_used, reason = "a test")]

use options::help::{Overview, shown};

/// Whether the help is complete and short: for the tests of both programs.
pub(crate) fn check<P: Overview>() {
    let mut tree = shown::<P>();
    let overview = tree.render_help().to_string();
    for (group, commands) in P::GROUPS {
        assert!(overview.contains(&format!("{group}:\n")), "{group} in {overview}");
        for name in *commands {
            assert!(tree.find_subcommand(name).is_some(), "{name} is a command");
            assert!(overview.contains(&format!("\n  {name} ")), "{name} in {overview}");
        }
    }
    assert!(overview.contains("Examples:"), "{overview}");
    assert!(!overview.contains("Other:\n"), "each command has a group: {overview}");
    let too_wide = overview.lines().find(|line| line.chars().count() > 100);
    assert_eq!(too_wide, None, "what is wider than 100 columns wraps in the middle of the table");
    let mut left: Vec<clap::Command> = tree.get_subcommands().cloned().collect();
    while let Some(mut command) = left.pop() {
        let (name, text) = (command.get_name().to_owned(), command.render_help().to_string());
        assert!(text.lines().count() <= 100, "{name} -h: {} lines", text.lines().count());
        assert!(!text.contains("--signature-policy"), "{name} -h has options of all commands");
        let usage = text.find("Usage:").unwrap();
        let examples = text.find("Examples:").unwrap_or(usage);
        let options = text.find("Options:").unwrap_or(usize::MAX);
        assert!(usage <= examples && examples < options, "{name}: {text}");
        left.extend(command.get_subcommands().cloned());
    }
}
