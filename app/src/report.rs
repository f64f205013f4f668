//! How a failure is shown: what failed, why, and what to do, once, at the end.

use std::io::{IsTerminal, Write};

use options::Failure;
use serde_json::json;
use task::Kind;

use crate::hints::hinted;

/// Shows a failure on standard error.
pub fn print(failure: Failure) {
    let failure = hinted(failure);
    let mut err = std::io::stderr().lock();
    let colour = std::io::stderr().is_terminal();
    let paint = |code: &str, text: &str| match colour {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    // Messages quote images and registries.
    let shown = |text: &str| match colour {
        true => ::format::visible(text),
        false => text.to_owned(),
    };
    if failure.kind == Kind::Cancelled {
        let _ = writeln!(err, "{}", paint("33", "cancelled"));
        return;
    }
    match &failure.excerpt {
        Some(excerpt) => {
            let _ = writeln!(err, "{}", shown(excerpt.trim_end()));
        }
        None => {
            let first = failure.messages.first().map_or("", String::as_str);
            let _ = writeln!(err, "{} {}", paint("1;31", "error:"), shown(first));
        }
    }
    for message in failure.causes() {
        let _ = writeln!(err, "  {} {}", paint("2", "caused by:"), shown(message));
    }
    if let Some(hint) = &failure.hint {
        let _ = writeln!(err, "{} {}", paint("1;36", "hint:"), shown(hint));
    }
}

/// Shows a failure as one JSON object on standard error.
pub fn print_json(failure: Failure) {
    let failure = hinted(failure);
    let (message, causes) = match failure.messages.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => ("", &[][..]),
    };
    let kind = if failure.usage { "usage" } else { failure.kind.as_str() };
    let line = json!({
        "event": "error", "kind": kind, "message": message,
        "causes": causes, "hint": failure.hint,
    });
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
