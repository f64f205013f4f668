//! Standard output carries results. Whoever reads them may stop reading: that is no failure of
//! ours, and nothing is left to do.

use std::fmt::Arguments;
use std::io::Write;

/// Writes to standard output; ends the process quietly when nobody reads any more.
pub(crate) fn write(arguments: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(arguments).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: writing to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// `print!` that survives a closed pipe.
macro_rules! out {
    ($($argument:tt)*) => { $crate::out::write(format_args!($($argument)*)) };
}

/// `println!` that survives a closed pipe.
macro_rules! outln {
    () => { $crate::out::write(format_args!("\n")) };
    ($($argument:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($argument)*))) };
}
