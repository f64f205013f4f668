//! Variables in words: `$v`, `${v:-w}` and its relatives, quotes, escapes, word splitting.
//!
//! Rules of the POSIX shell (XCU 2.2 and 2.6.2) and of bash's `${v/p/r}`, as far as Docker has them.

mod pattern;
mod walk;

use crate::diagnostic::Diagnostic;
use crate::span::Word;
use walk::{WalkOptions, Walker};

/// Gives the value of a variable, `None` when it is not set.
pub type Scope<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The longest text an expansion may produce, in bytes.
pub const MAX_EXPANSION: usize = 1 << 20;

/// An expanded word, and the variables it asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The text.
    pub text: String,
    /// Names that were set, in order of first use.
    pub used: Vec<String>,
    /// Names that were not set, in order of first use, whether or not a default stood in.
    pub undefined: Vec<String>,
    /// Those of `undefined` that were used plainly, so that nothing stood in for them: the author
    /// expected them to be set.
    pub missing: Vec<String>,
}

/// Expands a word to one text: variables replaced, quotes and escapes taken out. Blanks in values
/// do not split it.
pub fn expand(word: &Word, scope: Scope<'_>) -> Result<String, Diagnostic> {
    expand_tracked(word, scope).map(|expansion| expansion.text)
}

/// Like [`expand`], and tells which variables were asked for.
pub fn expand_tracked(word: &Word, scope: Scope<'_>) -> Result<Expansion, Diagnostic> {
    Walker::new(word, scope, WalkOptions::default()).run().map(|(expansion, _)| expansion)
}

/// Expands a word and splits the result at unquoted blanks, as `EXPOSE` does.
pub fn expand_list(word: &Word, scope: Scope<'_>) -> Result<Vec<String>, Diagnostic> {
    Walker::new(word, scope, WalkOptions::default()).run().map(|(_, words)| words)
}

/// Expands variables in the content of a here-document: quotes are ordinary characters.
pub fn expand_content(word: &Word, scope: Scope<'_>) -> Result<String, Diagnostic> {
    let options = WalkOptions { literal_quotes: true, ..WalkOptions::default() };
    Walker::new(word, scope, options).run().map(|(expansion, _)| expansion.text)
}

/// Expands only the variables that are set and leaves the others, quotes and all, as they are.
pub fn expand_known(word: &Word, scope: Scope<'_>) -> Result<String, Diagnostic> {
    let options = WalkOptions { keep_quotes: true, keep_unset: true, ..WalkOptions::default() };
    Walker::new(word, scope, options).run().map(|(expansion, _)| expansion.text)
}

/// Splits a line into words at unquoted blanks, quotes and escapes kept, no variable replaced.
pub(crate) fn split_raw(word: &Word) -> Vec<String> {
    let options = WalkOptions {
        keep_quotes: true,
        keep_escapes: true,
        keep_unset: true,
        literal_quotes: false,
    };
    Walker::new(word, &|_| None, options).run().map(|(_, words)| words).unwrap_or_default()
}

/// A word without its quotes and escapes, its variables untouched.
pub(crate) fn unquote(word: &Word) -> Option<Vec<String>> {
    let options = WalkOptions { keep_unset: true, ..WalkOptions::default() };
    Walker::new(word, &|_| None, options).run().map(|(_, words)| words).ok()
}

/// Like [`unquote`], but the quotes stay.
pub(crate) fn requote(word: &Word) -> Option<String> {
    let options = WalkOptions { keep_quotes: true, keep_unset: true, ..WalkOptions::default() };
    Walker::new(word, &|_| None, options).run().map(|(expansion, _)| expansion.text).ok()
}

#[cfg(test)]
mod tests;
