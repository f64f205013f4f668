//! What both programs do first and last.

use std::ffi::OsString;
use std::process::ExitCode;

use task::Kind;

use crate::report::Failure;

/// The program, which decides what exit codes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// As in buildah and podman: 125 for every failure except the exit code of a command.
    Rbuild,
    /// As in skopeo: 2 if the image, tag or blob does not exist, 1 for any other failure.
    Rcopy,
}

impl Program {
    /// The exit code of a failure.
    pub(crate) fn code(self, failure: &Failure) -> u8 {
        match (failure.code, failure.kind, self) {
            (Some(code), ..) => code,
            (None, Kind::Cancelled, _) => 130,
            (None, _, Program::Rbuild) => 125,
            (None, Kind::NotFound, Program::Rcopy) if !failure.lacks_file() => 2,
            (None, _, Program::Rcopy) => 1,
        }
    }

    fn usage_code(self) -> u8 {
        match self {
            Program::Rbuild => 125,
            Program::Rcopy => 1,
        }
    }
}

/// Becomes a container's first process if started as one, becomes root of a user namespace if not
/// root, parses, runs, and tells how it ended. No thread exists before the command runs.
///
/// `parse` gives wrong use as an error of clap's, and otherwise what the command answered.
pub(crate) fn enter(
    program: Program,
    parse: impl FnOnce(Vec<OsString>, bool) -> Result<Result<u8, Failure>, clap::Error>,
) -> ExitCode {
    containers::init();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let json = wants_json(&arguments);
    let rootless = !rustix::process::geteuid().is_root();
    if rootless
        && needs_root(&arguments)
        && let Err(error) = runtime::become_root(&runtime::Identity::default())
    {
        return fail(program, &Failure::from(error), json);
    }
    match parse(arguments, rootless || marked_rootless()) {
        Err(error) => {
            let _ = error.print();
            ExitCode::from(if error.exit_code() == 0 { 0 } else { program.usage_code() })
        }
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(failure)) => fail(program, &failure, json),
    }
}

fn fail(program: Program, failure: &Failure, json: bool) -> ExitCode {
    if json {
        failure.print_json();
    } else {
        failure.print();
    }
    ExitCode::from(program.code(failure))
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

/// Help and versions are printed by whoever asks.
fn needs_root(arguments: &[OsString]) -> bool {
    let words = ["--help", "-h", "--version", "-V", "version", "completion"];
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
    fn codes_are_those_of_buildah_and_of_skopeo() {
        let of = |failure: &Failure| (Program::Rbuild.code(failure), Program::Rcopy.code(failure));
        assert_eq!(of(&Failure::new(Kind::NotFound, "x")), (125, 2));
        assert_eq!(of(&Failure::new(Kind::Denied, "x")), (125, 1));
        assert_eq!(of(&Failure::usage("x")), (125, 1));
        let missing = std::io::Error::from_raw_os_error(2);
        assert_eq!(of(&Failure::io("reading x", &missing)), (125, 1));
        assert_eq!(of(&Failure::new(Kind::Cancelled, "x")), (130, 130));
        assert_eq!(of(&Failure { code: Some(7), ..Failure::new(Kind::System, "x") }), (7, 7));
    }

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
