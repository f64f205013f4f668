//! Splitting the arguments of an instruction.

use std::ops::Range;

use crate::lexer::JoinedText;
use crate::span::{Span, Word};

/// The blanks that separate words.
pub(crate) fn is_blank(ch: char) -> bool {
    matches!(ch, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at blanks; quotes mean nothing.
pub(crate) fn split_blanks(joined: &JoinedText, range: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, ch) in joined.text[range.clone()].char_indices() {
        let at = range.start + at;
        match (is_blank(ch), start) {
            (true, Some(begin)) => {
                words.push(begin..at);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|begin| begin..range.end));
    words
}

/// Splits at blanks outside quotes; quotes and escapes stay in the words.
pub(crate) fn split_quoted(joined: &JoinedText, range: Range<usize>) -> Vec<Range<usize>> {
    let escape = joined.escape.char();
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut end = range.end;
    let mut chars = joined.text[range.clone()].char_indices();
    while let Some((at, ch)) = chars.next() {
        let at = range.start + at;
        if ch.is_whitespace() && quote.is_none() {
            words.extend(start.take().map(|begin| begin..at));
            continue;
        }
        start.get_or_insert(at);
        match quote {
            Some(open) if ch == open => quote = None,
            None if ch == '\'' || ch == '"' => quote = Some(ch),
            _ => {}
        }
        // Nothing can be escaped between single quotes.
        if ch == escape && quote != Some('\'') && chars.next().is_none() {
            end = at;
        }
    }
    words.extend(start.filter(|begin| *begin < end).map(|begin| begin..end));
    words
}

/// One `--name[=value]`, quotes and escapes taken out.
#[derive(Clone, Debug)]
pub(crate) struct RawFlag {
    pub(crate) name: String,
    pub(crate) value: Option<Word>,
    pub(crate) span: Span,
}

/// Reads the flags at the start of the arguments; the second value is where they end.
pub(crate) fn flags(joined: &JoinedText, range: Range<usize>) -> (Vec<RawFlag>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        let rest = &joined.text[at..range.end];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if !trimmed.starts_with("--") {
            return (flags, at);
        }
        let (text, value, end) = unquoted(joined, at..range.end);
        if text == "--" {
            return (flags, end);
        }
        let name = text[2..value.map_or(text.len(), |(offset, _)| offset)].to_owned();
        let value = value.map(|(offset, source)| {
            joined.word_as(text[offset + 1..].to_owned(), source + 1..end.max(source + 1))
        });
        flags.push(RawFlag { name, value, span: joined.span(at..end) });
        at = end;
    }
}

/// The word at the start of `range` without quotes and escapes, its first `=` (in it, in the
/// joined text) and its end.
fn unquoted(joined: &JoinedText, range: Range<usize>) -> (String, Option<(usize, usize)>, usize) {
    let escape = joined.escape.char();
    let mut text = String::new();
    let mut equals = None;
    let mut quote = None;
    let mut chars = joined.text[range.clone()].char_indices();
    while let Some((at, ch)) = chars.next() {
        let at = range.start + at;
        match quote {
            None if ch.is_whitespace() => return (text, equals, at),
            None if ch == '\'' || ch == '"' => quote = Some(ch),
            Some(open) if ch == open => quote = None,
            _ if ch == escape => text.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => {
                if ch == '=' && equals.is_none() {
                    equals = Some((text.len(), at));
                }
                text.push(ch);
            }
        }
    }
    (text, equals, range.end)
}
