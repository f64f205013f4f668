//! Commands of ours on a terminal of their own.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::{Bench, Ran, binary, ran};

/// Runs a command of ours on a terminal, into which this is typed; what is shown is its standard
/// output.
#[track_caller]
pub fn on_terminal(bench: &Bench, program: &str, arguments: &[&str], typed: &str) -> Ran {
    let mut script = Command::new("script");
    let quoted = arguments.iter().map(|argument| format!("'{argument}'")).collect::<Vec<_>>();
    let line = format!("{} {}", binary(program).display(), quoted.join(" "));
    script.current_dir(bench.path()).args(["-qec", &line, "/dev/null"]);
    for (name, value) in bench.command(program).get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = script.spawn().expect("script");
    let mut input = child.stdin.take().expect("a pipe");
    // A command that asks nothing may have ended.
    let _ = input.write_all(typed.as_bytes());
    drop(input);
    ran(line, &child.wait_with_output().expect("script"))
}
