//! Files of a crate that import each other, re-exports followed to where a name is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module by its path below the crate; the root is empty.
type Module = Vec<String>;

/// One name that a file imports, as it is written.
struct Import {
    /// Whether it is passed on (`pub use`).
    public: bool,
    path: Vec<String>,
}

/// The largest set of files of a crate that all depend on each other; `files` are its sources below
/// `src`.
pub fn largest(src: &Path, files: &[(PathBuf, String)]) -> Vec<String> {
    let modules: BTreeMap<Module, Vec<Import>> =
        files.iter().map(|(path, text)| (module(src, path), imports(text))).collect();
    let edges = edges(&modules);
    let reach: BTreeMap<&Module, BTreeSet<Module>> =
        edges.keys().map(|start| (start, reached(start, &edges))).collect();
    let mut largest = Vec::new();
    for (start, there) in &reach {
        let back = |other: &&Module| reach.get(other).is_some_and(|all| all.contains(*start));
        let knot: Vec<String> = there.iter().filter(back).map(|module| module.join("::")).collect();
        if knot.len() > largest.len() {
            largest = knot;
        }
    }
    largest
}

fn module(src: &Path, path: &Path) -> Module {
    let below = path.strip_prefix(src).expect("a file below src").with_extension("");
    let mut parts: Module = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    match parts.first().map(String::as_str) {
        Some("lib" | "main" | "bin") => Module::new(),
        _ => parts,
    }
}

/// The `use` declarations of a file, those of its tests excepted.
fn imports(text: &str) -> Vec<Import> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut imports = Vec::new();
    let mut lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    while let Some(line) = lines.next() {
        let line = line.trim();
        let (public, rest) = match line.strip_prefix("pub") {
            Some(rest) => (true, rest.split_once("use ").map(|(_, rest)| rest)),
            None => (false, line.strip_prefix("use ")),
        };
        let declared = line.starts_with("use ")
            || line.starts_with("pub use ")
            || line.starts_with("pub(") && line.contains(") use ");
        let Some(rest) = rest.filter(|_| declared) else { continue };
        let mut whole = rest.to_owned();
        while !whole.contains(';') {
            let Some(more) = lines.next() else { break };
            whole.push_str(more);
        }
        let whole: String = whole.split(';').next().unwrap_or_default().into();
        let paths = expanded(&Vec::new(), &whole.replace(char::is_whitespace, " "));
        imports.extend(paths.into_iter().map(|path| Import { public, path }));
    }
    imports
}

/// The single paths of a declaration with braces.
fn expanded(before: &[String], text: &str) -> Vec<Vec<String>> {
    let text = text.trim();
    let segments = |text: &str| -> Vec<String> {
        let path = text.split(" as ").next().unwrap_or_default();
        let parts = path.split("::").map(|part| part.trim().to_owned());
        before.iter().cloned().chain(parts.filter(|part| !part.is_empty())).collect()
    };
    let Some((head, rest)) = text.split_once('{') else { return vec![segments(text)] };
    let body = rest.rsplit_once('}').map_or(rest, |(body, _)| body);
    let head = segments(head);
    let (mut depth, mut part, mut all) = (0, String::new(), Vec::new());
    for c in body.chars().chain([',']) {
        match c {
            ',' if depth == 0 => {
                let text = std::mem::take(&mut part);
                if !text.trim().is_empty() {
                    all.extend(expanded(&head, &text));
                }
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        part.push(c);
    }
    all
}

/// Where a path that is written in a module begins, as a path below the crate; `None` for what is
/// of another crate.
fn absolute(
    own: &Module,
    path: &[String],
    modules: &BTreeMap<Module, Vec<Import>>,
) -> Option<Vec<String>> {
    let mut base = own.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        child => {
            let below: Module = own.iter().cloned().chain([child.to_owned()]).collect();
            modules.get(&below)?;
        }
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// The module of a path and the name in it.
fn split(path: &[String], modules: &BTreeMap<Module, Vec<Import>>) -> (Module, Option<String>) {
    let length = (0..=path.len()).rev().find(|n| modules.contains_key(&path[..*n]));
    let length = length.unwrap_or(0);
    (path[..length].to_vec(), path.get(length).cloned())
}

/// Which modules each module imports from, where the names are defined.
fn edges(modules: &BTreeMap<Module, Vec<Import>>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut passed_on: BTreeMap<(Module, String), Vec<String>> = BTreeMap::new();
    for (own, imports) in modules {
        for import in imports.iter().filter(|import| import.public) {
            if let (Some(path), Some(name)) =
                (absolute(own, &import.path, modules), import.path.last())
            {
                passed_on.insert((own.clone(), name.clone()), path);
            }
        }
    }
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (own, imports) in modules {
        let needs = edges.entry(own.clone()).or_default();
        for import in imports.iter().filter(|import| !import.public) {
            let Some(mut path) = absolute(own, &import.path, modules) else { continue };
            let mut seen = BTreeSet::new();
            let defined = loop {
                let (module, name) = split(&path, modules);
                let Some(name) = name else { break module };
                match passed_on.get(&(module.clone(), name.clone())) {
                    Some(next) if seen.insert((module.clone(), name)) => path.clone_from(next),
                    _ => break module,
                }
            };
            if defined != *own {
                needs.insert(defined);
            }
        }
    }
    edges
}

/// Everything that can be reached from a module, itself included.
fn reached(start: &Module, edges: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![start.clone()]);
    while let Some(module) = open.pop() {
        if seen.insert(module.clone()) {
            open.extend(edges.get(&module).into_iter().flatten().cloned());
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knot_is_found_through_what_is_passed_on() {
        let file = |name: &str, text: &str| (PathBuf::from("/src").join(name), text.to_owned());
        let files = [
            file("lib.rs", "mod a;\nmod b;\npub use b::{inner::Deep, B};\n"),
            file("a.rs", "use std::fmt;\nuse crate::Deep as D;\npub struct A;\n"),
            file("b/mod.rs", "mod inner;\npub struct B;\n"),
            file("b/inner.rs", "use super::super::a::{self, A};\nuse crate::{\n    B, // B\n};\n"),
            file("c.rs", "use crate::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::d::D;\n}\n"),
            file("d.rs", "use crate::c::C;\n"),
        ];
        assert_eq!(largest(Path::new("/src"), &files), ["a", "b::inner"]);
    }
}
