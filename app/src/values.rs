//! Values of flags that the library reads, and where they were written.

use builder::syntax::{self, Invocation};
use builder::{Agent, Secret};
use options::flags::of_flag;
use options::{Dialect, Failure, environment};

/// Where the command line was written.
///
/// # Errors
/// There is no current directory.
pub fn invocation() -> Result<Invocation<'static>, Failure> {
    Ok(Invocation {
        directory: environment::here()?,
        variable: &|name| std::env::var_os(name),
        registry: Dialect::spoken().home(),
    })
}

/// The value of `--secret`.
pub fn secret(text: &str) -> Result<(String, Secret), Failure> {
    syntax::secret(text, &invocation()?).map_err(of_flag("--secret", text))
}

/// The value of `--ssh`.
pub fn agent(text: &str) -> Result<(String, Agent), Failure> {
    syntax::agent(text, &invocation()?).map_err(of_flag("--ssh", text))
}

/// `$SOURCE_DATE_EPOCH`.
///
/// # Errors
/// The text is not a number.
pub fn epoch_variable() -> Result<Option<i64>, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => epoch(&text).map(Some),
        _ => Ok(None),
    }
}

/// A number of seconds since 1970, as `$SOURCE_DATE_EPOCH` has it.
///
/// # Errors
/// The text is not a number.
pub fn epoch(text: &str) -> Result<i64, Failure> {
    syntax::epoch(text).map_err(|error| Failure::usage(format!("SOURCE_DATE_EPOCH {error}")))
}
