//! Values of flags that the library reads, and where they were written.

use builder::syntax::{self, Invocation};
use builder::{Agent, Secret};
use options::flags::of_flag;
use options::{Dialect, Failure, environment};

/// Where the command line was written.
///
/// # Errors
/// There is no current directory.
pub(crate) fn invocation() -> Result<Invocation<'static>, Failure> {
    Ok(Invocation {
        directory: environment::here()?,
        variable: &|name| std::env::var_os(name),
        registry: Dialect::spoken().home(),
    })
}

/// The value of `--secret`.
pub(crate) fn secret(text: &str) -> Result<(String, Secret), Failure> {
    syntax::secret(text, &invocation()?).map_err(of_flag("--secret", text))
}

/// The value of `--ssh`.
pub(crate) fn agent(text: &str) -> Result<(String, Agent), Failure> {
    syntax::agent(text, &invocation()?).map_err(of_flag("--ssh", text))
}
