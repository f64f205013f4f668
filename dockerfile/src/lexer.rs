//! Physical lines to logical ones: comments dropped, continued lines joined, heredocs cut out.

use std::ops::Range;

use crate::span::{Escape, Span, Word};

/// Text joined from pieces of the source, that knows where each came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinedText {
    pub(crate) text: String,
    /// For each piece: where it begins in `text` and in the source.
    pieces: Vec<(usize, usize)>,
    pub(crate) escape: Escape,
}

impl JoinedText {
    fn push(&mut self, piece: &str, source: usize) {
        self.pieces.push((self.text.len(), source));
        self.text.push_str(piece);
    }

    fn source(&self, at: usize) -> usize {
        let index = self.pieces.partition_point(|(text, _)| *text <= at).saturating_sub(1);
        self.pieces.get(index).map_or(at, |(text, source)| source + (at - text))
    }

    /// Where a range of the text stands in the source.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        if range.is_empty() {
            // Behind the character before, so that "missing" is shown at the end of what is there.
            let at = match range.start {
                0 => self.source(0),
                start => self.source(start - 1) + 1,
            };
            return Span::new(at, at);
        }
        Span::new(self.source(range.start), self.source(range.end - 1) + 1)
    }

    pub(crate) fn word(&self, range: Range<usize>) -> Word {
        let text = self.text[range.clone()].to_owned();
        Word { text, span: self.span(range), escape: self.escape }
    }

    /// A word whose text differs from what is written.
    pub(crate) fn word_as(&self, text: String, range: Range<usize>) -> Word {
        Word { text, span: self.span(range), escape: self.escape }
    }

    /// `range` without the blanks at its ends.
    pub(crate) fn trim(&self, range: Range<usize>) -> Range<usize> {
        let text = &self.text[range.clone()];
        let start = range.start + (text.len() - text.trim_start().len());
        start..start.max(range.start + text.trim_end().len())
    }
}

/// One instruction's line, continued lines joined.
#[derive(Debug, Default)]
pub(crate) struct Logical {
    pub(crate) joined: JoinedText,
    /// From the first character to the end of the last line, its line ending excluded.
    pub(crate) span: Span,
    pub(crate) comments: Vec<String>,
    pub(crate) empty_continuations: Vec<Span>,
}

pub(crate) struct Lexer<'a> {
    source: &'a str,
    at: usize,
    escape: Escape,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(source: &'a str, at: usize, escape: Escape) -> Self {
        Self { source, at, escape }
    }

    /// The next physical line without its line ending, and where it begins.
    fn line(&mut self) -> Option<(usize, &'a str)> {
        let start = self.at;
        let rest = self.source.get(start..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        self.at += length;
        Some((start, rest[..length].trim_end_matches(['\r', '\n'])))
    }

    /// The next logical line; `None` at the end of the source.
    pub(crate) fn logical(&mut self) -> Option<Logical> {
        let mut comments: Vec<String> = Vec::new();
        loop {
            let (start, line) = self.line()?;
            let text = line.trim_start();
            if let Some(comment) = text.strip_prefix('#') {
                match comment.trim() {
                    "" => comments.clear(),
                    comment => comments.push(comment.to_owned()),
                }
                continue;
            }
            if text.is_empty() {
                comments.clear();
                continue;
            }
            let start = start + (line.len() - text.len());
            let mut logical = Logical { comments, ..Logical::default() };
            logical.joined.escape = self.escape;
            logical.span = Span::new(start, start + text.len());
            let (body, mut continued) = self.continuation(text);
            logical.joined.push(body, start);
            while continued {
                let Some((start, line)) = self.line() else { break };
                if line.trim_start().starts_with('#') {
                    continue;
                }
                if line.trim().is_empty() {
                    logical.empty_continuations.push(Span::new(start, start + line.len()));
                    continue;
                }
                let (body, more) = self.continuation(line);
                logical.joined.push(body, start);
                logical.span.end = start + line.len();
                continued = more;
            }
            if logical.joined.text.trim().is_empty() {
                return Some(Logical { comments: Vec::new(), ..logical });
            }
            return Some(logical);
        }
    }

    /// The line without the escape character that continues it, and whether there was one.
    fn continuation(&self, line: &'a str) -> (&'a str, bool) {
        let escape = self.escape.char();
        match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(body) if !body.ends_with(escape) => (body, true),
            _ => (line, false),
        }
    }

    /// Reads lines up to one that is `name`. The content's place, and whether the end was found.
    pub(crate) fn heredoc(&mut self, name: &str, strip_tabs: bool) -> (Span, bool) {
        let start = self.at;
        loop {
            let end = self.at;
            let Some((_, line)) = self.line() else { return (Span::new(start, end), false) };
            let line = if strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == name {
                return (Span::new(start, end), true);
            }
        }
    }

    pub(crate) fn slice(&self, span: Span) -> &'a str {
        span.text(self.source)
    }

    /// Where the lexer stands, before the line ending it has just eaten.
    pub(crate) fn end(&self) -> usize {
        self.source[..self.at].trim_end_matches(['\r', '\n']).len()
    }
}
