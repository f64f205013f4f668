//! Values of flags that the library reads: where they were written, and what their errors are called.

use builder::syntax::{self, Invocation};
use builder::{Agent, Error, Secret};

use crate::config;
use crate::dialect::Dialect;
use crate::report::Failure;

/// Where the command line was written.
///
/// # Errors
/// There is no current directory.
pub(crate) fn invocation() -> Result<Invocation<'static>, Failure> {
    Ok(Invocation {
        directory: config::absolute(std::path::Path::new("."))?,
        variable: &|name| std::env::var_os(name),
        registry: Dialect::spoken().home(),
    })
}

/// The error of a value, called by its flag.
pub(crate) fn of_flag<E: Into<Error>>(flag: &str, text: &str) -> impl Fn(E) -> Failure {
    let what = format!("{flag} {text:?}");
    move |error| {
        let mut failure = wrong_use(error.into());
        match failure.usage {
            true => failure.messages[0] = format!("{what}: {}", failure.messages[0]),
            false => failure.messages.insert(0, format!("reading {what}")),
        }
        failure
    }
}

/// A text that is not understood is wrong use.
pub(super) fn wrong_use(error: Error) -> Failure {
    let usage = matches!(error, Error::Syntax(_));
    Failure { usage, ..Failure::from(error) }
}

/// The value of `--secret`.
pub(crate) fn secret(text: &str) -> Result<(String, Secret), Failure> {
    syntax::secret(text, &invocation()?).map_err(of_flag("--secret", text))
}

/// The value of `--ssh`.
pub(crate) fn agent(text: &str) -> Result<(String, Agent), Failure> {
    syntax::agent(text, &invocation()?).map_err(of_flag("--ssh", text))
}
