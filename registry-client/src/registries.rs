//! registries.conf (versions 1 and 2) as podman, buildah and skopeo read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::routes::{Mirror, MirrorPull, Route, split};
use crate::short_names::{Mode, ShortNames};
use crate::{Error, Result, Target};

/// The largest file that is read.
const LARGEST: u64 = 4 << 20;

/// What the registries.conf files of a user say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    /// Where names lead.
    pub routes: Vec<Route>,
    /// What names without a registry mean.
    pub short_names: ShortNames,
    /// Where credentials are looked up, in order: `containers-auth.json` means the files,
    /// everything else is a helper. Empty if no file configures it.
    pub credential_helpers: Vec<String>,
    /// Warnings about ignored keys, for the user.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryTable {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    pull_from_mirror: String,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// What `[registries]` of version 1 says.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Version1 {
    search: Option<Names>,
    insecure: Names,
    block: Names,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Names {
    registries: Vec<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Registries {
    /// Reads files in this order; a later entry for a prefix, an alias or a setting replaces an
    /// earlier one. A missing file is empty.
    ///
    /// # Errors
    /// [`Error::Registries`], [`Error::File`].
    pub fn read(files: &[PathBuf]) -> Result<Registries> {
        let mut all = Registries::default();
        for path in files {
            if let Some(text) = text(path)? {
                all.add(path, &text)?;
            }
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let mut file = RegistriesFile { path, text, all: self };
        file.read()
    }
}

/// A file's text; `None` where there is none.
pub(crate) fn text(path: &Path) -> Result<Option<String>> {
    let failed = |source| Error::File { action: "reading", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LARGEST {
        let reason = format!("it has more than {LARGEST} bytes");
        return Err(Error::Registries { path: path.to_owned(), reason });
    }
    Ok(Some(text))
}

/// A TOML file as a table.
pub(crate) fn table(path: &Path, text: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let reason = format!("line {line}: {}", error.message());
        Error::Registries { path: path.to_owned(), reason }
    })
}

/// One configuration file, merged into the others.
struct RegistriesFile<'a> {
    path: &'a Path,
    text: &'a str,
    all: &'a mut Registries,
}

impl RegistriesFile<'_> {
    fn refuse(&self, place: &str, reason: impl std::fmt::Display) -> Error {
        let line = self.line(place).map(|line| format!("line {line}, ")).unwrap_or_default();
        Error::Registries { path: self.path.to_owned(), reason: format!("{line}{place}: {reason}") }
    }

    /// The line a table begins in: `registry[2]` is the third `[[registry]]`.
    fn line(&self, place: &str) -> Option<usize> {
        let (name, rest) = place.split_once('[')?;
        let index: usize = rest.split(']').next()?.parse().ok()?;
        let header = |line: &str| {
            let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            line.starts_with(&format!("[[{name}]]"))
        };
        let mut lines = self.text.lines().enumerate().filter(|(_, line)| header(line));
        lines.nth(index).map(|(number, _)| number + 1)
    }

    fn warn(&mut self, key: &str) {
        let path = self.path.display();
        self.all.warnings.push(format!("{path}: the unknown key {key} is ignored"));
    }

    fn read(&mut self) -> Result<()> {
        let table = table(self.path, self.text)?;
        if table.contains_key("registries")
            && let Some(other) = table.keys().find(|key| *key != "registries")
        {
            let reason = format!("this is version 1 of the format, and {other} is not of it");
            return Err(self.refuse("registries", reason));
        }
        for (key, value) in table {
            match key.as_str() {
                "registry" => self.routes(value)?,
                "aliases" => self.aliases(value)?,
                "unqualified-search-registries" => {
                    let registries = self.get(&key, value)?;
                    self.search(&key, registries)?;
                }
                "short-name-mode" => self.mode(value)?,
                "credential-helpers" => {
                    self.all.credential_helpers = self.get(&key, value)?;
                }
                "registries" => self.version1(value)?,
                "additional-layer-store-auth-helper" => {
                    return Err(self.refuse(&key, "additional layer stores are not supported"));
                }
                other => self.warn(other),
            }
        }
        Ok(())
    }

    fn get<T: serde::de::DeserializeOwned>(&self, key: &str, value: Value) -> Result<T> {
        value.try_into().map_err(|error: toml::de::Error| self.refuse(key, error.message()))
    }

    fn routes(&mut self, value: Value) -> Result<()> {
        let entries: Vec<Value> = self.get("registry", value)?;
        let mut here = BTreeSet::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let place = format!("registry[{index}]");
            let entry: RegistryTable = self.get(&place, entry)?;
            let route = self.route(&place, entry)?;
            let known = self.all.routes.iter().position(|known| known.prefix == route.prefix);
            match known {
                Some(known) if !here.insert(route.prefix.clone()) => {
                    // The same said twice does no harm.
                    let before = &self.all.routes[known];
                    if (before.insecure, before.blocked, &before.location)
                        != (route.insecure, route.blocked, &route.location)
                    {
                        let reason =
                            format!("the prefix {} has another, contradicting entry", route.prefix);
                        return Err(self.refuse(&place, reason));
                    }
                }
                Some(known) => self.all.routes[known] = route,
                None => {
                    here.insert(route.prefix.clone());
                    self.all.routes.push(route);
                }
            }
        }
        Ok(())
    }

    fn version1(&mut self, value: Value) -> Result<()> {
        let said: Version1 = self.get("registries", value)?;
        let mut unknown: Vec<_> = said.rest.into_keys().collect();
        if let Some(search) = said.search {
            unknown.extend(search.rest.into_keys().map(|key| format!("search.{key}")));
            self.search("registries.search", search.registries)?;
        }
        let mut here: BTreeMap<String, Route> = BTreeMap::new();
        for (list, blocks, named) in
            [("insecure", false, said.insecure), ("block", true, said.block)]
        {
            let key = format!("registries.{list}");
            unknown.extend(named.rest.into_keys().map(|name| format!("{list}.{name}")));
            for text in named.registries {
                let prefix = self.name(&key, &text)?;
                if prefix.is_empty() {
                    return Err(self.refuse(&key, format!("{text:?} is not a registry")));
                }
                let route = here.entry(prefix.clone()).or_default();
                route.said_by = format!("{} ({key}, {prefix})", self.path.display());
                route.prefix = prefix;
                route.blocked |= blocks;
                route.insecure |= !blocks;
            }
        }
        for key in unknown {
            self.warn(&format!("registries.{key}"));
        }
        for (prefix, route) in here {
            self.all.routes.retain(|known| known.prefix != prefix);
            self.all.routes.push(route);
        }
        Ok(())
    }

    fn route(&mut self, place: &str, entry: RegistryTable) -> Result<Route> {
        for key in entry.rest.keys() {
            self.warn(&format!("{place}.{key}"));
        }
        let location = self.image(&format!("{place}.location"), &entry.location)?;
        let prefix = match entry.prefix.is_empty() {
            true => location.clone(),
            false => self.image(&format!("{place}.prefix"), &entry.prefix)?,
        };
        let wild = prefix.starts_with("*.");
        if prefix.is_empty() || (location.is_empty() && !wild) {
            return Err(self.refuse(place, "it has no location"));
        }
        if location.starts_with('*') {
            return Err(self.refuse(&format!("{place}.location"), "only a prefix may have a '*'"));
        }
        if wild && prefix.contains('/') {
            let reason = "a prefix with a '*' ends with the host";
            return Err(self.refuse(&format!("{place}.prefix"), reason));
        }
        if !location.is_empty() {
            self.same_kind(&format!("{place}.location"), &prefix, &location)?;
        }
        if !entry.pull_from_mirror.is_empty() {
            let reason = "it belongs into a [[registry.mirror]]";
            return Err(self.refuse(&format!("{place}.pull-from-mirror"), reason));
        }
        let mut mirrors = Vec::new();
        for (index, mirror) in entry.mirror.into_iter().enumerate() {
            let place = format!("{place}.mirror[{index}]");
            let mirror = self.mirror(&place, &mirror, entry.mirror_by_digest_only)?;
            self.same_kind(&format!("{place}.location"), &prefix, &mirror.location)?;
            mirrors.push(mirror);
        }
        Ok(Route {
            said_by: format!("{} ({place}, prefix {prefix})", self.path.display()),
            location: (!location.is_empty() && location != prefix).then_some(location),
            prefix,
            insecure: entry.insecure,
            mirrors,
            blocked: entry.blocked,
        })
    }

    fn mirror(&mut self, place: &str, entry: &MirrorEntry, digest_only: bool) -> Result<Mirror> {
        for key in entry.rest.keys() {
            self.warn(&format!("{place}.{key}"));
        }
        let location = self.image(&format!("{place}.location"), &entry.location)?;
        if location.is_empty() || location.starts_with('*') {
            return Err(self.refuse(&format!("{place}.location"), "it is not a location"));
        }
        let pull = match (entry.pull_from_mirror.as_str(), digest_only) {
            ("", true) => MirrorPull::Digests,
            ("" | "all", false) => MirrorPull::All,
            ("digest-only", false) => MirrorPull::Digests,
            ("tag-only", false) => MirrorPull::Tags,
            (_, true) => {
                let reason = "the registry says mirror-by-digest-only already; use one of the two";
                return Err(self.refuse(&format!("{place}.pull-from-mirror"), reason));
            }
            (other, false) => {
                let reason = format!("{other:?} is not one of all, digest-only and tag-only");
                return Err(self.refuse(&format!("{place}.pull-from-mirror"), reason));
            }
        };
        Ok(Mirror { location, insecure: entry.insecure, pull })
    }

    /// A host, or the beginning of a name.
    fn name(&self, place: &str, text: &str) -> Result<String> {
        let name = text.trim_end_matches('/');
        if name.contains("://") {
            return Err(self.refuse(place, format!("{name:?} is a URL; leave out the scheme")));
        }
        let rest = name.split_once('/').map_or("", |(_, rest)| rest);
        if rest.contains([':', '@']) {
            return Err(self.refuse(place, format!("{name:?} has a tag or digest")));
        }
        let host = name.split('/').next().unwrap_or_default();
        let host = host.strip_prefix("*.").unwrap_or(host);
        let path = if rest.is_empty() { "x" } else { rest };
        if !name.is_empty()
            && let Err(error) = image::Repository::new(host, path)
        {
            return Err(self.refuse(place, error));
        }
        Ok(name.to_owned())
    }

    /// The same, or the whole name of an image with its tag or digest.
    fn image(&self, place: &str, text: &str) -> Result<String> {
        let name = text.trim_end_matches('/');
        match split(name) {
            (_, None) => self.name(place, name),
            (repository, Some(target)) => {
                let target = target.map_err(|error| self.refuse(place, error))?;
                let repository = self.name(place, repository)?;
                if repository.starts_with('*') {
                    return Err(self.refuse(place, "a prefix with a '*' ends with the host"));
                }
                Ok(format!("{repository}{}", target.suffix()))
            }
        }
    }

    /// A prefix of one image leads to one image, and content known by its digest is the same
    /// everywhere.
    fn same_kind(&self, place: &str, prefix: &str, location: &str) -> Result<()> {
        let reason = match (split(prefix).1, split(location).1) {
            (None, None) | (Some(Ok(Target::Tag(_))), Some(_)) => return Ok(()),
            (Some(Ok(asked)), Some(Ok(there))) if asked == there => return Ok(()),
            (None, Some(_)) => "it has a tag or digest, and the prefix has none",
            (Some(_), None) => "it needs a tag or digest, as the prefix has one",
            (Some(_), Some(_)) => "it needs the digest of the prefix",
        };
        Err(self.refuse(place, format!("{location:?}: {reason}")))
    }

    fn search(&mut self, key: &str, registries: Vec<String>) -> Result<()> {
        let mut search = Vec::new();
        for registry in registries {
            let name = self.name(key, &registry)?;
            if name.is_empty() || name.starts_with('*') {
                return Err(self.refuse(key, format!("{registry:?} is not a registry")));
            }
            search.push(name);
        }
        let said_by = format!("{key} of {}", self.path.display());
        self.all.short_names.search = Some((search, said_by));
        Ok(())
    }

    fn mode(&mut self, value: Value) -> Result<()> {
        let mode: String = self.get("short-name-mode", value)?;
        self.all.short_names.mode = match mode.as_str() {
            "enforcing" => Mode::Enforcing,
            "permissive" => Mode::Permissive,
            "disabled" => Mode::Disabled,
            other => {
                let reason = format!("{other:?} is not one of enforcing, permissive and disabled");
                return Err(self.refuse("short-name-mode", reason));
            }
        };
        Ok(())
    }

    fn aliases(&mut self, value: Value) -> Result<()> {
        let aliases: BTreeMap<String, String> = self.get("aliases", value)?;
        self.all.short_names.add(self.path, aliases)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(files: &[&str]) -> Result<Registries> {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> =
            (0..files.len()).map(|index| directory.path().join(format!("{index}.conf"))).collect();
        for (path, text) in paths.iter().zip(files) {
            fs::write(path, text).unwrap();
        }
        Registries::read(&paths)
    }

    const MAIN: &str = r#"
unqualified-search-registries = ["a.example", "b.example:5000"]
short-name-mode = "permissive"
credential-helpers = ["containers-auth.json", "store"]

[[registry]]
prefix = "a.example/team"
location = "in.example/mirror/"
insecure = true

[[registry.mirror]]
location = "one.example"

[[registry.mirror]]
location = "two.example/x"
insecure = true
pull-from-mirror = "tag-only"

[[registry]]
location = "b.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m.example"

[[registry]]
prefix = "*.c.example"
blocked = true

[aliases]
"app" = "a.example/team/app"
"#;

    #[test]
    fn everything_a_file_can_say() {
        let all = read(&[MAIN]).unwrap();
        assert_eq!(all.warnings, [""; 0]);
        assert_eq!(all.credential_helpers, ["containers-auth.json", "store"]);
        let [team, b, c] = &all.routes[..] else { panic!("{:?}", all.routes) };
        assert_eq!(team.prefix, "a.example/team");
        assert_eq!(team.location.as_deref(), Some("in.example/mirror"));
        assert!(team.insecure && !team.blocked && team.said_by.contains("registry[0]"));
        let pulls: Vec<_> = team.mirrors.iter().map(|m| (m.pull, m.insecure)).collect();
        assert_eq!(pulls, [(MirrorPull::All, false), (MirrorPull::Tags, true)]);
        assert_eq!((b.prefix.as_str(), &b.location), ("b.example", &None));
        assert_eq!(b.mirrors[0].pull, MirrorPull::Digests);
        assert_eq!((c.prefix.as_str(), c.blocked), ("*.c.example", true));
        assert_eq!(all.short_names.mode, Mode::Permissive);
    }

    #[test]
    fn later_files_replace_what_they_speak_of() {
        let second = r#"
short-name-mode = "disabled"
[[registry]]
location = "b.example"
blocked = true
[aliases]
"app" = ""
"tool" = "a.example/tool"
"#;
        let all = read(&[MAIN, second, ""]).unwrap();
        assert_eq!(all.routes.len(), 3);
        let b = &all.routes[1];
        assert!(b.blocked && b.mirrors.is_empty(), "{b:?}");
        assert_eq!(all.short_names.mode, Mode::Disabled);
        let search = all.short_names.search.as_ref().unwrap();
        assert_eq!(search.0, ["a.example", "b.example:5000"]);
        assert!(Registries::read(&["/nowhere/x.conf".into()]).unwrap() == Registries::default());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("a = [", "line 1: "),
            ("\n\nshort-name-mode = \"x\"", "short-name-mode: \"x\" is not one of"),
            ("[[registry]]\nblocked = true", "line 1, registry[0]: it has no location"),
            (
                "[[registry]]\nlocation='a.b'\n[[registry]]\nlocation = 'http://x'",
                "line 3, registry[1].location: \"http://x\" is a URL",
            ),
            ("[[registry]]\nlocation='a.b'\ninsecure='x'", "registry[0]: invalid type"),
            ("[[registry]]\nprefix='a.b/c:tag'\nlocation='x.y'", "needs a tag"),
            ("[[registry]]\nprefix='a.b/c'\nlocation='x.y/c:tag'", "the prefix has none"),
            ("[[registry]]\nlocation='a.b/c:-'", "registry[0].location: "),
            ("[[registry]]\nlocation='a.b/c@sha256:1'", "registry[0].location: "),
            ("[[registry]]\nprefix='*.b/c:tag'\nlocation='x.y/c:tag'", "ends with the host"),
            (
                "[[registry]]\nlocation='a.b/c:tag'\n[[registry.mirror]]\nlocation='m.d'",
                "registry[0].mirror[0].location: \"m.d\": it needs a tag",
            ),
            ("unqualified-search-registries = ['a.b/c:1']", "has a tag"),
            ("[[registry]]\nprefix='*.b/c'\nlocation='x.y'", "ends with the host"),
            ("[[registry]]\nlocation='*.b'\nprefix='c.d'", "only a prefix"),
            ("[[registry]]\nlocation='a.b'\npull-from-mirror='all'", "registry.mirror"),
            (
                "[[registry]]\nlocation='a.b'\n[[registry.mirror]]\nlocation='c.d'\npull-from-mirror='x'",
                "registry[0].mirror[0].pull-from-mirror: \"x\" is not one of",
            ),
            (
                "[[registry]]\nlocation='a.b'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='c.d'\npull-from-mirror='all'",
                "one of the two",
            ),
            ("[[registry]]\nlocation='a.b'\n[[registry.mirror]]\n", "it is not a location"),
            (
                "[[registry]]\nlocation='a.b'\n[[registry]]\nlocation='a.b'\nblocked=true",
                "another, contradicting entry",
            ),
            ("x = 1\n[registries.search]\nregistries=['x']", "version 1 of the format, and x is"),
            ("[registries.search]\nregistries='x'", "registries: invalid type"),
            ("[registries.block]\nregistries=['a.b/c:1']", "registries.block: \"a.b/c:1\" has"),
            ("[registries.insecure]\nregistries=['']", "registries.insecure: \"\" is not"),
            ("unqualified-search-registries = ['a b']", "unqualified-search-registries"),
            ("[aliases]\n'a.b/c' = 'd.e/f'", "aliases"),
            ("[aliases]\n'c' = 'f'", "aliases"),
            ("[aliases]\n'c:1' = 'd.e/f'", "aliases"),
            ("[aliases]\n'c' = 'd.e/f:1'", "aliases"),
        ] {
            let error = read(&[text]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("0.conf"), "{text}: {error}");
        }
        let unknown = "x = 1\n[[registry]]\nlocation='a.b'\nblock=true";
        let warnings = read(&[unknown]).unwrap().warnings.join("\n");
        assert!(warnings.contains("key registry[0].block ") && warnings.contains("key x "));
        let twice = "[[registry]]\nlocation='a.b'\n[[registry]]\nlocation='a.b'";
        assert_eq!(read(&[twice]).unwrap().routes.len(), 1);
    }
    #[test]
    fn version_1_says_the_same_in_lists() {
        let text = "[registries.search]\nregistries = ['a.example', 'b.example:5000']\n\
            [registries.insecure]\nregistries = ['b.example:5000', 'c.example/team']\nmore = 1\n\
            [registries.block]\nregistries = ['d.example', 'c.example/team']\n";
        let all = read(&["[[registry]]\nlocation = 'd.example'\ninsecure = true", text]).unwrap();
        let (search, said_by) = all.short_names.search.as_ref().unwrap();
        assert_eq!(search[..], ["a.example", "b.example:5000"]);
        assert!(said_by.contains("registries.search of"), "{said_by}");
        let routes = all.routes.iter().map(|r| (&r.prefix[..], r.insecure, r.blocked));
        let routes: Vec<_> = routes.collect();
        let expected = [
            ("b.example:5000", true, false),
            ("c.example/team", true, true),
            ("d.example", false, true),
        ];
        assert_eq!(routes, expected);
        assert!(all.routes[2].said_by.contains("1.conf (registries.block, d.example)"));
        assert_eq!(all.warnings.len(), 1);
        assert!(all.warnings[0].contains("key registries.insecure.more "), "{:?}", all.warnings);
    }
}
