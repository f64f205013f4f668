use std::path::Path;

use layers::Root;
use task::Task;

use crate::error::ErrorContext;
use crate::plan::WorkdirOp;
use crate::{Error, Result, users};

/// Makes a working directory, owned by the user that is in force.
/// A user that the image does not know yet makes it root's.
pub(crate) fn work(op: &WorkdirOp, root: &Root, task: &Task) -> Result<()> {
    let owner = match op.user.as_str() {
        "" => (0, 0),
        user => match users::owner(root, user) {
            Err(Error::User(why)) => {
                task.warn(format!("{} belongs to root: {why}", op.path));
                (0, 0)
            }
            owner => owner?,
        },
    };
    root.create_dir_all(Path::new(&op.path), 0o755, Some(owner))
        .during(format!("making {}", op.path))
}
