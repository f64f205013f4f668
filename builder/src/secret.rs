//! Secrets: known by name, read when a step asks for them, kept nowhere.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Request, Result};

/// No secret larger than this is read.
pub(crate) const SECRET_LIMIT: u64 = 1 << 20;

/// What `--secret` gives.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// The contents of a file; an absolute path, read when a step asks for it.
    File(PathBuf),
    /// These bytes; never written down.
    #[serde(skip)]
    Value(Vec<u8>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::File(path) => f.debug_tuple("File").field(path).finish(),
            Secret::Value(_) => f.write_str("Value(…)"),
        }
    }
}

/// The secrets of a request that are texts, as far as they can be read now.
pub(crate) fn values(request: &Request) -> Vec<String> {
    let text = |(id, secret): (&String, &Secret)| {
        // A step that needs it says what is wrong with it.
        let value = String::from_utf8(reveal(id, secret).ok()?).ok()?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    request.secrets.iter().filter_map(text).collect()
}

/// What a secret is.
pub(crate) fn reveal(id: &str, secret: &Secret) -> Result<Vec<u8>> {
    match secret {
        Secret::Value(value) => Ok(value.clone()),
        Secret::File(path) => {
            let mut content = Vec::new();
            fs::File::open(path)
                .and_then(|file| file.take(SECRET_LIMIT + 1).read_to_end(&mut content))
                .map_err(Error::file("reading secret", path))?;
            if content.len() as u64 > SECRET_LIMIT {
                return Err(Error::Exceeds { what: format!("secret {id:?}"), limit: "1 MiB" });
            }
            Ok(content)
        }
    }
}
