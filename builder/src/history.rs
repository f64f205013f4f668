//! The history of builds: a record of each, a JSON file in the directory `builds` of a store.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use task::Kind;

use crate::redact;
use crate::{BuildResult, Error, Request, Result};

/// Older records than this many go.
const KEPT: usize = 100;
/// Characters of an id.
const ID: usize = 25;

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildStatus {
    /// It has not.
    Running,
    /// With an image.
    Completed,
    /// By its user.
    Canceled,
    /// With an error.
    Error,
}

impl BuildStatus {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            BuildStatus::Running => "running",
            BuildStatus::Completed => "completed",
            BuildStatus::Canceled => "canceled",
            BuildStatus::Error => "error",
        }
    }

    /// Of a build that failed.
    pub fn of_failure(kind: Kind) -> BuildStatus {
        if kind == Kind::Cancelled { BuildStatus::Canceled } else { BuildStatus::Error }
    }
}

/// What is kept of a build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BuildRecord {
    /// 25 hexadecimal digits.
    pub id: String,
    /// When it began: RFC 3339.
    pub started: String,
    /// How long it took, in milliseconds.
    #[serde(rename = "duration")]
    pub milliseconds: u64,
    /// How it ended.
    pub status: BuildStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// The build context as it was given.
    pub context: String,
    /// The Dockerfile as it was given.
    pub dockerfile: Option<String>,
    /// The target stage, if one was named.
    pub target: Option<String>,
    /// Names of the image.
    pub names: Vec<String>,
    /// Its id.
    pub image: Option<String>,
    /// Digest of the manifest or index.
    pub digest: Option<String>,
    /// How many steps there were.
    pub steps: usize,
    /// How many of them came from the cache.
    pub cached: usize,
    /// How many warnings there were.
    pub warnings: usize,
}

impl BuildRecord {
    /// How long the build took.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

/// A build that runs.
#[derive(Debug)]
pub struct RunningBuild {
    record: BuildRecord,
    /// Texts that the record must not show.
    secrets: Vec<String>,
    start: Instant,
}

impl RunningBuild {
    /// Begins a record; `now` is the time.
    pub fn begin(
        context: &str,
        dockerfile: Option<&str>,
        target: Option<&str>,
        now: SystemTime,
    ) -> RunningBuild {
        let record = BuildRecord {
            id: task::random_id()[..ID].to_owned(),
            started: Timestamp::try_from(now).unwrap_or_default().to_string(),
            milliseconds: 0,
            status: BuildStatus::Running,
            error: None,
            context: context.to_owned(),
            dockerfile: dockerfile.map(str::to_owned),
            target: target.map(str::to_owned),
            names: Vec::new(),
            image: None,
            digest: None,
            steps: 0,
            cached: 0,
            warnings: 0,
        };
        RunningBuild { record, secrets: Vec::new(), start: Instant::now() }
    }

    /// Keeps the secrets of a request out of the record.
    pub fn hide_secrets_of(&mut self, request: &Request) {
        self.secrets = crate::secret::values(request);
    }

    /// Notes what was built.
    pub fn built(&mut self, result: &BuildResult) {
        let record = &mut self.record;
        record.names.clone_from(&result.names);
        record.image = result.id.map(|id| id.to_string());
        record.digest = result.manifest.as_ref().map(|manifest| manifest.digest.to_string());
        (record.steps, record.cached) = (result.steps, result.cached);
        record.warnings = result.warnings.len();
    }

    /// The whole record of a build that has ended, with why it failed.
    pub fn end(self, status: BuildStatus, error: Option<&str>) -> BuildRecord {
        let RunningBuild { mut record, secrets, start } = self;
        record.milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        record.context = redact::kept(&record.context, &secrets);
        let plain = |text: &str| redact::kept(text, &secrets);
        record.dockerfile = record.dockerfile.as_deref().map(plain);
        (record.status, record.error) = (status, error.map(plain));
        record
    }
}

/// The records beside a store.
#[derive(Debug, Clone)]
pub struct History {
    store: PathBuf,
}

impl History {
    /// Those of the store in this directory, whether or not there is one.
    pub fn new(store: impl Into<PathBuf>) -> History {
        History { store: store.into() }
    }

    fn directory(&self) -> PathBuf {
        self.store.join("builds")
    }

    fn file(&self, id: &str) -> PathBuf {
        self.directory().join(format!("{id}.json"))
    }

    /// Keeps a record, and removes the oldest ones beyond a hundred. A store is not made for its
    /// records: what failed before there was one is not kept.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, record: &BuildRecord) -> Result<()> {
        if !self.store.join("store.json").exists() {
            return Ok(());
        }
        let directory = self.directory();
        std::fs::create_dir_all(&directory).map_err(Error::file("making", &directory))?;
        let file = self.file(&record.id);
        let text = serde_json::to_vec(record).map_err(Error::document(&file))?;
        let began: Timestamp = record.started.parse().unwrap_or_default();
        write(&directory.join(format!(".{}", record.id)), &file, &text, began.into())?;
        self.forget();
        Ok(())
    }

    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.directory()) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
    }

    /// Removes the oldest records beyond a hundred, by the time of their files: this is done after
    /// each build, and reading all of them takes longer than many a build.
    fn forget(&self) {
        let files = self.files();
        let Some(over) = files.len().checked_sub(KEPT + 1) else { return };
        let time = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
        let mut files: Vec<_> = files.into_iter().map(|path| (time(&path), path)).collect();
        files.sort();
        for (_, old) in &files[..=over] {
            let _ = std::fs::remove_file(old);
        }
    }

    /// All records, the newest first. What cannot be read is none.
    pub fn list(&self) -> Vec<BuildRecord> {
        let read = |path| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
        let mut records: Vec<BuildRecord> = self.files().into_iter().filter_map(read).collect();
        records.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.id.cmp(&b.id)));
        records
    }

    /// The record whose id begins so.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(&self, id: &str) -> Result<BuildRecord> {
        let mut found = self.list().into_iter().filter(|record| record.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(Error::NotThere { what: "build", name: id.to_owned() }),
            (Some(_), Some(_)) => Err(Error::Ambiguous { what: "builds", prefix: id.to_owned() }),
        }
    }

    /// Removes a record.
    ///
    /// # Errors
    /// It is gone, or cannot be removed.
    pub fn remove(&self, record: &BuildRecord) -> Result<()> {
        let file = self.file(&record.id);
        std::fs::remove_file(&file).map_err(Error::file("removing", &file))
    }
}

/// Writes a file whose time is when the build began, through a hidden one beside it.
fn write(new: &Path, file: &Path, bytes: &[u8], began: SystemTime) -> Result<()> {
    let written = || {
        std::fs::write(new, bytes)?;
        std::fs::File::options().write(true).open(new)?.set_modified(began)?;
        std::fs::rename(new, file)
    };
    written().map_err(|error| {
        let _ = std::fs::remove_file(new);
        Error::file("writing", file)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(history: &History, second: u64) -> BuildRecord {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let running = RunningBuild::begin(".", Some("Dockerfile"), None, now);
        let record = running.end(BuildStatus::of_failure(Kind::Invalid), Some("why"));
        history.keep(&record).unwrap();
        record
    }

    #[test]
    fn the_newest_records_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::new(directory.path());
        record(&history, 1);
        assert!(history.list().is_empty() && !directory.path().join("builds").exists());
        std::fs::write(directory.path().join("store.json"), "{}").unwrap();
        let old = record(&history, 1);
        assert_eq!(history.find(&old.id[..8]).unwrap().error.as_deref(), Some("why"));
        let new: Vec<_> = (2..KEPT as u64 + 2).map(|second| record(&history, second).id).collect();
        let kept: Vec<_> = history.list().into_iter().rev().map(|record| record.id).collect();
        assert_eq!(kept, new);
        assert!(matches!(history.find(&old.id), Err(Error::NotThere { .. })));
        assert!(matches!(history.find(""), Err(Error::Ambiguous { .. })));
        let last = history.find(&new[KEPT - 1]).unwrap();
        history.remove(&last).unwrap();
        assert_eq!(history.list().len(), KEPT - 1);
    }
}
