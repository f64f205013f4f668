//! The files a step reads, each as one short line of its facts.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// More files than this are not listed one by one.
pub(crate) const MOST_FILES: usize = 25_000;

/// One file that a step reads from a build context, as its key sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileFact {
    /// Relative to the context.
    pub(crate) path: String,
    /// Kind and permission bits.
    pub(crate) mode: u32,
    /// Owner and group, where they matter.
    pub(crate) owner: Option<(u32, u32)>,
    /// A mark of the content, of where a link points, and of attributes.
    pub(crate) content: u32,
}

impl Serialize for FileFact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.owner {
            None => (&self.path, self.mode, self.content).serialize(serializer),
            Some((user, group)) => {
                (&self.path, self.mode, self.content, user, group).serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for FileFact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FileFact, D::Error> {
        struct Line;
        impl<'de> Visitor<'de> for Line {
            type Value = FileFact;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of path, mode, mark and perhaps owner and group")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FileFact, A::Error> {
                let missing = || serde::de::Error::invalid_length(0, &self);
                let path = seq.next_element()?.ok_or_else(missing)?;
                let mode = seq.next_element()?.ok_or_else(missing)?;
                let content = seq.next_element()?.ok_or_else(missing)?;
                let user: Option<u32> = seq.next_element()?;
                let group: Option<u32> = seq.next_element()?;
                Ok(FileFact { path, mode, content, owner: user.zip(group) })
            }
        }
        deserializer.deserialize_seq(Line)
    }
}
