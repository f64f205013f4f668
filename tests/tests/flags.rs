//! Every flag that is accepted is read. The compiler does not see one that is not: what clap derives
//! writes to every field.

use std::collections::BTreeMap;
use std::path::Path;

/// Flags that ask for what holds anyway, each with the reason. What would ask for something else is
/// refused.
const TAKEN: &[(&str, &str)] = &[
    ("Logout._tls_verify", "no registry is asked, so there is nothing to verify"),
    ("Logout.all", "without a registry all are meant"),
    ("Create.ignore", "a volume that exists is no failure"),
    ("Rmi.no_prune", "there are no unnamed parents"),
    ("Images.all", "steps leave no images that would be hidden"),
    ("Inspect.verbose", "it adds the services of a swarm, and networks of this machine have none"),
    ("Prune.force", "nothing is asked"),
    ("Push.all", "every image of an index goes along"),
    ("Push.remove_signatures", "signatures are not sent with manifest lists"),
    ("Mount.notruncate", "nothing is truncated"),
    ("BuildahFlags.runroot", "state is kept in the store"),
    ("CompatFlags.rm", "nothing is left of a step"),
    ("CompatFlags.force_rm", "nothing is left of a step"),
    ("CompatFlags.compress", "the context is not sent anywhere"),
    ("CompatFlags.disable_content_trust", "Docker's Notary is never asked"),
    ("Create.attachable", "containers can be put on every network"),
    ("Bake.load", "what is built is in the store"),
    ("ListFlags.no_trunc", "nothing is cut"),
    ("Pull.annotate_ref", "an image in a layout always has its name"),
    ("CompressFlags.dest_oci_accept_uncompressed_layers", "layers are kept as they are"),
    ("OciRuntime.debug", "errors are all that is logged"),
    ("OciRuntime.rootless", "who the caller is shows in the user namespace"),
    ("CompressFlags.dest_precompute_digests", "digests are known before anything is sent"),
];

/// A flag: the struct it is in, its field, and where.
#[derive(Debug)]
struct Flag {
    owner: String,
    field: String,
    /// Whether other directories may read it.
    public: bool,
    file: String,
}

fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let walk = |name: &str| walkdir::WalkDir::new(root.join(name)).sort_by_file_name().into_iter();
    let crates =
        ["options", "app", "build-commands", "container-commands", "image-commands", "cli"];
    let files = crates.into_iter().flat_map(|name| walk(&format!("{name}/src")));
    let files = files.map(|entry| entry.expect("a readable source tree"));
    let rust = files.filter(|entry| entry.path().extension().is_some_and(|end| end == "rs"));
    rust.map(|entry| {
        let text = std::fs::read_to_string(entry.path()).expect("UTF-8 source");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
        (entry.path().display().to_string(), code)
    })
    .collect()
}

/// `name` of `    pub(crate) name: Type,`.
fn field(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("    ")?;
    let rest = match rest.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ')?.1,
        None => rest,
    };
    let (name, _) = rest.split_once(": ")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

/// The flags of the structs that clap fills.
fn flags(file: &str, code: &str) -> Vec<Flag> {
    let (mut flags, mut filled, mut owner) = (Vec::new(), false, None::<String>);
    // clap acts on `--help` itself.
    let is_help = |line: &str| line.contains("ArgAction::Help");
    let lines = std::iter::once("").chain(code.lines()).zip(code.lines());
    for (_, line) in lines.filter(|(before, _)| !is_help(before)) {
        if line.starts_with("#[derive(") {
            filled = ["Args", "Parser"].iter().any(|name| line.contains(name));
        } else if line == "}" || line.ends_with(";") && !line.starts_with(' ') {
            (filled, owner) = (false, None);
        } else if let Some((_, name)) = line.split_once("struct ").filter(|_| filled) {
            owner = Some(name.trim_end_matches(" {").to_owned());
        } else if let (Some(owner), Some(name)) = (&owner, field(line)) {
            let public = line.trim_start().starts_with("pub");
            let (owner, field, file) = (owner.clone(), name.to_owned(), file.to_owned());
            flags.push(Flag { owner, field, public, file });
        }
    }
    flags
}

/// How often code reads a field: as `x.field`, or as `field` in a pattern.
fn reads(code: &str, name: &str) -> usize {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let found = code.match_indices(name).filter(|(at, _)| {
        let before = code[..*at].chars().next_back().unwrap_or('\n');
        let after = code[at + name.len()..].chars().next().unwrap_or('\n');
        match before {
            '.' => !word(after) && after != '(',
            ' ' | '{' => matches!(after, ',' | '}' | ' '),
            _ => false,
        }
    });
    found.count()
}

/// Code without comments and attributes, in which flags name each other.
fn plain(code: &str) -> String {
    let lines = code.lines().filter(|line| {
        let line = line.trim_start();
        !line.starts_with("//") && !line.starts_with("#[")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_flag_is_read() {
    let sources = sources();
    let plain: BTreeMap<&String, String> =
        sources.iter().map(|(file, code)| (file, plain(code))).collect();
    let mut all = 0;
    let mut unread = Vec::new();
    for (file, code) in &sources {
        for flag in flags(file, code) {
            all += 1;
            let directory = Path::new(file).parent().unwrap_or(Path::new("/"));
            let seen = |other: &str| flag.public || Path::new(other).starts_with(directory);
            let scope = plain.iter().filter(|(other, _)| seen(other));
            let count = scope.map(|(_, code)| reads(code, &flag.field)).sum::<usize>();
            let name = format!("{}.{}", flag.owner, flag.field);
            let taken = TAKEN.iter().any(|(known, _)| *known == name);
            if (count == 0 || flag.field.starts_with('_')) && !taken {
                unread.push(format!("{name} in {}", flag.file));
            }
        }
    }
    assert!(all > 500, "{all} flags were found: the sources are read wrongly");
    assert!(unread.is_empty(), "nobody reads {unread:#?}");
}

#[test]
fn a_flag_that_nobody_reads_is_found() {
    let code = "#[derive(Debug, Args)]\nstruct Odd {\n    /// Says read\n    #[arg(long)]\n    \
                read: bool,\n    #[arg(long, conflicts_with = \"read\")]\n    unread: bool,\n}\n\
                fn run(odd: &Odd) -> bool {\n    odd.read\n}\n";
    let found = flags("odd.rs", code);
    let names: Vec<&str> = found.iter().map(|flag| flag.field.as_str()).collect();
    assert_eq!((names, found[0].owner.as_str()), (vec!["read", "unread"], "Odd"));
    let plain = plain(code);
    assert_eq!((reads(&plain, "read"), reads(&plain, "unread")), (1, 0));
}
