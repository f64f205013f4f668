use std::path::Path;

use layers::Root;

use crate::Result;
use crate::error::During;
use crate::plan::WorkdirOp;
use crate::users;

/// Makes a working directory, owned by the user that is in force.
pub(crate) fn work(op: &WorkdirOp, root: &Root) -> Result<()> {
    let owner = match op.user.as_str() {
        "" => (0, 0),
        user => users::owner(root, user)?,
    };
    root.create_dir_all(Path::new(&op.path), 0o755, Some(owner))
        .during(format!("making {}", op.path))
}
