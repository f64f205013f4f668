//! Public types whose name is one noun, and the glossary.

use std::collections::BTreeSet;

use syn::{Item, UseTree, Visibility};

/// The types of one noun that the root of a crate passes on from modules of its own. Each crate has
/// an `Error` and a `Result`, called as Rust calls them.
pub fn public(lib: &str) -> BTreeSet<String> {
    let file = syn::parse_file(lib).expect("Rust that compiles");
    let modules: BTreeSet<String> = file
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        })
        .chain(["self", "crate"].map(str::to_owned))
        .collect();
    let mut names = BTreeSet::new();
    for item in &file.items {
        let Item::Use(declared) = item else { continue };
        let UseTree::Path(path) = &declared.tree else { continue };
        let public = matches!(declared.vis, Visibility::Public(_));
        if public && modules.contains(&path.ident.to_string()) {
            leaves(&path.tree, &mut names);
        }
    }
    names.retain(|name| is_noun(name) && name != "Error" && name != "Result");
    names
}

fn leaves(tree: &UseTree, names: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, names),
        UseTree::Name(name) => drop(names.insert(name.ident.to_string())),
        UseTree::Rename(name) => drop(names.insert(name.rename.to_string())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
        UseTree::Glob(_) => {}
    }
}

/// One word with a capital letter.
fn is_noun(name: &str) -> bool {
    name.starts_with(char::is_uppercase) && name.chars().skip(1).all(char::is_lowercase)
}

/// What a glossary has: its terms in lower case, and the types of its table with their crates.
pub fn glossary(page: &str) -> (BTreeSet<String>, BTreeSet<(String, String)>) {
    let terms = page.split("**").skip(1).step_by(2).map(str::to_lowercase).collect();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    });
    (terms, rows.collect())
}

#[test]
fn nouns_of_a_crate_are_found() {
    let lib = "mod a; mod b; pub use a::{One, two, TwoWords, Error}; pub use self::b::c::{Other as Three};
               pub use elsewhere::Four; use a::Five; pub(crate) use a::Six;";
    assert_eq!(public(lib), ["One", "Three"].map(str::to_owned).into());
    let (terms, rows) =
        glossary("| **lock file** | x |\n| `One` | task | what |\n| word | crate |\n");
    assert_eq!(terms, ["lock file".to_owned()].into());
    assert_eq!(rows, [("One".to_owned(), "task".to_owned())].into());
}
