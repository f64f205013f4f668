//! The one way to both standard streams. Standard output carries results. A reader that stops
//! reading is not a failure: nothing is left to do.
//!
//! Much of what is printed comes from images and registries. On a terminal, control characters in
//! it are shown, not sent; a file or a pipe gets it as it is.

use std::fmt::Arguments;
use std::io::{self, IsTerminal, Write};

use ::format::visible;

/// Writes to standard output; ends the process quietly if the reader is gone.
pub fn write(arguments: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let written = match out.is_terminal() {
        true => out.write_all(visible(&arguments.to_string()).as_bytes()),
        false => out.write_fmt(arguments),
    };
    end(written.and_then(|()| out.flush()));
}

/// Writes a document unchanged, byte for byte if the output is not a terminal.
pub fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let written = match out.is_terminal() {
        true => out.write_all(visible(&String::from_utf8_lossy(bytes)).as_bytes()),
        false => out.write_all(bytes),
    };
    end(written.and_then(|()| out.flush()));
}

/// Writes what a program has printed, as it is.
pub fn raw(bytes: &[u8]) {
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

/// Writes to standard error, if it is still open.
pub fn note(arguments: Arguments<'_>) {
    let mut err = io::stderr().lock();
    let _ = match err.is_terminal() {
        true => write!(err, "{}", visible(&arguments.to_string())),
        false => err.write_fmt(arguments),
    };
}

/// Writes a line to standard error, if it is still open.
pub fn tell(arguments: Arguments<'_>) {
    let mut err = io::stderr().lock();
    let _ = match err.is_terminal() {
        true => writeln!(err, "{}", visible(&arguments.to_string())),
        false => writeln!(err, "{arguments}"),
    };
}

/// Runs the command that a variant of an enum holds; more arms may follow.
#[macro_export]
macro_rules! run_each {
    ($command:expr, $app:expr, $kind:ident { $($name:ident),* $(,)? } $($more:tt)*) => {
        match $command {
            $($kind::$name(command) => command.run($app),)*
            $($more)*
        }
    };
}

/// `print!` that survives a closed pipe, and shows control characters on a terminal.
#[macro_export]
macro_rules! out {
    ($($argument:tt)*) => { $crate::out::write(format_args!($($argument)*)) };
}

/// `println!` that survives a closed pipe, and shows control characters on a terminal.
#[macro_export]
macro_rules! outln {
    () => { $crate::out::write(format_args!("\n")) };
    ($($argument:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($argument)*))) };
}

/// `eprintln!` that survives a closed pipe, and shows control characters on a terminal.
#[macro_export]
macro_rules! eprintln {
    () => { $crate::out::tell(format_args!("")) };
    ($($argument:tt)*) => { $crate::out::tell(format_args!($($argument)*)) };
}

/// `eprint!` that survives a closed pipe, and shows control characters on a terminal.
#[macro_export]
macro_rules! eprint {
    ($($argument:tt)*) => { $crate::out::note(format_args!($($argument)*)) };
}
