//! `rbuild logs`.

use std::io::Write;
use std::sync::Mutex;

use app::{App, Runnable, observed};
use clap::Args;
use containers::Container;
use options::progress::Progress;
use options::{Failure, flags};
use runtime::{LogLine, LogOptions};

use super::choice::latest;
use super::require;

/// Show the output of containers
#[derive(Debug, Args)]
pub struct Logs {
    /// Follow the output until the containers end
    #[arg(short, long)]
    follow: bool,
    /// Show this many of the last lines, or all
    #[arg(short = 'n', long, value_name = "LINES", visible_alias = "lines", value_parser = lines, allow_hyphen_values = true)]
    tail: Option<usize>,
    /// Show output since then: an RFC 3339 time, seconds since 1970, or an age such as 10m
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    since: Option<f64>,
    /// Show output until then: as --since
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    until: Option<f64>,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Show the name of the container in each line
    #[arg(long)]
    names: bool,
    /// Show the id (with --names the name) of each container in a color of its own
    #[arg(long)]
    color: bool,
    /// Accepted: --log-opt keeps no labels or variables to show
    #[arg(long)]
    details: bool,
    /// Show the newest container
    #[arg(short, long, conflicts_with = "containers")]
    latest: bool,
    /// The containers
    #[arg(required_unless_present = "latest")]
    containers: Vec<String>,
}

fn lines(text: &str) -> Result<usize, String> {
    match text {
        "all" | "-1" => Ok(usize::MAX),
        text => text.parse().map_err(|_| format!("{text:?} is neither a number of lines nor all")),
    }
}

/// The colors of --color, one container after the other.
const COLORS: [&str; 6] = ["32", "33", "34", "35", "36", "31"];

/// What stands before the lines of a container, and the streams whose last line has ended.
struct Printer<'a> {
    logs: &'a Logs,
    prefix: String,
    begun: [bool; 2],
    /// Held while something is printed.
    out: &'a Mutex<()>,
}

impl Runnable for Logs {
    /// Prints: standard output to ours, standard error to ours.
    fn run(self, app: &App) -> Result<u8, Failure> {
        if self.details {
            return Err(Failure::usage("--details is not supported")
                .hint("`rbuild inspect` shows the labels and the environment"));
        }
        let chosen = match self.latest {
            true => vec![latest(app)?],
            false => {
                self.containers.iter().map(|name| require(app, name)).collect::<Result<_, _>>()?
            }
        };
        let options = LogOptions {
            follow: self.follow,
            since: self.since,
            until: self.until,
            tail: self.tail.filter(|lines| *lines != usize::MAX),
        };
        let out = Mutex::new(());
        let show = |(number, container): (usize, &Container)| {
            let prefix = self.prefix(number, container, chosen.len() > 1);
            let mut printer = Printer { logs: &self, prefix, begun: [true, true], out: &out };
            observed("logs", Progress::Quiet, |task| {
                Ok(container.logs(&options, task, &mut |line| printer.print(&line))?)
            })
        };
        if !self.follow {
            chosen.iter().enumerate().try_for_each(show)?;
            return Ok(0);
        }
        // What all of them print is shown as it comes.
        let results: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
            let show = &show;
            let threads: Vec<_> =
                chosen.iter().enumerate().map(|one| scope.spawn(move || show(one))).collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect()
        });
        results.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(0)
    }
}

impl Logs {
    /// As podman: with several containers each line begins with the id.
    fn prefix(&self, number: usize, container: &Container, several: bool) -> String {
        let word = match () {
            () if self.names => container.name(),
            () if several || self.color => &container.id()[..12],
            () => return String::new(),
        };
        match self.color {
            true => format!("\x1b[{}m{word}\x1b[0m ", COLORS[number % COLORS.len()]),
            false => format!("{word} "),
        }
    }
}

impl Printer<'_> {
    /// A piece of a long line has no time of its own.
    fn print(&mut self, line: &LogLine) {
        let stream = usize::from(line.stream == "stderr");
        let mut text = Vec::new();
        if self.begun[stream] {
            text.extend_from_slice(self.prefix.as_bytes());
        }
        if self.logs.timestamps && self.begun[stream] {
            let time = jiff::Timestamp::from_millisecond((line.t * 1000.0) as i64);
            text.extend(time.map(|time| format!("{time} ")).unwrap_or_default().into_bytes());
        }
        text.extend_from_slice(line.content());
        self.begun[stream] = text.ends_with(b"\n");
        let _held = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match stream {
            // Who closed it does not want to know.
            1 => drop(std::io::stderr().write_all(&text)),
            _ => app::out::raw(&text),
        }
    }
}
