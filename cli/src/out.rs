//! The one way to both standard streams. Standard output carries results. A reader that stops
//! reading is not a failure: nothing is left to do.
//!
//! Much of what is printed comes from images and registries. On a terminal, control characters in
//! it are shown, not sent; a file or a pipe gets it as it is.

use std::fmt::{Arguments, Write as _};
use std::io::{self, IsTerminal, Write};

/// Writes to standard output; ends the process quietly if the reader is gone.
pub(crate) fn write(arguments: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let written = match out.is_terminal() {
        true => out.write_all(visible(&arguments.to_string()).as_bytes()),
        false => out.write_fmt(arguments),
    };
    end(written.and_then(|()| out.flush()));
}

/// Writes a document unchanged, byte for byte if the output is not a terminal.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let written = match out.is_terminal() {
        true => out.write_all(visible(&String::from_utf8_lossy(bytes)).as_bytes()),
        false => out.write_all(bytes),
    };
    end(written.and_then(|()| out.flush()));
}

/// Writes what a program has printed, as it is.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    end(out.write_all(bytes).and_then(|()| out.flush()));
}

fn end(written: io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: writing to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// Writes a line to standard error, if it is still open.
pub(crate) fn tell(arguments: Arguments<'_>) {
    let mut err = io::stderr().lock();
    let _ = match err.is_terminal() {
        true => writeln!(err, "{}", visible(&arguments.to_string())),
        false => writeln!(err, "{arguments}"),
    };
}

/// A text whose control characters are shown as `\u001b` (which JSON reads back): all but line
/// breaks and tabs, and those that change the direction of text.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                // Writing to a string does not fail.
                let _ = write!(shown, "\\u{:04x}", u32::from(c));
            }
            other => shown.push(other),
        }
    }
    shown
}

/// `print!` that survives a closed pipe, and shows control characters on a terminal.
macro_rules! out {
    ($($argument:tt)*) => { $crate::out::write(format_args!($($argument)*)) };
}

/// `println!` that survives a closed pipe, and shows control characters on a terminal.
macro_rules! outln {
    () => { $crate::out::write(format_args!("\n")) };
    ($($argument:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($argument)*))) };
}

/// `eprintln!` that survives a closed pipe, and shows control characters on a terminal.
macro_rules! eprintln {
    () => { $crate::out::tell(format_args!("")) };
    ($($argument:tt)*) => { $crate::out::tell(format_args!($($argument)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_shown_what_would_move_its_cursor() {
        for (text, shown) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("a\u{1b}[2Jb\u{7}\r", "a\\u001b[2Jb\\u0007\\u000d"),
            ("\u{9b}31m\u{7f}", "\\u009b31m\\u007f"),
            ("\u{202e}gnp.exe", "\\u202egnp.exe"),
            ("größe · 大", "größe · 大"),
        ] {
            assert_eq!(visible(text), shown);
        }
        let document = serde_json::json!({"a": "\u{9b}\u{1b}\u{202e}"});
        let read: serde_json::Value =
            serde_json::from_str(&visible(&document.to_string())).unwrap();
        assert_eq!(read, document);
    }
}
