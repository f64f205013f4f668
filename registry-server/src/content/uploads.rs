//! Whose an upload is.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Content, json};
use crate::keys;
use crate::storage::WriteCondition;

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    repository: String,
}

/// The directory of an upload's objects.
pub(crate) fn directory(session: &str) -> String {
    format!("{}{session}/", keys::UPLOADS)
}

fn key(session: &str) -> String {
    format!("{}session", directory(session))
}

/// Begins an upload.
pub(crate) async fn open(content: &Content, session: &str, repository: &str) -> io::Result<()> {
    let document = json(&Session { repository: repository.to_owned() })?;
    content.storage.put(&key(session), document, WriteCondition::Always).await.map(drop)
}

/// The repository an upload is for, if there is such an upload.
pub(crate) async fn repository(content: &Content, session: &str) -> io::Result<Option<String>> {
    let session = content.document::<Session>(&key(session)).await?;
    Ok(session.map(|session| session.repository))
}
