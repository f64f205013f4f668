//! The drawing of one diagnostic.

use std::fmt::Write as _;

use super::{Diagnostic, Severity, Style};
use crate::span::LineIndex;

/// Longer lines are cut, so many characters are shown.
const WIDTH: usize = 120;
/// So many of them before the culprit, when the start is cut off.
const BEFORE: usize = 40;

pub(super) fn draw(
    index: &LineIndex<'_>,
    file_name: &str,
    diagnostic: &Diagnostic,
    style: Style,
) -> String {
    let start = index.position(diagnostic.span.start);
    // The end is the last character, not the one behind it.
    let last = diagnostic.span.end.max(diagnostic.span.start + 1) - 1;
    let end_line = index.position(last.max(diagnostic.span.start)).line.max(start.line);
    let gutter = end_line.to_string().len();
    let paint = Paint::new(diagnostic.severity, style);
    let mut drawing = ExcerptRenderer { out: String::new(), index, diagnostic, gutter, paint };
    drawing.headline();
    drawing.place(file_name, &start.to_string());
    if !index.is_empty() {
        drawing.bar("");
        drawing.excerpt(start.line);
        if end_line > start.line {
            if end_line > start.line + 1 {
                drawing.bar(" ...");
            }
            drawing.excerpt(end_line);
        }
    }
    drawing.help();
    drawing.out
}

struct Paint {
    severity: &'static str,
    frame: &'static str,
    bold: &'static str,
    off: &'static str,
}

impl Paint {
    fn new(severity: Severity, style: Style) -> Self {
        match (style, severity) {
            (Style::Plain, _) => Self { severity: "", frame: "", bold: "", off: "" },
            (Style::Colour, Severity::Error) => Self::colour("\x1b[1;31m"),
            (Style::Colour, Severity::Warning) => Self::colour("\x1b[1;33m"),
        }
    }

    fn colour(severity: &'static str) -> Self {
        Self { severity, frame: "\x1b[1;34m", bold: "\x1b[1m", off: "\x1b[0m" }
    }
}

struct ExcerptRenderer<'a> {
    out: String,
    index: &'a LineIndex<'a>,
    diagnostic: &'a Diagnostic,
    /// Width of the line numbers.
    gutter: usize,
    paint: Paint,
}

impl ExcerptRenderer<'_> {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(text);
        while self.out.ends_with(' ') {
            self.out.pop();
        }
        self.out.push('\n');
    }

    fn headline(&mut self) {
        let Diagnostic { severity, rule, message, .. } = self.diagnostic;
        let Paint { severity: colour, bold, off, .. } = self.paint;
        let message = printable(message);
        self.line(format_args!("{colour}{severity}[{rule}]{off}{bold}: {message}{off}"));
    }

    fn place(&mut self, file_name: &str, position: &str) {
        let (Paint { frame, off, .. }, width) = (&self.paint, self.gutter);
        let (frame, off, name) = (*frame, *off, printable(file_name));
        self.line(format_args!("{:width$}{frame}-->{off} {name}:{position}", ""));
    }

    /// An empty place for a line number, the bar and some text.
    fn bar(&mut self, text: &str) {
        let (Paint { frame, off, .. }, width) = (&self.paint, self.gutter + 1);
        let (frame, off) = (*frame, *off);
        self.line(format_args!("{:width$}{frame}|{off}{text}", ""));
    }

    /// One line of the source and the carets below it.
    fn excerpt(&mut self, line: usize) {
        let text = self.index.text(line);
        let bytes = self.index.span(line);
        let span = self.diagnostic.span;
        // A byte order mark is part of the line, but not of what is shown.
        let shown = bytes.start + if bytes.start == 0 { self.index.bom() } else { 0 };
        let from = span.start.saturating_sub(shown).min(text.len());
        let to = span.end.saturating_sub(shown).min(text.len());
        let from =
            if span.start < bytes.start { text.len() - text.trim_start().len() } else { from };
        let before = text.char_indices().take_while(|(at, _)| *at < from).count();
        let under = text.char_indices().filter(|(at, _)| (from..to).contains(at)).count().max(1);
        let cut = if text.chars().count() > WIDTH { before.saturating_sub(BEFORE) } else { 0 };
        let mut shown = String::from(if cut > 0 { "…" } else { "" });
        let mut carets = String::from(if cut > 0 { " " } else { "" });
        for (at, ch) in text.chars().enumerate().skip(cut).take(WIDTH) {
            let (ch, width) = visible(ch);
            let mark = if (before..before + under).contains(&at) { '^' } else { ' ' };
            let repeat = if ch == ' ' { width } else { 1 };
            shown.extend(std::iter::repeat_n(ch, repeat));
            carets.extend(std::iter::repeat_n(mark, width));
        }
        if text.chars().count() > cut + WIDTH {
            shown.push('…');
        }
        if !carets.contains('^') {
            carets.push('^');
        }
        let Paint { severity, frame, off, .. } = self.paint;
        let width = self.gutter;
        self.line(format_args!("{frame}{line:>width$} |{off} {shown}"));
        self.bar(&format!(" {severity}{}{off}", carets.trim_end()));
    }

    fn help(&mut self) {
        let Some(help) = &self.diagnostic.help else { return };
        let Paint { frame, bold, off, .. } = self.paint;
        let width = self.gutter + 1;
        let help = printable(help);
        self.line(format_args!("{:width$}{frame}={off} {bold}help{off}: {help}", ""));
    }
}

/// A character as it is shown, and how many columns it takes: nothing may steer the terminal.
fn visible(ch: char) -> (char, usize) {
    match ch {
        '\t' => (' ', 4),
        _ if steers(ch) => ('\u{fffd}', 1),
        // Wide scripts and most emoji.
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => (ch, 2),
        _ => (ch, 1),
    }
}

/// Control characters and those that turn the direction of writing.
fn steers(ch: char) -> bool {
    ch.is_control()
        || matches!(ch, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn printable(text: &str) -> String {
    text.chars().map(|ch| if steers(ch) { '\u{fffd}' } else { ch }).collect()
}

#[cfg(test)]
mod tests {
    use crate::diagnostic::{Diagnostic, Style, render, render_styled};
    use crate::span::Span;

    fn drawn(source: &str, span: Span) -> String {
        let diagnostic = Diagnostic::error("rule", "message", span).with_help("do it".to_owned());
        render(source, "Dockerfile", &diagnostic)
    }

    #[test]
    fn one_line() {
        let expected = "\
error[rule]: message
 --> Dockerfile:2:5
  |
2 | RUN x
  |     ^
  = help: do it
";
        assert_eq!(drawn("FROM a\nRUN x\n", Span::new(11, 12)), expected);
    }

    #[test]
    fn odd_places() {
        for (source, span, line, carets) in [
            ("FROM a\n", Span::new(7, 7), "1 | FROM a", "  |       ^"),
            ("FROM a", Span::new(6, 6), "1 | FROM a", "  |       ^"),
            ("FROM a", Span::new(99, 120), "1 | FROM a", "  |       ^"),
            ("\tRUN\tx", Span::new(5, 6), "1 |     RUN    x", "  |            ^"),
            ("RUN 日本 x", Span::new(11, 12), "1 | RUN 日本 x", "  |          ^"),
            ("RUN \u{1b}[31m", Span::new(4, 9), "1 | RUN \u{fffd}[31m", "  |     ^^^^^"),
            ("\u{feff}FROM a", Span::new(3, 7), "1 | FROM a", "  | ^^^^"),
        ] {
            let drawing = drawn(source, span);
            let lines: Vec<&str> = drawing.lines().collect();
            assert_eq!(lines[3..5], [line, carets], "{source:?}");
        }
        assert_eq!(drawn("", Span::new(0, 0)).lines().count(), 3);
    }

    #[test]
    fn several_lines() {
        let expected = "\
error[rule]: message
 --> Dockerfile:1:1
  |
1 | RUN a \\
  | ^^^^^^^
  | ...
3 |   c
  |   ^
  = help: do it
";
        assert_eq!(drawn("RUN a \\\n  b \\\n  c\n", Span::new(0, 17)), expected);
    }

    #[test]
    fn long_lines_are_cut() {
        let source = format!("RUN {}x{}", "a".repeat(5000), "b".repeat(5000));
        let drawing = drawn(&source, Span::new(5004, 5005));
        let lines: Vec<&str> = drawing.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 140), "{drawing}");
        let column = |line: &str, wanted| line.chars().position(|ch| ch == wanted);
        assert_eq!(column(lines[3], 'x'), column(lines[4], '^'));
    }

    #[test]
    fn colour_is_optional() {
        let diagnostic = Diagnostic::warning("rule", "m", Span::new(0, 4));
        let drawing = render_styled("FROM a", "f", &diagnostic, Style::Colour);
        assert!(drawing.contains("\x1b[1;33mwarning[rule]\x1b[0m"), "{drawing}");
    }
}
