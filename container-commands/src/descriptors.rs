//! Descriptors of this process that a program in a container gets.

use clap::Args;
use containers::StartOptions;
use options::{Failure, environment};

/// Which descriptors a program gets beside its standard streams.
#[derive(Debug, Args)]
pub(crate) struct DescriptorFlags {
    /// Give the program this many descriptors of this process, from 3 on, under the same numbers
    #[arg(long, value_name = "NUMBER", help_heading = "Process")]
    preserve_fds: Option<u32>,
    /// Give the program these descriptors of this process, under the same numbers
    #[arg(long, value_name = "FD", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(3..), help_heading = "Process")]
    preserve_fd: Vec<u32>,
}

impl DescriptorFlags {
    /// The first flag that is given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        match (self.preserve_fds, self.preserve_fd.is_empty()) {
            (Some(_), _) => Some("--preserve-fds"),
            (None, false) => Some("--preserve-fd"),
            (None, true) => None,
        }
    }

    /// Their numbers. What is not passed on is closed in all programs that this process starts.
    ///
    /// # Errors
    /// This process does not have one of them.
    pub(crate) fn numbers(&self) -> Result<Vec<u32>, Failure> {
        let most = 3u32.saturating_add(self.preserve_fds.unwrap_or(0));
        // Where there are so many, one is not there.
        let mut numbers: Vec<u32> = (3..most).take(1 << 10).collect();
        numbers.extend(&self.preserve_fd);
        numbers.sort_unstable();
        numbers.dedup();
        if let Err(error) = runtime::check_inherited(&numbers) {
            let flag = self.given().unwrap_or("--preserve-fds");
            return Err(Failure::usage(format!("{flag}: {error}"))
                .hint("open it in the shell: `rbuild run --preserve-fds 1 … 3<FILE`"));
        }
        Ok(numbers)
    }
}

/// Adds the sockets that a service manager has opened for this process (`.socket` units of systemd) to what
/// a container gets.
pub(crate) fn add_opened_sockets(options: &mut StartOptions, init: bool) {
    let (count, lines) = environment::opened_sockets(if init { 2 } else { 1 });
    let numbers: Vec<u32> = (3..3u32.saturating_add(count).min(1 << 10)).collect();
    if numbers.is_empty() || runtime::check_inherited(&numbers).is_err() {
        return;
    }
    options.descriptors.extend(numbers);
    options.descriptors.sort_unstable();
    options.descriptors.dedup();
    options.environment = lines;
}
