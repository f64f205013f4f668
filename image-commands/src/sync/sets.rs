//! From the command line or a list to the sets of a mirror.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use app::App;
use image::{Reference, Repository, Tag};
use options::environment::read_bounded;
use options::{Failure, Reach, environment};
use registry_client::Client;
use task::Kind;
use transport::sync::{
    ListedRegistry, ListedRepository, MAX_LIST, MirrorDestination, MirrorSource, MirroredDirectory,
    Set, Tags, directories, read_list, regex,
};
use transport::{CopyOptions, Location, Select};

use super::{FromTransport, Sync, ToTransport};

/// The sets that the flags ask for.
///
/// # Errors
/// Flags that contradict each other; names that are none; a list that cannot be read.
pub(super) fn of(sync: &Sync, app: &App) -> Result<Vec<Set>, Failure> {
    let maker = Maker::new(sync, app)?;
    let chosen = sync.choice.tag_regex.is_some() || sync.choice.tag_semver.is_some();
    if chosen && sync.src != FromTransport::Docker {
        return Err(Failure::usage("--tag-regex and --tag-semver are for --src docker")
            .hint("a list has images-by-tag-regex and images-by-semver"));
    }
    if sync.delete.delete && (sync.dest != ToTransport::Docker || sync.src == FromTransport::Dir) {
        return Err(Failure::usage("--delete works between registries only"));
    }
    match sync.src {
        FromTransport::Docker => maker.repository(),
        FromTransport::Dir => maker.directories(),
        FromTransport::Yaml => maker.list(),
    }
}

struct Maker<'a> {
    sync: &'a Sync,
    app: &'a App,
    destination: Client,
    /// The registry and path below which images go, or the directory.
    below: String,
    immutable: Option<regex::Regex>,
}

impl<'a> Maker<'a> {
    fn new(sync: &'a Sync, app: &'a App) -> Result<Maker<'a>, Failure> {
        let below = match sync.dest {
            ToTransport::Docker => sync.destination.trim_end_matches('/').to_owned(),
            ToTransport::Dir | ToTransport::Oci => {
                environment::absolute(Path::new(&sync.destination))?.display().to_string()
            }
        };
        let suffix = &sync.choice.append_suffix;
        if !suffix.is_empty() && format!("x{suffix}").parse::<Tag>().is_err() {
            return Err(Failure::usage(format!(
                "--append-suffix {suffix:?}: it cannot be part of a tag"
            )));
        }
        let destination = app.client(&sync.destination_end.reach(&sync.retry)?)?;
        let immutable = sync.choice.immutable_tags.as_deref().map(regex).transpose()?;
        Ok(Maker { sync, app, destination, below, immutable })
    }

    fn repository(&self) -> Result<Vec<Set>, Failure> {
        let text = self.sync.source.strip_prefix("docker://").unwrap_or(&self.sync.source);
        let reference: Reference = text.parse()?;
        let choice = &self.sync.choice;
        let (tags, digests) = match (&reference.tag, reference.digest) {
            (_, Some(digest)) => (Tags::These(Vec::new()), vec![digest]),
            (Some(tag), None) => (Tags::These(vec![tag.to_string()]), Vec::new()),
            (None, None) => {
                let tags = match (&choice.tag_regex, &choice.tag_semver) {
                    (Some(pattern), _) => Tags::matching(pattern)?,
                    (_, Some(range)) => Tags::versions(range)?,
                    _ => Tags::All,
                };
                (tags, Vec::new())
            }
        };
        let named = reference.tag.is_some() || reference.digest.is_some();
        if named && (choice.tag_regex.is_some() || choice.tag_semver.is_some()) {
            return Err(Failure::usage(format!(
                "{text} is one image: there are no tags to choose"
            )));
        }
        let client = self.app.client(&self.sync.source_end.reach(&self.sync.retry)?)?;
        let repository = reference.repository;
        let to = self.to(&repository.to_string())?;
        let from = MirrorSource::Repository { client, repository, tags, digests };
        Ok(vec![self.set(from, to)])
    }

    fn list(&self) -> Result<Vec<Set>, Failure> {
        let mut sets = Vec::new();
        for (host, mut registry) in self.read()? {
            let reach = self.sync.source_end.reach(&self.sync.retry)?;
            let client = self.app.client(&Reach {
                tls_verify: registry.tls_verify.or(reach.tls_verify),
                credential: registry.credential().or(reach.credential.clone()),
                cert_dir: registry.cert_dir.clone().or(reach.cert_dir.clone()),
                ..reach
            })?;
            let immutable = registry.immutable()?;
            for listed in registry.repositories(&host)? {
                let to = self.to(&listed.repository.to_string())?;
                let ListedRepository { repository, tags, digests } = listed;
                let from =
                    MirrorSource::Repository { client: client.clone(), repository, tags, digests };
                let mut set = self.set(from, to);
                match &registry.platforms()?[..] {
                    [] => {}
                    [one] => set.copy.select = Select::One(one.clone()),
                    several => set.copy.select = Select::List(several.to_vec()),
                }
                set.missing_only = registry.missing_only.unwrap_or(set.missing_only);
                set.immutable = immutable.clone().or(set.immutable);
                sets.push(set);
            }
        }
        if sets.is_empty() {
            return Err(Failure::new(
                Kind::Invalid,
                format!("{} names no images", self.sync.source),
            ));
        }
        Ok(sets)
    }

    /// The list of a file; `-` is standard input.
    fn read(&self) -> Result<BTreeMap<String, ListedRegistry>, Failure> {
        let file = Path::new(&self.sync.source);
        let bytes = read_bounded(file, MAX_LIST)?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Failure::new(Kind::Invalid, format!("{} is not UTF-8 text", file.display()))
        })?;
        Ok(read_list(&file.display().to_string(), &text)?)
    }

    fn directories(&self) -> Result<Vec<Set>, Failure> {
        let base = environment::absolute(Path::new(&self.sync.source))?;
        let found = directories(&base)?;
        if found.is_empty() {
            let what = format!("there is no image in {}", base.display());
            return Err(Failure::new(Kind::NotFound, what)
                .hint("an image of a directory has a file manifest.json"));
        }
        let mut sets = Vec::new();
        for image in found {
            let MirroredDirectory { path, repository, name } = image;
            let to = self.to(&repository)?;
            sets.push(self.set(MirrorSource::Directory { path, name }, to));
        }
        Ok(sets)
    }

    /// Where a repository goes, by its whole name.
    fn to(&self, name: &str) -> Result<MirrorDestination, Failure> {
        let last = || name.rsplit('/').next().unwrap_or(name).to_owned();
        let behind = if self.sync.choice.scoped { name.to_owned() } else { last() };
        let whole = format!("{}/{behind}", self.below);
        match self.sync.dest {
            ToTransport::Dir => Ok(MirrorDestination::Directories(PathBuf::from(whole))),
            ToTransport::Oci if whole.contains(':') => {
                let what = format!("{whole}: no path of a layout has a colon");
                Err(Failure::usage(what).hint("leave out --scoped, or choose another directory"))
            }
            ToTransport::Oci => Ok(MirrorDestination::Layout(PathBuf::from(whole))),
            ToTransport::Docker => {
                let (registry, path) = whole.split_once('/').unwrap_or((&whole, ""));
                let repository = Repository::new(registry, path).map_err(|error| {
                    let failure =
                        Failure::from(error).context(format!("naming the copy of {name}"));
                    match self.sync.choice.scoped && name.contains(':') {
                        true => failure.hint(
                            "a registry with a port cannot be part of a path: leave out --scoped",
                        ),
                        false => failure,
                    }
                })?;
                Ok(MirrorDestination::Repository { client: self.destination.clone(), repository })
            }
        }
    }

    fn set(&self, from: MirrorSource, to: MirrorDestination) -> Set {
        let place = |text: String| text.parse::<Location>().ok();
        let (here, there) = (place(from.to_string()), place(to.to_string()));
        let mut copy = match (here, there) {
            (Some(from), Some(to)) => self.sync.what.options(&self.app.conf.settings, &from, &to),
            _ => CopyOptions::default(),
        };
        copy.attempts = self.sync.retry.attempts();
        copy.tell_left = self.sync.dest == ToTransport::Dir && self.sync.what.tells_left();
        // Several images are under way at a time.
        copy.concurrency = 4;
        let all = matches!(&from, MirrorSource::Repository { tags: Tags::All, .. });
        // They are in the list themselves.
        copy.digest_tags &= !all;
        Set {
            from,
            to,
            copy,
            suffix: self.sync.choice.append_suffix.clone(),
            missing_only: self.sync.choice.missing_only,
            immutable: self.immutable.clone(),
        }
    }
}
