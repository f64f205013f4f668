//! The rules of the house, read from the files themselves: which crate may depend on which
//! (invariant I1), who may await (I2), who may put content into a place (I3), and how large a file
//! may grow.

#[path = "tidy/knots.rs"]
mod knots;
#[path = "tidy/literals.rs"]
mod literals;
#[path = "tidy/nouns.rs"]
mod nouns;
#[path = "tidy/skips.rs"]
mod skips;
#[path = "tidy/vague.rs"]
mod vague;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates by floor; a crate may use what stands on a lower floor, and `task` may be used by all.
const FLOORS: &[(&str, u8)] = &[
    ("task", 0),
    ("image", 1),
    ("format", 1),
    ("configuration", 1),
    ("dockerfile", 1),
    ("layers", 2),
    ("registry-client", 2),
    ("runtime", 2),
    ("network", 2),
    ("recorder", 2),
    ("progress", 2),
    ("bake", 2),
    ("explorer", 3),
    ("lazy", 3),
    ("sbom", 3),
    ("store", 3),
    ("copy", 3),
    ("transport", 4),
    ("registry-server", 5),
    ("sign", 5),
    ("builder", 5),
    ("containers", 5),
    ("options", 6),
    ("app", 7),
    ("build-commands", 8),
    ("container-commands", 8),
    ("image-commands", 8),
    ("cli", 9),
    ("tests/requires", 0),
    ("tests/standins", 1),
    ("bench", 10),
];

/// Crates in which nothing may await.
const SYNCHRONOUS: &[&str] = &[
    "task",
    "image",
    "configuration",
    "dockerfile",
    "layers",
    "runtime",
    "network",
    "progress",
    "format",
    "bake",
    "explorer",
    "lazy",
    "sbom",
    "store",
    "containers",
];
const ASYNC_CRATES: &[&str] = &["tokio", "futures", "reqwest", "async-trait", "hyper"];

/// Files longer than this are to be split.
const LONGEST_FILE: usize = 600;

/// The crates of commands, and what stands above and below them: they speak of flags.
const COMMANDS: &[&str] = &["app", "build-commands", "container-commands", "image-commands", "cli"];
/// None of these holds more lines than this: they compile beside each other, and the largest is
/// what a build waits for.
const COMMAND_LINES: usize = 8_500;

/// A name of a type stands for one thing: no more crates than this have a type of that name.
const SHARED_NAME: usize = 3;
/// Names of more crates, and of how many. The list only ever gets shorter.
const SHARED_NAMES: &[(&str, usize)] = &[];

/// Where work on images, layers and blobs is done without a task of the user's, and how often.
/// The list only ever gets shorter.
const SILENT: &[(&str, usize)] = &[];

/// Flags of the language of Dockerfiles.
const LANGUAGE: &[&str] = &[
    "after",
    "checksum",
    "chmod",
    "chown",
    "device",
    "exclude",
    "from",
    "interval",
    "keep-git-dir",
    "link",
    "mount",
    "network",
    "parents",
    "platform",
    "retries",
    "security",
];
/// Files with sentences that name other flags, and how many: flags of other programs, and texts
/// that are command lines of ours. The list only ever gets shorter.
const FLAGS: &[(&str, usize)] = &[
    // What docker and podman need around us.
    ("layers/src/error.rs", 1),
    ("runtime/src/userns.rs", 1),
    // The head of a lock file says which command reads it.
    ("builder/src/lock.rs", 1),
    // A unit of systemd runs our command line.
    ("containers/src/quadlet.rs", 1),
];

/// No more files of a crate than this import each other.
const KNOT: usize = 3;
/// Crates with larger knots, and how large these are. The list only ever gets shorter.
const KNOTS: &[(&str, usize)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The `[dependencies]` of one crate (not the dev-dependencies).
fn dependencies(package: &str) -> Vec<String> {
    listed(package, "[dependencies]")
}

/// What stands in one section of a crate's manifest.
fn listed(package: &str, section: &str) -> Vec<String> {
    let path = root().join(package).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == section;
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.push(name.to_owned());
        }
    }
    names
}

fn sources(package: &str) -> Vec<(PathBuf, String)> {
    sources_below(&root().join(package).join("src"))
}

fn sources_below(directory: &Path) -> Vec<(PathBuf, String)> {
    let files = walkdir::WalkDir::new(directory).sort_by_file_name();
    let files = files.into_iter().map(|entry| entry.expect("a readable source tree"));
    let rust = files.filter(|entry| entry.path().extension().is_some_and(|e| e == "rs"));
    rust.map(|entry| {
        let text = std::fs::read_to_string(entry.path()).expect("UTF-8 source");
        (entry.path().to_owned(), text)
    })
    .collect()
}

#[test]
fn dependencies_point_down_never_sideways() {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    for (package, floor) in FLOORS {
        for dependency in dependencies(package) {
            if let Some(below) = floors.get(dependency.as_str()) {
                assert!(
                    below < floor,
                    "{package} (floor {floor}) uses {dependency} (floor {below})"
                );
            }
        }
    }
}

#[test]
fn every_member_has_a_floor() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    for member in members.expect("a list of members").split(',') {
        let member = member.trim().trim_matches('"');
        let known = FLOORS.iter().any(|(name, _)| *name == member);
        assert!(member.is_empty() || member == "tests" || known, "{member} has no floor");
    }
}

#[test]
fn synchronous_crates_know_no_executor() {
    for package in SYNCHRONOUS {
        for dependency in dependencies(package) {
            assert!(!ASYNC_CRATES.contains(&dependency.as_str()), "{package} uses {dependency}");
        }
    }
}

#[test]
fn only_copies_move_content() {
    for (package, _) in FLOORS.iter().filter(|(name, _)| !["copy", "transport"].contains(name)) {
        for (path, text) in sources(package) {
            for call in ["Sink::put(", "Sink::publish(", "sink.put(", "sink.publish("] {
                assert!(!text.contains(call), "{} calls {call}…)", path.display());
            }
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut long = Vec::new();
    for package in FLOORS.iter().map(|(package, _)| *package).chain(["tests"]) {
        let parts = ["src", "tests", "examples"].map(|part| root().join(package).join(part));
        let parts = parts.iter().filter(|part| part.is_dir());
        for (path, text) in parts.flat_map(|part| sources_below(part)) {
            let lines = text.lines().count();
            if lines > LONGEST_FILE {
                long.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "more than {LONGEST_FILE} lines: {long:#?}");
}

#[test]
fn no_test_is_ignored_and_no_stub_is_left() {
    for (package, _) in FLOORS {
        for (path, text) in sources(package) {
            for word in ["#[ignore", "todo!(", "unimplemented!("] {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

/// Whether a text names a crate: as a path, or in an import.
fn names(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let rest = &text[at + name.len()..];
        !text[..at].ends_with(is_word)
            && ["::", ";", " as ", "!"].iter().any(|next| rest.starts_with(next))
    })
}

#[test]
fn every_dependency_is_used() {
    let packages = FLOORS.iter().map(|(package, _)| *package).chain(["tests"]);
    let mut unused = Vec::new();
    for package in packages {
        let all: Vec<_> = ["src", "tests", "examples"]
            .iter()
            .map(|part| root().join(package).join(part))
            .filter(|directory| directory.is_dir())
            .flat_map(|directory| sources_below(&directory))
            .collect();
        let library = if package == "tests" { all.clone() } else { sources(package) };
        for (section, files) in [("[dependencies]", &library), ("[dev-dependencies]", &all)] {
            for name in listed(package, section) {
                let ident = name.replace('-', "_");
                if !files.iter().any(|(_, text)| names(text, &ident)) {
                    unused.push(format!("{package}: {name} of {section}"));
                }
            }
        }
    }
    assert!(unused.is_empty(), "declared and not used: {unused:#?}");
}

/// What cargo knows of every package that is built for Linux, without the workspace's own.
fn packages() -> Vec<serde_json::Value> {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--locked", "--offline"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(root());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let serde_json::Value::Array(packages) = all["packages"].take() else { panic!("no packages") };
    packages.into_iter().filter(|package| !package["source"].is_null()).collect()
}

#[test]
fn no_dependency_needs_a_newer_rust_than_we_say() {
    let number = |text: &str| -> Vec<u32> {
        let parts = text.split('.').map(|part| part.parse().expect("a version"));
        parts.chain([0; 3]).take(3).collect()
    };
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let ours = manifest.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next());
    let ours = ours.expect("a rust-version");
    for package in packages() {
        if let Some(theirs) = package["rust_version"].as_str() {
            let name = &package["name"];
            assert!(number(theirs) <= number(ours), "{name} needs Rust {theirs}, we say {ours}");
        }
    }
}

#[test]
fn verifying_one_signature_links_few_packages() {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["tree", "--package=sign", "--no-default-features", "--edges=normal"]);
    cargo.args(["--prefix=none", "--format={p}", "--locked", "--offline"]).current_dir(root());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let packages: BTreeSet<_> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let linked = |name: &str| packages.iter().any(|package| package.starts_with(name));
    assert!(packages.len() < 120, "{} packages: {packages:#?}", packages.len());
    assert!(linked("sign ") && !linked("rusqlite ") && !linked("reqwest "), "{packages:#?}");
}

#[test]
fn files_that_the_how_tos_name_exist() {
    let pages = std::fs::read_dir(root().join("docs/how-to")).expect("how-tos");
    for page in pages {
        let page = page.expect("a file").path();
        let text = std::fs::read_to_string(&page).expect("UTF-8");
        let quoted = text.split('`').skip(1).step_by(2);
        for path in quoted.filter(|word| word.contains('/') && !word.contains(' ')) {
            assert!(root().join(path).exists(), "{} names {path}", page.display());
        }
    }
}

#[test]
fn decisions_have_a_date_and_a_status() {
    let pages = std::fs::read_dir(root().join("docs/decisions")).expect("decisions");
    for page in pages {
        let page = page.expect("a file").path();
        let text = std::fs::read_to_string(&page).expect("UTF-8");
        let line = text.lines().nth(2).and_then(|line| line.strip_prefix("Date: 20"));
        let status = line.and_then(|line| line.split_once(". Status: "));
        let stated = status.is_some_and(|(_, status)| {
            ["accepted", "replaced by "].iter().any(|known| status.starts_with(known))
        });
        assert!(stated, "{}: its third line is no date and status", page.display());
    }
}

#[test]
fn few_files_import_each_other() {
    let mut large = Vec::new();
    for (package, _) in FLOORS {
        let known = KNOTS.iter().find(|(name, _)| name == package);
        let most = known.map_or(KNOT, |(_, files)| *files);
        let knot = knots::largest(&root().join(package).join("src"), &sources(package));
        if knot.len() > most {
            large.push(format!("{package}: these need each other: {}", knot.join(", ")));
        }
    }
    assert!(large.is_empty(), "{large:#?}");
}

/// A file without its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// Whether a file holds nothing but tests.
fn is_test(path: &Path) -> bool {
    let own = ["tests", "suite", "peers", "hostile", "copy_tests", "samples"];
    let stem = path.file_stem().is_some_and(|stem| own.iter().any(|name| stem == *name));
    stem || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn the_command_line_is_thin() {
    for name in COMMANDS {
        let lines: usize = sources(name).iter().map(|(_, text)| text.lines().count()).sum();
        assert!(
            lines <= COMMAND_LINES,
            "{name} has {lines} lines: move what knows no flags to a library"
        );
    }
}

/// The names of the types that a file defines.
fn types(text: &str) -> impl Iterator<Item = &str> {
    code(text).lines().filter_map(|line| {
        let line = line.trim_start();
        let line = match line.strip_prefix("pub") {
            Some(rest) => {
                rest.strip_prefix('(').and_then(|r| r.split_once(')')).map_or(rest, |(_, r)| r)
            }
            None => line,
        };
        let mut words = line.split_whitespace();
        let defines = matches!(words.next(), Some("struct" | "enum" | "trait"));
        let name = words.next().filter(|_| defines)?;
        name.split(|c: char| !c.is_alphanumeric()).next().filter(|name| !name.is_empty())
    })
}

#[test]
fn a_name_of_a_type_is_of_few_crates() {
    let mut crates: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (package, _) in FLOORS.iter().filter(|(name, _)| !name.contains('/') && *name != "bench") {
        let sources = sources(package);
        for (_, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
            for name in types(text) {
                let of = crates.entry(name.to_owned()).or_default();
                if of.last() != Some(package) {
                    of.push(package);
                }
            }
        }
    }
    // Each crate has one error, called as Rust calls it.
    for (name, of) in crates.iter().filter(|(name, _)| *name != "Error") {
        let known = SHARED_NAMES.iter().find(|(known, _)| known == name);
        let most = known.map_or(SHARED_NAME, |(_, crates)| *crates);
        assert!(of.len() <= most, "{name} is a type of {}", of.join(", "));
    }
}

/// The names that a file gives to types which are written elsewhere, or too long to write.
fn aliases(text: &str) -> impl Iterator<Item = &str> {
    code(text).lines().filter_map(|line| {
        let line = match line.strip_prefix("pub") {
            Some(rest) => rest.split_once(' ').map_or(rest, |(_, rest)| rest),
            None => line,
        };
        line.strip_prefix("type ")?.split(|c: char| !c.is_alphanumeric()).next()
    })
}

#[test]
fn names_of_types_are_nouns() {
    let mut vague = Vec::new();
    let mut seen = BTreeSet::new();
    for package in FLOORS.iter().map(|(package, _)| *package).chain(["tests"]) {
        for (path, text) in sources(package).iter().filter(|(path, _)| !is_test(path)) {
            let names = types(text).chain(aliases(text));
            let found = vague::of(names, &mut seen).into_iter();
            vague.extend(found.map(|name| format!("{}: {name}", path.display())));
        }
    }
    assert!(vague.is_empty(), "name what these are, not what happens to them: {vague:#?}");
    let gone: Vec<_> = vague::ALLOWED.iter().filter(|(name, _)| !seen.contains(name)).collect();
    assert!(gone.is_empty(), "allowed, and no longer there: {gone:#?}");
}

#[test]
fn public_nouns_are_in_the_glossary() {
    let page = std::fs::read_to_string(root().join("docs/glossary.md")).expect("the glossary");
    let (terms, mut rows) = nouns::glossary(&page);
    let mut absent = Vec::new();
    for (package, _) in FLOORS.iter().filter(|(name, _)| !name.contains('/') && *name != "bench") {
        let lib = root().join(package).join("src/lib.rs");
        for noun in nouns::public(&std::fs::read_to_string(lib).expect("a library")) {
            let row = rows.remove(&(noun.clone(), (*package).to_owned()));
            if !row && !terms.contains(&noun.to_lowercase()) {
                absent.push(format!("{package}::{noun}"));
            }
        }
    }
    assert!(absent.is_empty(), "docs/glossary.md does not say what these are: {absent:#?}");
    assert!(rows.is_empty(), "docs/glossary.md has types that are gone: {rows:#?}");
}

#[test]
fn only_sign_runs_gpg() {
    for (package, _) in FLOORS.iter().filter(|(name, _)| *name != "sign") {
        for (path, text) in sources(package) {
            assert!(!text.contains("Command::new(\"gpg\")"), "{} runs gpg", path.display());
        }
    }
}

#[test]
fn work_on_content_reports_to_the_users_task() {
    for (package, _) in FLOORS.iter().filter(|(name, _)| *name != "task" && *name != "bench") {
        for (path, text) in sources(package).iter().filter(|(path, _)| !is_test(path)) {
            let lines =
                code(text).lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
            let silent = lines.filter(|line| line.contains("Task::silent()")).count();
            let name = path.strip_prefix(root()).expect("a file of the workspace");
            let known = SILENT.iter().find(|(known, _)| Path::new(known) == name);
            let most = known.map_or(0, |(_, times)| *times);
            assert!(silent <= most, "{} works {silent} times without a task", name.display());
        }
    }
}

/// Whether a text is a sentence with a flag in it that is not of the Dockerfile's language.
fn tells_a_flag(literal: &str) -> bool {
    let mut flags = literal.match_indices("--").filter(|(at, _)| {
        let before = literal[..*at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '-')
    });
    let ours = |(at, _): (usize, &str)| {
        let name = |c: &char| c.is_ascii_lowercase() || *c == '-';
        let flag: String = literal[at + 2..].chars().take_while(name).collect();
        flag.starts_with(|c: char| c.is_ascii_lowercase()) && !LANGUAGE.contains(&flag.as_str())
    };
    literal.contains(' ') && flags.any(ours)
}

/// The sources in a directory, if there is one, and whether they are for tests.
fn texts(directory: &Path, tests: bool) -> Vec<(String, String, bool)> {
    if !directory.is_dir() {
        return Vec::new();
    }
    let named = |path: &Path| {
        let below = path.strip_prefix(directory).expect("a file of the directory");
        (path.strip_prefix(root()).expect("a file of ours").display().to_string(), is_test(below))
    };
    let all = sources_below(directory).into_iter();
    all.map(|(path, text)| {
        let (name, of_tests) = named(&path);
        (name, text, tests || of_tests)
    })
    .collect()
}

#[test]
fn tests_that_end_early_say_why() {
    let helpers = ["tests/src", "tests/requires/src", "tests/standins/src"];
    let helpers: Vec<_> = helpers.iter().flat_map(|part| texts(&root().join(part), true)).collect();
    let mut silent = Vec::new();
    for package in FLOORS.iter().map(|(package, _)| *package).chain(["tests"]) {
        let package = root().join(package);
        let mut files = texts(&package.join("src"), false);
        files.extend(texts(&package.join("tests"), true));
        silent.extend(skips::silent(&files, &helpers));
    }
    assert!(silent.is_empty(), "these return without a report by `requires`: {silent:#?}");
}

#[test]
fn libraries_name_no_flags() {
    let speaks = |name: &str| COMMANDS.contains(&name) || ["options", "bench"].contains(&name);
    for (package, _) in FLOORS.iter().filter(|(name, _)| !speaks(name)) {
        for (path, text) in sources(package).iter().filter(|(path, _)| !is_test(path)) {
            let told = literals::of(code(text)).into_iter().filter(|text| tells_a_flag(text));
            let told: Vec<_> = told.collect();
            let name = path.strip_prefix(root()).expect("a file of the workspace");
            let known = FLAGS.iter().find(|(known, _)| Path::new(known) == name);
            let most = known.map_or(0, |(_, times)| *times);
            let name = name.display();
            assert!(told.len() <= most, "{name}: flags belong to app/src/hints.rs: {told:#?}");
        }
    }
}

#[test]
fn the_log_level_is_that_of_every_crate_that_logs() {
    let path = root().join("options/src/globals.rs");
    let text = std::fs::read_to_string(path).expect("the options of every command");
    let ours = text.split("const OURS").nth(1).and_then(|rest| rest.split("];").next());
    let ours = ours.expect("the list of crates");
    let logs = |name: &str| dependencies(name).iter().any(|used| used == "tracing");
    for (name, _) in FLOORS.iter().filter(|(name, _)| *name != "bench" && logs(name)) {
        let quoted = format!("\"{}\"", name.replace('-', "_"));
        assert!(ours.contains(&quoted), "--log does not reach {name}");
    }
}
