//! Places in the source text, and words that know theirs.

use std::fmt;

/// A range of bytes in the source text, `start` included, `end` excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset just behind the last byte.
    pub end: usize,
}

impl Span {
    /// The bytes from `start` up to, not including, `end`.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The smallest span that covers both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// Number of bytes covered.
    #[must_use]
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// True when no byte is covered.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The text covered, empty when the span does not fit the source.
    #[must_use]
    pub fn text(self, source: &str) -> &str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// A place as people write it: both numbers start at 1, columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Line number, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Finds lines and columns of byte offsets, in O(log lines).
#[derive(Clone, Debug)]
pub struct LineIndex<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    /// Indexes the line starts of `source`.
    #[must_use]
    pub fn new(source: &'a str) -> Self {
        let mut starts = vec![0];
        starts.extend(source.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1));
        if starts.len() > 1 && starts.last() == Some(&source.len()) {
            starts.pop();
        }
        Self { source, starts }
    }

    /// True when the source is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// Number of lines; an empty source has one.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.starts.len()
    }

    /// Line and column of a byte offset. Offsets past the end count as the end.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.source.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line.saturating_sub(1)];
        let mut end = offset;
        while !self.source.is_char_boundary(end) {
            end -= 1;
        }
        let before = self.source.get(start..end).unwrap_or_default().trim_end_matches('\n');
        let bom = usize::from(before.starts_with('\u{feff}'));
        Position { line, column: before.chars().count() + 1 - bom }
    }

    /// Text of line `line` (from 1) without its line ending; empty when there is no such line.
    #[must_use]
    pub fn text(&self, line: usize) -> &'a str {
        let span = self.span(line);
        span.text(self.source).trim_end_matches(['\r', '\n']).trim_start_matches('\u{feff}')
    }

    /// Length in bytes of the byte order mark the source begins with, or 0.
    pub(crate) fn bom(&self) -> usize {
        if self.source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
    }

    /// The bytes of line `line` (from 1), line ending included.
    #[must_use]
    pub fn span(&self, line: usize) -> Span {
        let Some(start) = line.checked_sub(1).and_then(|i| self.starts.get(i)) else {
            return Span::new(self.source.len(), self.source.len());
        };
        Span::new(*start, self.starts.get(line).copied().unwrap_or(self.source.len()))
    }
}

/// The character that escapes others and joins lines, set by the `escape` directive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escape {
    /// `\`, the default.
    #[default]
    Backslash,
    /// `` ` ``, for Windows paths.
    Backtick,
}

impl Escape {
    /// The character itself.
    #[must_use]
    pub fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// A piece of an instruction as it was written: quotes, escapes and variables still in it, line
/// continuations taken out. See [`expand`](crate::expand()).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Word {
    /// The text.
    pub text: String,
    /// Where it stands in the source.
    pub span: Span,
    /// The escape character in force there.
    pub escape: Escape,
}

impl Word {
    /// A word that stands nowhere, with the default escape character.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True when the word mentions a variable.
    #[must_use]
    pub fn has_variable(&self) -> bool {
        self.text.contains('$')
    }

    /// The span of `range` (bytes of `text`), the whole word where the two texts differ.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Span {
        if self.span.len() == self.text.len() && range.end <= self.text.len() {
            Span::new(self.span.start + range.start, self.span.start + range.end)
        } else {
            self.span
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let index = LineIndex::new("\u{feff}aé\r\nb\n");
        assert_eq!(index.lines(), 2);
        for (offset, place) in
            [(0, "1:1"), (3, "1:1"), (4, "1:2"), (6, "1:3"), (8, "2:1"), (9, "2:2"), (99, "2:2")]
        {
            let found = index.position(offset).to_string();
            assert_eq!(found, place, "{offset}");
        }
        assert_eq!((index.text(1), index.text(2), index.text(3)), ("aé", "b", ""));
        assert_eq!(LineIndex::new("").position(0).to_string(), "1:1");
    }
}
