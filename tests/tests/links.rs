//! Links in the documentation lead somewhere: files exist, headings exist, and the site has every
//! page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use e2e::{Bench, repository};

/// The lines of a page that are not code.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The targets of the links in a line: `[text](target)`, code left out.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("](") {
        let in_code = line[..at].matches('`').count() % 2 == 1;
        let rest = &line[at + 2..];
        if let Some(end) = rest.find(')').filter(|_| !in_code) {
            found.push(&rest[..end]);
        }
    }
    found
}

/// The anchors of a page, as the site and code hosts make them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = lines(text).filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// What is wrong with the links of a page; `generated` names a directory that the site makes.
fn broken(page: &Path, generated: Option<&Path>) -> Vec<String> {
    let text = std::fs::read_to_string(page).expect("a page");
    let here = page.parent().expect("a directory");
    let mut faults = Vec::new();
    for (number, line) in lines(&text) {
        for target in targets(line) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.to_owned() } else { here.join(path) };
            let place = format!("{}:{}: {target}", page.display(), number + 1);
            if generated.is_some_and(|directory| file.starts_with(directory)) {
                continue;
            }
            if !file.exists() {
                faults.push(format!("{place}: there is no such file"));
            } else if !wanted.is_empty() {
                let other = std::fs::read_to_string(&file).unwrap_or_default();
                if !anchors(&other).contains(wanted) {
                    faults.push(format!("{place}: there is no such heading"));
                }
            }
        }
    }
    faults
}

/// All pages below a directory.
fn pages(directory: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(directory).sort_by_file_name().into_iter();
    walk.map(|entry| entry.expect("a readable directory").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let root = repository();
    let generated = root.join("docs/reference");
    let mut all = pages(&root.join("docs"));
    for name in ["README.md", "CONTRIBUTING.md", "SHORTCOMINGS.md", "CHANGELOG.md", "SECURITY.md"] {
        all.push(root.join(name));
    }
    all.extend(pages(&root.join("packaging")));
    assert!(all.len() > 50, "{}", all.len());
    let faults: Vec<String> = all.iter().flat_map(|page| broken(page, Some(&generated))).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_site_has_every_page() {
    let docs = repository().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).expect("a summary");
    let listed: BTreeSet<PathBuf> =
        lines(&summary).flat_map(|(_, line)| targets(line)).map(|page| docs.join(page)).collect();
    let missing: Vec<PathBuf> = pages(&docs)
        .into_iter()
        .filter(|page| !page.starts_with(docs.join("decisions")) && !page.ends_with("SUMMARY.md"))
        .filter(|page| !listed.contains(page))
        .collect();
    assert!(missing.is_empty(), "add to docs/SUMMARY.md: {missing:?}");
}

#[test]
fn the_reference_has_a_page_for_each_command() {
    let bench = Bench::new();
    bench.rbuild(["man", "--markdown", "pages"]).ok();
    bench.rcopy(["man", "--markdown", "pages"]).ok();
    let reference = bench.path().join("pages");
    let all = pages(&reference);
    let faults: Vec<String> = all.iter().flat_map(|page| broken(page, None)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (page, words) in [
        ("rbuild.md", &["(rbuild/bud.md)", "`--root DIR`", "$ rbuild bud -t app ."][..]),
        ("rbuild/bud.md", &["# rbuild bud", "`-f`, `--file", "Build an image from a Dockerfile."]),
        ("rbuild/manifest.md", &["## rbuild manifest push", "`--all"]),
        ("rcopy/copy.md", &["# rcopy copy", "`--additional-tag"]),
    ] {
        let text = std::fs::read_to_string(reference.join(page)).expect(page);
        for word in words {
            assert!(text.contains(word), "{page} lacks {word:?}:\n{text}");
        }
        assert!(!text.contains("_rcopy_") && !text.contains("\u{1b}"), "{page}");
    }
}

#[test]
fn a_missing_file_and_a_missing_heading_are_found() {
    let bench = Bench::new();
    bench.write("there.md", "# A `b`: c\n");
    let page = bench.write(
        "page.md",
        "[a](there.md#a-b-c) [b](there.md#d) [c](gone.md) `[d](gone.md)` [e](https://x.example)\n\
         ```\n[f](gone.md)\n```\n",
    );
    let faults = broken(&page, None);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("#d: there is no such heading"), "{faults:?}");
    assert!(faults[1].contains("gone.md: there is no such file"), "{faults:?}");
}
