//! Documentation, help texts and comments use the words of `docs/STYLE.md`: the phrases of its last table
//! appear nowhere else.

use std::path::{Path, PathBuf};

/// The words of the last table of the style guide: its first column, `, `-separated.
fn avoided(style: &str) -> Vec<String> {
    let table = style.split("## Words we do not use").nth(1).expect("the last section");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let words = rows.filter_map(|row| row.trim_start_matches("| ").split(" | ").next());
    words.flat_map(|cell| cell.split(", ")).map(str::to_owned).collect()
}

fn pages(root: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(root.join("docs")).sort_by_file_name();
    let mut pages: Vec<_> = walk
        .into_iter()
        .map(|entry| entry.expect("a readable directory").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .filter(|path| !path.ends_with("STYLE.md"))
        .collect();
    for name in ["README.md", "CONTRIBUTING.md", "SHORTCOMINGS.md", "CHANGELOG.md", "SECURITY.md"] {
        pages.push(root.join(name));
    }
    pages
}

/// Whether a text has a phrase as whole words.
fn has(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + phrase.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// Fails if a page below `root` has a phrase that the style guide avoids.
fn check(root: &Path, pages: &[PathBuf]) {
    let style = e2e::repository().join("docs/STYLE.md");
    let words = avoided(&std::fs::read_to_string(style).expect("the style guide"));
    assert!(words.len() >= 8, "{words:?}");
    let mut found = Vec::new();
    for page in pages {
        let Ok(text) = std::fs::read_to_string(page) else { continue };
        for (number, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for word in words.iter().filter(|word| has(&line, word)) {
                let place = page.strip_prefix(root).expect("below the root").display();
                found.push(format!("{place}:{}: {word}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The comments of the crates, one file each, at the places of their sources.
fn comments(root: &Path, into: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    let named = |entry: &walkdir::DirEntry, names: &[&str]| {
        entry.depth() == 1 && names.iter().any(|name| entry.file_name() == *name)
    };
    let walk = walk.filter_entry(|entry| !named(entry, &["target", ".git"]));
    let files = walk.map(|entry| entry.expect("a readable directory").into_path());
    let sources = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let extracted = sources.map(|path| {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let kept = text.lines().map(|line| match line.trim_start() {
            comment if comment.starts_with("//") => format!("{comment}\n"),
            _ => "\n".to_owned(),
        });
        let copy = into.join(path.strip_prefix(root).expect("below the root"));
        std::fs::create_dir_all(copy.parent().expect("a directory")).expect("a directory");
        std::fs::write(&copy, kept.collect::<String>()).expect("a file");
        copy
    });
    extracted.collect()
}

#[test]
fn comments_avoid_them_too() {
    let copies = tempfile::tempdir().expect("a directory");
    let pages = comments(&e2e::repository(), copies.path());
    assert!(pages.len() > 500, "{}", pages.len());
    check(copies.path(), &pages);
}

#[test]
fn documentation_avoids_the_words_of_the_style_guide() {
    let root = e2e::repository();
    check(&root, &pages(&root));
}

#[test]
fn help_texts_avoid_the_words_of_the_style_guide() {
    let bench = e2e::Bench::new();
    for program in ["rbuild", "rcopy"] {
        e2e::run(bench.command(program).args(["man", "--markdown", "pages"])).ok();
    }
    let written = walkdir::WalkDir::new(bench.path().join("pages"));
    let help: Vec<PathBuf> =
        written.into_iter().map(|entry| entry.expect("a page").into_path()).collect();
    assert!(help.len() > 50, "{help:?}");
    check(bench.path(), &help);
}

#[test]
fn a_phrase_counts_as_whole_words_only() {
    assert!(has("it is told so", "is told"));
    assert!(!has("this told", "is told"));
    assert!(!has("anewspaper", "anew"));
}
