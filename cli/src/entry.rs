//! What both programs do first and last.

use std::ffi::OsString;
use std::process::ExitCode;

use app::{hints, log, report};
use clap::error::{ContextKind, ContextValue};
use options::{Dialect, Failure, refused};

use crate::{rbuild, rcopy};

/// Becomes a container's first process if started as one, becomes root of a user namespace if not
/// root, parses, runs, and tells how it ended. No thread exists before the command runs.
///
/// The name under which the program was started says which of the two it is; `own` under a name
/// that is none of theirs.
pub(crate) fn enter(own: Dialect) -> ExitCode {
    if runtime::is_stage()
        && let Ok(level) = std::env::var("STAGE_LOG")
    {
        log(&format!("warn,runtime={level},containers={level},network={level}"));
    }
    containers::init();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let dialect = Dialect::of(own, arguments.first().map(OsString::as_os_str));
    dialect.speak();
    let json = wants_json(&arguments);
    let rootless = !rustix::process::geteuid().is_root();
    if rootless
        && needs_root(&arguments)
        && let Err(error) = runtime::become_root(&runtime::Identity::default())
    {
        return fail(dialect, Failure::from(error), json);
    }
    let program = if dialect.copies() { rcopy::run } else { rbuild::run };
    match program(&arguments, rootless || marked_rootless()) {
        Err(error) => {
            if let Some((name, why)) = foreign_command(&error) {
                let what = format!("command {name} is not supported");
                return fail(dialect, Failure::usage(what).hint(why), json);
            }
            let _ = error.print();
            ExitCode::from(if error.exit_code() == 0 { 0 } else { dialect.usage_code() })
        }
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(failure)) => fail(dialect, failure, json),
    }
}

/// A command of another tool that there is not, and why.
fn foreign_command(error: &clap::Error) -> Option<(&str, &'static str)> {
    match error.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(name) => refused::command(name).map(|why| (name.as_str(), why)),
        _ => None,
    }
}

fn fail(dialect: Dialect, failure: Failure, json: bool) -> ExitCode {
    let code = dialect.code(&failure);
    let failure = dialect.hinted(hints::hinted(failure));
    if json {
        report::print_json(failure);
    } else {
        report::print(failure);
    }
    ExitCode::from(code)
}

/// Whether failures, too, are lines of JSON: as `--progress` says, else `$RBUILD_PROGRESS`.
fn wants_json(arguments: &[OsString]) -> bool {
    let mut given = arguments.iter().enumerate().filter_map(|(at, argument)| {
        match argument.to_str()?.strip_prefix("--progress")? {
            "" => arguments.get(at + 1)?.to_str(),
            value => value.strip_prefix('='),
        }
    });
    match given.next_back() {
        Some(value) => value == "rawjson",
        None => std::env::var_os("RBUILD_PROGRESS").is_some_and(|value| value == "rawjson"),
    }
}

/// The caller prints help and versions.
fn needs_root(arguments: &[OsString]) -> bool {
    let words = ["--help", "-h", "help", "--version", "-V", "version", "completion"];
    let first = arguments.get(1);
    first.is_some_and(|first| !words.iter().any(|word| first == word))
        && !arguments.iter().any(|argument| argument == "--help")
}

/// After becoming root we are started again as root of a user namespace that maps a user's ids.
fn marked_rootless() -> bool {
    runtime::in_user_namespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_json_as_the_last_progress_says() {
        for (line, json) in [
            ("rbuild bud --progress=rawjson .", true),
            ("rbuild bud --progress rawjson .", true),
            ("rbuild bud --progress=rawjson --progress plain .", false),
            ("rbuild bud --progress", false),
            ("rbuild bud .", false),
        ] {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(wants_json(&arguments), json, "{line}");
        }
    }
}
