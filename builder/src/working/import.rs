//! An archive of a root file system becomes an image.

use std::sync::Arc;

use image::{Image, Platform};
use task::Task;

use super::{Commit, Files, GitAccess, Source, Wish, commit, copy, create};
use crate::context::{archive, http};
use crate::error::During;
use crate::random::random_id;
use crate::sources::DOWNLOAD_LIMIT;
use crate::{Env, Error, Pull, Result};

/// What to make an image of.
#[derive(Debug, Clone)]
pub struct Import {
    /// An archive on this machine by its absolute path, or a URL; it may be compressed.
    pub source: String,
    /// What history and messages call the source.
    pub name: String,
    /// What the image is for.
    pub platform: Platform,
    /// The comment in the history of the one layer; `None`: where it was imported from.
    pub comment: Option<String>,
}

/// Makes an image with one layer, the files of an archive, and keeps it in the store.
///
/// # Errors
/// The source cannot be read or is not an archive; a change of `wish` cannot be made.
pub async fn import(import: &Import, wish: &Commit, env: &Env, task: &Arc<Task>) -> Result<Image> {
    check(import, env, task).await?;
    let scratch = Wish {
        image: "scratch".to_owned(),
        id: random_id()?,
        name: None,
        platform: import.platform.clone(),
        pull: Pull::Never,
        docker: wish.docker.unwrap_or(false),
        spec: runtime::ContainerSpec::default(),
    };
    let mut working = create(&scratch, env, task).await?;
    let comment = import.comment.clone();
    let comment = comment.or_else(|| Some(format!("imported from {}", import.name)));
    let made = async {
        let files = Files {
            add: true,
            source: Source::Host,
            paths: vec![import.source.clone()],
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            parents: false,
            checksum: None,
            git: GitAccess::default(),
            link: false,
            unpack: Some(true),
            timestamp: None,
            history: false,
        };
        copy(&mut working, &files, env, task).await?;
        working.state.created_by = Some(format!("import {}", import.name));
        working.state.history_comment = comment;
        let _lease = env.store.lease().during("keeping the image")?;
        commit(&working, wish, env, task)
    }
    .await;
    working.remove()?;
    made
}

/// Refuses what is not an archive before anything is made.
async fn check(import: &Import, env: &Env, task: &Arc<Task>) -> Result<()> {
    let source = &import.source;
    let file = if source.starts_with("http://") || source.starts_with("https://") {
        let file = http::download(&env.store, source, &[], None, DOWNLOAD_LIMIT, task).await?;
        env.store.open_blob(file.digest).during(format!("reading {}", import.name))?
    } else {
        std::fs::File::open(source).map_err(Error::file("reading", source))?
    };
    let regular = file.metadata().is_ok_and(|about| about.is_file());
    match regular && archive::holds(file) {
        true => Ok(()),
        false => Err(Error::malformed(&import.name, "it is not an archive".to_owned())),
    }
}
