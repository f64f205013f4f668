use serde::{Deserialize, Serialize};

/// A text and the name it is called by in messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// What messages call it: the path as the user gave it, `-` for standard input.
    pub name: String,
    /// The text.
    pub text: String,
}
