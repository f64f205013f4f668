//! Files of images and of other working containers, mounted into one command.

use std::sync::Arc;

use runtime::Mount;
use task::Task;

use super::files::tree;
use super::{Source, WorkingContainer};
use crate::plan::path::clean;
use crate::step::mounts::Mounts;
use crate::{Env, Pull, Result, ids};

/// A mount of files of an image or of another working container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFrom {
    /// The container, or else the image.
    pub from: String,
    /// The path in it; empty for all of it.
    pub source: String,
    /// Where the command sees it.
    pub target: String,
    /// Whether the command may write to it; what it writes is dropped.
    pub writable: bool,
}

/// Keeps the mounts of a command until this is dropped.
pub struct MountGuard<'a>(Mounts<'a>);

impl MountGuard<'_> {
    /// The mounts.
    pub fn list(&self) -> &[Mount] {
        &self.0.list
    }
}

/// Mounts files of images and of other containers.
///
/// # Errors
/// There is no such image or path; it cannot be mounted.
pub async fn lend<'a>(
    working: &WorkingContainer,
    wanted: &[MountFrom],
    pull: Pull,
    env: &'a Env,
    task: &'a Arc<Task>,
) -> Result<MountGuard<'a>> {
    let mut mounts = Mounts::new(&env.store, task)?;
    let mut isolation = working.state.spec.isolation.clone();
    ids::resolve(&mut isolation)?;
    mounts.ids = ids::map(&isolation)?;
    for one in wanted {
        let source = match WorkingContainer::find(&env.store, &one.from)? {
            Some(_) => Source::Container(one.from.clone()),
            None => Source::Image(one.from.clone(), pull),
        };
        let tree = tree(working, &source, env, task).await?;
        mounts.lend(&tree, &clean("/", &one.source)[1..], &one.target, one.writable)?;
    }
    Ok(MountGuard(mounts))
}
