use std::future::Future;
use std::path::PathBuf;

use task::Task;

use crate::Failure;

/// What options need of the program that has them: to wait, to ask and to tell.
pub trait Program {
    /// Runs a future to its end.
    ///
    /// # Errors
    /// The program is to end before that.
    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Failure>;

    /// Shows progress while `work` runs.
    ///
    /// # Errors
    /// Those of `work`.
    fn observed<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Task) -> Result<T, Failure>,
    ) -> Result<T, Failure>;

    /// Asks for a secret, without echo.
    ///
    /// # Errors
    /// Nobody can be asked.
    fn ask_secret(&self, question: &str) -> Result<String, Failure>;

    /// Shows a line to the user.
    fn tell(line: &str);

    /// The directory with the authorities that are trusted, and the services that sign.
    fn trust(&self) -> PathBuf;
}
