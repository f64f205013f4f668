//! Builds, end to end: this program is its own harness, because the first line of `main` must be
//! [`runtime::init`].

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is a test harness")]

mod cache;
mod copying;
mod language;
mod running;
mod support;
mod travel;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A named test.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    runtime::init();
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if let Err(error) = runtime::become_root(&runtime::Identity::default()) {
        requires::cannot(&error.to_string());
        return ExitCode::SUCCESS;
    }
    if runtime::single_id() {
        requires::cannot("needs more than one user id");
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed, mut ignored, mut filtered) = (0, 0, 0, 0);
    let cases =
        [language::CASES, copying::CASES, cache::CASES, travel::CASES, running::CASES].concat();
    for (name, case) in cases {
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
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {filtered} filtered out"
    );
    ExitCode::from(u8::from(failed > 0))
}
