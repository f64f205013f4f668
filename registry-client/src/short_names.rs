//! Names without a registry: aliases, and the registries that are searched.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use image::{Reference, Repository};
use toml::Value;

use crate::registries::{table, text};
use crate::{Error, Result};

/// What names without a registry mean (registries.conf, and the aliases people chose before).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShortNames {
    /// What happens to names that have no alias.
    pub mode: Mode,
    /// The registries searched and the file that configures them; `None` means Docker Hub only, as
    /// in Docker.
    pub search: Option<(Vec<String>, String)>,
    /// Alias to repository; `None` takes an alias of an earlier file back.
    aliases: BTreeMap<String, Option<Repository>>,
}

/// `short-name-mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Several registries: the user has to choose.
    Enforcing,
    /// As enforcing; without a terminal, all are tried in order. The default, as in
    /// containers/image.
    #[default]
    Permissive,
    /// All are tried in order.
    Disabled,
}

/// The images that a name can stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameResolution {
    /// This image.
    One(Reference),
    /// The first of these that there is.
    First(Vec<Reference>),
    /// The choice of the user; without a terminal the first that exists, or (`enforced`) none.
    Choice {
        /// The possible images.
        images: Vec<Reference>,
        /// Whether nothing may be tried without a choice.
        enforced: bool,
    },
}

impl ShortNames {
    /// Takes aliases of a file in; an empty value takes one back.
    pub(crate) fn add(&mut self, path: &Path, aliases: BTreeMap<String, String>) -> Result<()> {
        for (alias, value) in aliases {
            let refuse = |reason: String| Error::Registries {
                path: path.to_owned(),
                reason: format!("aliases.{alias:?}: {reason}"),
            };
            let plain = |text: &str| !text.contains([':', '@']);
            let named = Repository::new("localhost", &alias);
            if !plain(&alias) || Reference::has_registry(&alias) || named.is_err() {
                return Err(refuse("an alias is a name without registry, tag and digest".into()));
            }
            let meaning = match value.as_str() {
                "" => None,
                name => {
                    let last = name.rsplit('/').next().unwrap_or_default();
                    if !Reference::has_registry(name) || !plain(last) {
                        let reason =
                            "is not a repository with its registry and without tag and digest";
                        return Err(refuse(format!("{name:?} {reason}")));
                    }
                    let read = name.parse::<Reference>();
                    Some(read.map_err(|error| refuse(error.to_string()))?.repository)
                }
            };
            self.aliases.insert(alias, meaning);
        }
        Ok(())
    }

    /// Takes in the aliases people chose before (`short-name-aliases.conf`), which win.
    ///
    /// # Errors
    /// [`Error::Registries`], [`Error::File`].
    pub fn with_chosen(mut self, path: &Path) -> Result<ShortNames> {
        if let Some(text) = text(path)? {
            self.add(path, chosen(path, &text)?)?;
        }
        Ok(self)
    }

    /// What a name means. One that has a registry means itself.
    ///
    /// # Errors
    /// [`Error::ShortName`] if no registry is searched; [`Error::Configuration`] for an invalid
    /// name.
    pub fn meaning(&self, text: &str) -> Result<NameResolution> {
        let parse = |default: &str| {
            let (host, path) = default.split_once('/').unwrap_or((default, ""));
            let text = if path.is_empty() { text.to_owned() } else { format!("{path}/{text}") };
            Reference::parse_with(&text, host).map(Reference::or_latest).map_err(|error| {
                let action = format!("reading the image name {text:?}");
                Error::Configuration { action, reason: error.to_string() }
            })
        };
        if Reference::has_registry(text) {
            return Ok(NameResolution::One(parse("docker.io")?));
        }
        // Checks the grammar, and takes the name apart.
        let local = parse("localhost")?;
        if let Some(Some(repository)) = self.aliases.get(local.repository.path()) {
            return Ok(NameResolution::One(Reference { repository: repository.clone(), ..local }));
        }
        let Some((search, said_by)) = &self.search else {
            return Ok(NameResolution::One(parse("docker.io")?));
        };
        let images = search.iter().map(|registry| parse(registry)).collect::<Result<Vec<_>>>()?;
        match (self.mode, &images[..]) {
            (_, []) => Err(Error::ShortName {
                name: text.to_owned(),
                reason: format!("it has no alias, and {said_by} names none"),
            }),
            (_, [one]) => Ok(NameResolution::One(one.clone())),
            (Mode::Disabled, _) => Ok(NameResolution::First(images)),
            (mode, _) => Ok(NameResolution::Choice { images, enforced: mode == Mode::Enforcing }),
        }
    }

    /// Warns a user who could not be asked.
    pub fn unclear(&self, text: &str, images: &[Reference]) -> Error {
        let images: Vec<_> = images.iter().map(ToString::to_string).collect();
        let (_, said_by) = self.search.as_ref().cloned().unwrap_or_default();
        Error::ShortName {
            name: text.to_owned(),
            reason: format!(
                "it could be {} by {said_by}, short-name-mode is enforcing, and there is no terminal to ask at",
                images.join(" or ")
            ),
        }
    }
}

/// Stores the user's choice for a short name in `path`.
///
/// # Errors
/// [`Error::Registries`], [`Error::File`].
pub fn remember(path: &Path, short: &str, chosen_image: &Reference) -> Result<()> {
    let mut aliases = match text(path)? {
        Some(text) => chosen(path, &text)?,
        None => BTreeMap::new(),
    };
    let short =
        Reference::parse_with(short, "localhost").map_err(|error| Error::Configuration {
            action: format!("remembering the short name {short:?}"),
            reason: error.to_string(),
        })?;
    aliases.insert(short.repository.path().to_owned(), chosen_image.repository.to_string());
    let entries: toml::Table =
        aliases.into_iter().map(|(alias, name)| (alias, Value::String(name))).collect();
    let text = toml::Table::from_iter([("aliases".to_owned(), Value::Table(entries))]).to_string();
    let temporary = path.with_extension(format!("conf.{}", std::process::id()));
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let _ = fs::remove_file(&temporary);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::File { action: "remembering a short name in", path: path.to_owned(), source }
    })
}

fn chosen(path: &Path, text: &str) -> Result<BTreeMap<String, String>> {
    let refuse = |reason: String| Error::Registries { path: path.to_owned(), reason };
    match table(path, text)?.remove("aliases") {
        None => Ok(BTreeMap::new()),
        Some(aliases) => aliases
            .try_into()
            .map_err(|error: toml::de::Error| refuse(format!("aliases: {}", error.message()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(search: Option<&[&str]>, mode: Mode) -> ShortNames {
        let search = search.map(|list| {
            (list.iter().map(|name| (*name).to_owned()).collect(), "x of y.conf".to_owned())
        });
        let mut names = ShortNames { mode, search, ..ShortNames::default() };
        let alias = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let aliases = [alias("tool", "r.example/x/tool"), alias("team/app", "r.example/app")];
        names.add(Path::new("y.conf"), aliases.into()).unwrap();
        names
    }

    fn told(resolution: NameResolution) -> String {
        let list = |images: Vec<Reference>| {
            images.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        match resolution {
            NameResolution::One(image) => image.to_string(),
            NameResolution::First(images) => format!("first {}", list(images)),
            NameResolution::Choice { images, enforced } => {
                format!("choice {enforced} {}", list(images))
            }
        }
    }

    #[test]
    fn what_names_mean() {
        let two = Some(&["docker.io", "r.example/lib"][..]);
        let both = "docker.io/library/a:latest r.example/lib/a:latest";
        for (search, mode, name, expected) in [
            (None, Mode::Enforcing, "a", "docker.io/library/a:latest".to_owned()),
            (two, Mode::Enforcing, "tool:2", "r.example/x/tool:2".to_owned()),
            (two, Mode::Enforcing, "team/app", "r.example/app:latest".to_owned()),
            (two, Mode::Enforcing, "q.example/tool", "q.example/tool:latest".to_owned()),
            (two, Mode::Enforcing, "localhost/a", "localhost/a:latest".to_owned()),
            (two, Mode::Enforcing, "a", format!("choice true {both}")),
            (two, Mode::Permissive, "a", format!("choice false {both}")),
            (two, Mode::Disabled, "a", format!("first {both}")),
            (Some(&["r.example"]), Mode::Enforcing, "a:1", "r.example/a:1".to_owned()),
        ] {
            assert_eq!(told(names(search, mode).meaning(name).unwrap()), expected);
        }
        let error = names(Some(&[]), Mode::Disabled).meaning("a").unwrap_err();
        assert!(error.to_string().contains("y.conf names none"), "{error}");
        assert!(names(None, Mode::Disabled).meaning("A b").is_err());
    }

    #[test]
    fn choices_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/short-name-aliases.conf");
        let choose = |short: &str, image: &str| remember(&path, short, &image.parse().unwrap());
        choose("a:1", "r.example/b/a:1").unwrap();
        choose("tool", "q.example/tool").unwrap();
        choose("a", "r.example/c/a").unwrap();
        let names = names(Some(&[]), Mode::Enforcing).with_chosen(&path).unwrap();
        assert_eq!(told(names.meaning("a:2").unwrap()), "r.example/c/a:2");
        assert_eq!(told(names.meaning("tool").unwrap()), "q.example/tool:latest");
        fs::write(&path, "[aliases]\ntool = \"\"\n").unwrap();
        assert!(names.clone().with_chosen(&path).unwrap().meaning("tool").is_err());
        fs::write(&path, "[aliases]\ntool = 7\n").unwrap();
        assert!(names.with_chosen(&path).is_err());
    }
}
