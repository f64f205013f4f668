//! Real containers, end to end: this program is its own harness, because the first line of `main`
//! must be [`runtime::init`].

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // all of it is tests

mod basics;
mod borders;
mod detached;
mod limits;
mod rootless;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A named test.
type Case = (&'static str, fn());

fn all() -> impl Iterator<Item = &'static Case> {
    let first = basics::CASES.iter().chain(borders::CASES);
    first.chain(limits::CASES).chain(detached::CASES)
}

fn main() -> ExitCode {
    runtime::init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [borders::CONNECT, name] = words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        borders::connect(name);
        return ExitCode::SUCCESS;
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let identity = runtime::Identity::default();
    if let Err(error) = runtime::become_root(&identity) {
        requires::cannot(&error.to_string());
        return ExitCode::SUCCESS;
    }
    let as_user = std::env::var_os("AS_USER").is_some();
    let (mut passed, mut failed, mut ignored, mut filtered) = (0, 0, 0, 0);
    for (name, case) in all().copied() {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            filtered += 1;
            continue;
        }
        let before = requires::ignored();
        let good = catch_unwind(AssertUnwindSafe(case)).is_ok();
        let (word, count) = match (good, requires::ignored() > before) {
            (false, _) => ("FAILED", &mut failed),
            (true, true) => ("ignored", &mut ignored),
            (true, false) => ("ok", &mut passed),
        };
        println!("test {name} ... {word}");
        *count += 1;
    }
    if support::real_root() && !as_user {
        for subordinate in [true, false] {
            if !rootless::again(subordinate) {
                failed += 1;
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {filtered} filtered out"
    );
    ExitCode::from(u8::from(failed > 0))
}
