//! Every flag that is accepted changes something that can be seen. A table for each command has a
//! row for each flag: a line without and with the flag, and what is looked at afterwards; the two
//! must differ. `everyday/lines.rs` makes the scene.
//!
//! ```text
//! FLAG AND VALUE :: LINE WITH {} FOR IT :: LOOK     what LINE and LOOK print differs
//! FLAG ? FILE                                      the test FILE proves it and gives it on a line
//! FLAG = REASON                                    it asks for what holds anyway
//! $ LINE                                           run before
//! ```
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use e2e::{repository, root};

use self::lines::Lines;

#[path = "everyday/lines.rs"]
#[allow(dead_code, reason = "the everyday lines use the rest")]
mod lines;

/// The long flags that the help of a command shows.
fn flags(help: &str) -> BTreeSet<String> {
    let rows = help.lines().map(str::trim_start).filter(|row| row.starts_with('-'));
    let long = rows.filter_map(|row| {
        let at = if row.starts_with("--") { 0 } else { row.find(", --")? + 2 };
        let end = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
        row[at..].split(end).next().map(str::to_owned)
    });
    long.filter(|flag| flag != "--help").collect()
}

/// Whether a test gives a flag on a command line: as a word of a string, not in a comment, and not as
/// the beginning of another flag.
fn is_given(flag: &str, test: &str) -> bool {
    let lines = test.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.match_indices(flag).map(move |(at, _)| (line, at))).any(
        |(line, at)| {
            let before = line[..at].chars().next_back();
            let after = line[at + flag.len()..].chars().next();
            before.is_none_or(|c| "\" {".contains(c)) && after.is_none_or(|c| "\" =\\{".contains(c))
        },
    )
}

fn name(cell: &str) -> String {
    cell.split([' ', '=']).next().unwrap_or_default().to_owned()
}

#[track_caller]
fn check(command: &str, table: &str) {
    if !root() {
        return;
    }
    let table = repository().join("tests/tests/flag_matrix").join(table);
    let table = std::fs::read_to_string(table).unwrap();
    let lines = Lines::new();
    let help = lines.line(&format!("{command} --help")).ok().stdout;
    let mut left = flags(&help);
    assert!(left.len() > 5, "{help}");
    let mut wrong = Vec::new();
    for (number, row) in table.lines().enumerate() {
        if row.is_empty() || row.starts_with('#') {
            continue;
        }
        if let Some(line) = row.strip_prefix("$ ") {
            lines.line(line).ok();
        } else if let Some((flag, rest)) = row.split_once(" :: ") {
            left.remove(&name(flag));
            let (line, look) = rest.split_once(" :: ").unwrap_or((rest, "true"));
            let run = |given: &str, side: &str| {
                let out = format!("out-{number}-{side}");
                let line = line.replace("{}", given);
                let script = format!(
                    "export OUT=$PWD/{out}; mkdir $OUT; ({line}) 2>$OUT.err; echo \"code $?\"; {look}"
                );
                let ran = lines.line(&script);
                (ran.stdout.replace(&out, "OUT"), ran.told())
            };
            let ((without, _), (with, told)) = (run("", "a"), run(flag, "b"));
            if without == with {
                wrong.push(format!("{flag} changes nothing:\n{told}"));
            }
        } else if let Some((flag, file)) = row.split_once(" ? ") {
            left.remove(flag);
            let text = std::fs::read_to_string(repository().join("tests/tests").join(file));
            if !is_given(flag, &text.unwrap_or_default()) {
                wrong.push(format!("{flag} is on no command line of {file}"));
            }
        } else if let Some((flag, _)) = row.split_once(" = ") {
            left.remove(flag);
        } else {
            wrong.push(format!("the row {row:?} is malformed"));
        }
    }
    wrong.extend(left.into_iter().map(|flag| format!("{flag} has no row")));
    assert!(wrong.is_empty(), "{} of {command}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_flag_of_push_has_an_effect() {
    check("rbuild push", "push");
}

#[test]
fn every_flag_of_pull_has_an_effect() {
    check("rbuild pull", "pull");
}

#[test]
fn every_flag_of_commit_has_an_effect() {
    check("rbuild commit", "commit");
}

#[test]
fn every_flag_of_copy_has_an_effect() {
    check("rbuild copy", "copy");
}

#[test]
fn every_flag_of_bud_has_an_effect() {
    check("rbuild bud", "bud");
}

#[test]
fn every_flag_of_rcopy_copy_has_an_effect() {
    check("rcopy copy", "rcopy-copy");
}

#[test]
fn every_flag_of_run_has_an_effect() {
    check("rbuild run", "run");
}

#[test]
fn every_flag_of_sync_has_an_effect() {
    check("rcopy sync", "rcopy-sync");
}

#[test]
fn every_flag_of_from_has_an_effect() {
    check("rbuild from", "from");
}

#[test]
fn a_flag_is_found_in_help() {
    let help = "Usage: x\n\nOptions:\n  -a, --all\n          Everything\n      --format <F>\n  -h, --help\n";
    let all: Vec<String> = flags(help).into_iter().collect();
    assert_eq!(all, ["--all", "--format"]);
    assert_eq!(name("--creds a:b"), "--creds");
    for test in ["[\"--all\"]", "\"copy --all=x\"", "    --all \\"] {
        assert!(is_given("--all", test), "{test}");
    }
    for test in ["// copy --all", "\"--all-tags\"", "\"x--all\""] {
        assert!(!is_given("--all", test), "{test}");
    }
    assert_eq!(name("--tls-verify=false"), "--tls-verify");
}
