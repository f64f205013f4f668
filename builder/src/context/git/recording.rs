//! Commits in a recording: all files of each, as an archive.

use std::fs::File;
use std::io::Seek;
use std::path::Path;

use layers::{ApplyOptions, DiffOptions, Whiteouts};
use recorder::{Exchange, Recorder};
use store::Store;
use task::Task;

use super::{CheckoutRecord, Commit, SPACE, Surroundings};
use crate::context::http::{http_date, parse_date};
use crate::error::ErrorContext;
use crate::{Error, Result};

/// What a recording calls the step and the method of a commit.
const STEP: &str = "repository";
const METHOD: &str = "GIT";
const TIME: &str = "last-modified";

impl Commit {
    /// What a recording calls it, with what decides its files.
    fn address(&self) -> String {
        let kept = if self.keep_git_dir { "+git-dir" } else { "" };
        let submodules = if self.url.submodules { "+submodules" } else { "" };
        format!("git://{}@{}{kept}{submodules}", self.url.place, self.name)
    }

    /// Adds its files to a recording.
    pub(crate) fn record(
        &self,
        with: &Surroundings,
        store: &Store,
        recorder: &Recorder,
        task: &Task,
    ) -> Result<()> {
        let action = || format!("recording {}", self.url);
        let (root, time) = self.files(with, store, task)?;
        let active = store.begin().during(action())?;
        let path = active.dir().join("archive");
        let mut archive = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::file("making", &path))?;
        // The times of a checkout are not part of the commit.
        let options =
            DiffOptions { clamp: Some(time), owner: Some((0, 0)), ..DiffOptions::default() };
        layers::archive(&root, Path::new(""), &mut archive, &options, task).during(action())?;
        archive.rewind().map_err(Error::file("reading", &path))?;
        let digest = recorder.contents().keep(archive).during(action())?;
        recorder.add(Exchange {
            step: STEP.to_owned(),
            method: METHOD.to_owned(),
            url: recorder.shown(&self.address()),
            sent: None,
            range: None,
            status: 200,
            digest,
            headers: http_date(time).map(|date| (TIME.to_owned(), date)).into_iter().collect(),
        });
        Ok(())
    }

    /// The commit with the files that a recording has of it, which are put into the store.
    pub(crate) fn replayed(
        self,
        store: &Store,
        recorder: &Recorder,
        task: &Task,
    ) -> Result<Commit> {
        let action = || format!("replaying {}", self.url);
        let unanswered = || Error::Unanswered {
            replayed: true,
            requests: vec![format!("{} is not recorded", self.address())],
        };
        let exchange = recorder.answer_to(STEP, METHOD, &self.address());
        let exchange = exchange.ok_or_else(unanswered)?;
        let time = exchange.headers.get(TIME).and_then(|date| parse_date(date));
        let time = time.ok_or_else(unanswered)?;
        let archive = recorder.contents().open(exchange.digest).during(action())?;
        let commit = Commit { recorded: Some(exchange.digest), ..self.clone() };
        let id = commit.snapshot();
        if !store.has_snapshot(id).during(action())? {
            let active = store.begin().during(action())?;
            let root = active.root().during(action())?;
            let options = ApplyOptions { whiteouts: Whiteouts::Literal, ..ApplyOptions::default() };
            let applied = layers::apply(task.reading(archive), &root, &options).during(action())?;
            applied.skipped.into_iter().for_each(|skipped| task.warn(skipped));
            active.commit(id, None).during(action())?;
        }
        let bytes = serde_json::to_vec(&CheckoutRecord { time }).unwrap_or_default();
        store.set_memo(SPACE, id.0.as_bytes(), &bytes).during(action())?;
        Ok(commit)
    }
}
