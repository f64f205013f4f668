//! The walk over one word, character by character.

use super::pattern::Pattern;
use super::{Expansion, MAX_EXPANSION, Scope};
use crate::diagnostic::Diagnostic;
use crate::span::Word;

/// `${a:-${b:-…}}` may nest this deep.
const MAX_DEPTH: usize = 64;

/// What stays unchanged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WalkOptions {
    /// Quotes are processed but stay in the result.
    pub(super) keep_quotes: bool,
    /// The escape character stays in the result.
    pub(super) keep_escapes: bool,
    /// Variables that are not set stay in the result.
    pub(super) keep_unset: bool,
    /// Quotes mean nothing.
    pub(super) literal_quotes: bool,
}

pub(super) struct Walker<'a> {
    word: &'a Word,
    scope: Scope<'a>,
    options: WalkOptions,
    escape: char,
    at: usize,
    depth: usize,
    budget: usize,
    found: Expansion,
}

/// Collects the result as one text and as words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
    /// Words matter only at the top.
    splits: bool,
}

impl Output {
    /// A character that separates words if it is a blank.
    fn plain(&mut self, ch: char) {
        self.text.push(ch);
        self.split(ch);
    }

    fn split(&mut self, ch: char) {
        if !self.splits {
        } else if !ch.is_whitespace() {
            self.word.push(ch);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    /// Text that belongs to the current word, blanks and all.
    fn quoted(&mut self, text: &str) {
        self.text.push_str(text);
        if self.splits {
            self.word.push_str(text);
        }
    }

    /// The value of a variable outside quotes.
    fn value(&mut self, text: &str) {
        self.text.push_str(text);
        text.chars().for_each(|ch| self.split(ch));
    }
}

impl<'a> Walker<'a> {
    pub(super) fn new(word: &'a Word, scope: Scope<'a>, options: WalkOptions) -> Self {
        Self {
            word,
            scope,
            options,
            escape: word.escape.char(),
            at: 0,
            depth: 0,
            budget: MAX_EXPANSION,
            found: Expansion::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<(Expansion, Vec<String>), Diagnostic> {
        let mut out = Output { splits: true, ..Output::default() };
        self.walk(&mut out, None, self.options.keep_escapes)?;
        if !out.word.is_empty() {
            out.words.push(out.word);
        }
        self.found.text = out.text;
        Ok((self.found, out.words))
    }

    fn peek(&self) -> Option<char> {
        self.word.text.get(self.at..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.at += ch.len_utf8();
        Some(ch)
    }

    fn error(&self, start: usize, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error("bad-substitution", message, self.word.part(start..self.at))
    }

    fn unclosed(&self, start: usize, kind: &str) -> Diagnostic {
        let mut error = self.error(start, format!("a {kind} quote is not closed"));
        error.rule = "unclosed-quote";
        error.with_help(format!("put {} before a quote that is meant as a character", self.escape))
    }

    /// Walks up to `stop`, which is eaten, or to the end.
    fn walk(
        &mut self,
        out: &mut Output,
        stop: Option<char>,
        keep_escapes: bool,
    ) -> Result<(), Diagnostic> {
        let start = self.at;
        while let Some(ch) = self.peek() {
            if Some(ch) == stop {
                self.next();
                return Ok(());
            }
            match ch {
                '$' => {
                    let value = self.dollar()?;
                    out.value(&value);
                }
                '\'' if !self.options.literal_quotes => {
                    let text = self.single_quotes()?;
                    out.quoted(&text);
                }
                '"' if !self.options.literal_quotes => {
                    let text = self.double_quotes(keep_escapes)?;
                    out.quoted(&text);
                }
                '<' => {
                    let text = self.heredoc_marker();
                    out.quoted(&text);
                }
                _ if ch == self.escape => {
                    self.next();
                    if keep_escapes {
                        out.quoted(ch.encode_utf8(&mut [0; 4]));
                    }
                    if let Some(escaped) = self.next() {
                        out.quoted(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                _ => {
                    self.next();
                    out.plain(ch);
                }
            }
        }
        match stop {
            None => Ok(()),
            Some(stop) => Err(self.error(start, format!("missing {stop:?} in a substitution"))),
        }
    }

    /// `<<` with the blanks behind it is one piece, so that `<< EOF` stays one word.
    fn heredoc_marker(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let mut text = "<<".to_owned();
        while let Some(blank @ (' ' | '\t' | '\r')) = self.peek() {
            self.next();
            text.push(blank);
        }
        text
    }

    fn single_quotes(&mut self) -> Result<String, Diagnostic> {
        let start = self.at;
        let mut text = String::new();
        if let Some(quote) = self.next().filter(|_| self.options.keep_quotes) {
            text.push(quote);
        }
        loop {
            match self.next() {
                None => return Err(self.unclosed(start, "single")),
                Some('\'') => break,
                Some(ch) => text.push(ch),
            }
        }
        if self.options.keep_quotes {
            text.push('\'');
        }
        Ok(text)
    }

    fn double_quotes(&mut self, keep_escapes: bool) -> Result<String, Diagnostic> {
        let start = self.at;
        let mut text = String::new();
        if let Some(quote) = self.next().filter(|_| self.options.keep_quotes) {
            text.push(quote);
        }
        loop {
            match self.peek() {
                None => return Err(self.unclosed(start, "double")),
                Some('"') => break,
                Some('$') => text.push_str(&self.dollar()?),
                Some(ch) if ch == self.escape => {
                    self.next();
                    match self.peek() {
                        Some(next) if next == '"' || next == '$' || next == ch => {
                            if keep_escapes {
                                text.push(ch);
                            }
                            self.next();
                            text.push(next);
                        }
                        _ => text.push(ch),
                    }
                }
                Some(ch) => {
                    self.next();
                    text.push(ch);
                }
            }
        }
        self.next();
        if self.options.keep_quotes {
            text.push('"');
        }
        Ok(text)
    }

    fn dollar(&mut self) -> Result<String, Diagnostic> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return match self.get(&name) {
                Some(value) => self.charge(start, value),
                None if self.options.keep_unset => Ok(format!("${name}")),
                None => Ok(String::new()),
            };
        }
        self.next();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(start, "substitutions are nested too deeply"));
        }
        let value = self.braces(start)?;
        self.depth -= 1;
        self.charge(start, value)
    }

    /// Takes the length of a value off what the whole expansion may still produce.
    fn charge(&mut self, start: usize, value: String) -> Result<String, Diagnostic> {
        match self.budget.checked_sub(value.len()) {
            Some(rest) => self.budget = rest,
            None => {
                let message = format!("the expansion is longer than {MAX_EXPANSION} bytes");
                return Err(self.error(start, message));
            }
        }
        Ok(value)
    }

    /// What stands between `${` and `}`, both outside.
    fn braces(&mut self, start: usize) -> Result<String, Diagnostic> {
        let name = self.name();
        if name.is_empty() {
            let missing = self.peek().is_none();
            self.next();
            let message =
                if missing { "missing '}'" } else { "bad substitution: no variable name" };
            return Err(self.error(start, message));
        }
        let operator = self.next();
        match operator {
            None => Err(self.error(start, "missing '}'")),
            Some('}') => match self.get(&name) {
                Some(value) => Ok(value),
                None if self.options.keep_unset => Ok(format!("${{{name}}}")),
                None => Ok(String::new()),
            },
            Some(':') => match self.next() {
                Some(modifier @ ('-' | '+' | '?')) => self.modifier(start, &name, modifier, true),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    Err(self
                        .error(start, format!("unknown modifier \":{other}\" in a substitution")))
                }
            },
            Some(modifier @ ('-' | '+' | '?')) => self.modifier(start, &name, modifier, false),
            Some(end @ ('#' | '%')) => self.strip(start, &name, end),
            Some('/') => self.replace(start, &name),
            Some(other) => Err(self.error(
                start,
                format!("unknown modifier {:?} in a substitution", other.to_string()),
            )),
        }
    }

    /// The word of a modifier, up to `stop`.
    fn inner(
        &mut self,
        start: usize,
        stop: char,
        keep_escapes: bool,
    ) -> Result<String, Diagnostic> {
        let mut out = Output::default();
        match self.walk(&mut out, Some(stop), keep_escapes) {
            Ok(()) => Ok(out.text),
            Err(_) if self.peek().is_none() => Err(self.error(start, format!("missing '{stop}'"))),
            Err(error) => Err(error),
        }
    }

    /// `${v-w}`, `${v+w}`, `${v?w}`; with `colon` an empty value counts as none.
    fn modifier(
        &mut self,
        start: usize,
        name: &str,
        modifier: char,
        colon: bool,
    ) -> Result<String, Diagnostic> {
        let word = self.inner(start, '}', false)?;
        let value = self.look_up(name);
        if value.is_none() && self.options.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let empty = colon && value.as_deref() == Some("");
        match (modifier, value) {
            ('+', None) => Ok(String::new()),
            ('+', Some(_)) if empty => Ok(String::new()),
            ('+', Some(_)) => Ok(word),
            (_, Some(value)) if !empty => Ok(value),
            ('-', _) => Ok(word),
            (_, value) => {
                let reason = match (word.is_empty(), value) {
                    (false, _) => word,
                    (true, None) => "must be set".to_owned(),
                    (true, Some(_)) => "must not be empty".to_owned(),
                };
                let mut error = self.error(start, format!("{name}: {reason}"));
                error.rule = "required-variable";
                Err(error)
            }
        }
    }

    /// `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`.
    fn strip(&mut self, start: usize, name: &str, end: char) -> Result<String, Diagnostic> {
        let word = self.inner(start, '}', true)?;
        let Some(value) = self.get(name) else {
            return Ok(self.kept(|| format!("${{{name}{end}{word}}}")));
        };
        let (longest, pattern) = match word.strip_prefix(end) {
            Some(pattern) => (true, pattern),
            None => (false, word.as_str()),
        };
        let pattern = self.pattern(start, pattern)?;
        Ok(match end {
            '#' => pattern.strip_prefix(&value, longest),
            _ => pattern.strip_suffix(&value, longest),
        })
    }

    /// `${v/p/r}`, `${v//p/r}`.
    fn replace(&mut self, start: usize, name: &str) -> Result<String, Diagnostic> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let word = self.inner(start, '/', true)?;
        let with = self.inner(start, '}', true)?;
        let Some(value) = self.get(name) else {
            let slash = if all { "//" } else { "/" };
            return Ok(self.kept(|| format!("${{{name}{slash}{word}/{with}}}")));
        };
        let pattern = self.pattern(start, &word)?;
        pattern.replace(&value, &with, all, MAX_EXPANSION).ok_or_else(|| {
            self.error(start, format!("the expansion is longer than {MAX_EXPANSION} bytes"))
        })
    }

    fn kept(&self, text: impl FnOnce() -> String) -> String {
        if self.options.keep_unset { text() } else { String::new() }
    }

    fn pattern(&self, start: usize, text: &str) -> Result<Pattern, Diagnostic> {
        Pattern::parse(text, self.escape)
            .map_err(|bad| self.error(start, format!("invalid escape {bad:?} in a pattern")))
    }

    /// A name: letters, digits and `_`; only digits after a digit; or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(ch) = self.peek() {
            if name.is_empty() && matches!(ch, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
                self.next();
                return ch.to_string();
            }
            let digits = name.starts_with(|first: char| first.is_numeric());
            if !(ch.is_numeric() || (!digits && (ch.is_alphabetic() || ch == '_'))) {
                break;
            }
            self.next();
            name.push(ch);
        }
        name
    }

    /// The value of a variable that nothing stands in for.
    fn get(&mut self, name: &str) -> Option<String> {
        let value = self.look_up(name);
        if value.is_none() {
            note(&mut self.found.missing, name);
        }
        value
    }

    /// The value of a variable that may be unset.
    fn look_up(&mut self, name: &str) -> Option<String> {
        let value = (self.scope)(name);
        let list = if value.is_some() { &mut self.found.used } else { &mut self.found.undefined };
        note(list, name);
        value
    }
}

fn note(list: &mut Vec<String>, name: &str) {
    if !name.is_empty() && !list.iter().any(|known| known == name) {
        list.push(name.to_owned());
    }
}
