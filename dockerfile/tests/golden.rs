//! Golden tests: each file in `tests/cases` is a Dockerfile, a line of `=`, and what the parser and
//! the linter make of it. `UPDATE=1 cargo test -p dockerfile --test golden` rewrites the answers.

mod dump;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const RULER: &str = "========================================\n";

/// The Dockerfile and the expected dump. `{CR}`, `{BOM}` and `{TAB}` stand for what editors spoil.
fn read_case(path: &Path) -> (String, String) {
    let text = std::fs::read_to_string(path).expect("a readable case");
    let (source, expected) = text.split_once(RULER).unwrap_or((&text, ""));
    (source.to_owned(), expected.to_owned())
}

fn answer(source: &str) -> String {
    let source = source.replace("{CR}", "\r").replace("{BOM}", "\u{feff}").replace("{TAB}", "\t");
    let (file, diagnostics) = dockerfile::parse(&source);
    let mut out = dump::file(&source, &file);
    for diagnostic in &diagnostics {
        out.push_str("--\n");
        out.push_str(&dockerfile::render(&source, "Dockerfile", diagnostic));
    }
    let context = dockerfile::LintContext::default();
    for diagnostic in dockerfile::lint(&file, &context) {
        out.push_str("-- lint\n");
        out.push_str(&dockerfile::render(&source, "Dockerfile", &diagnostic));
    }
    out
}

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let update = option_env_at_run("UPDATE");
    let mut wrong = String::new();
    for path in paths {
        let (source, expected) = read_case(&path);
        let found = answer(&source);
        if update {
            std::fs::write(&path, format!("{source}{RULER}{found}")).unwrap();
        } else if found != expected {
            writeln!(wrong, "{}\nexpected:\n{expected}\nfound:\n{found}", path.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[expect(clippy::disallowed_methods, reason = "a test is told by its environment to rewrite")]
fn option_env_at_run(name: &str) -> bool {
    std::env::var_os(name).is_some()
}
