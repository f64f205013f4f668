//! `rcopy sync`: a mirror of many images.

mod sets;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use app::place::{self, Access};
use app::{App, Runnable, observed};
use clap::{Args, ValueEnum};
use options::copy::WhatFlags;
use options::ends::{DestinationFlags, RetryFlags, SourceFlags};
use options::progress::Progress;
use options::sign_copy::SignFlags;
use options::{Failure, environment, flags};
use task::{Kind, Task};
use transport::Location;
use transport::sync::{MirrorOptions, MirrorState, Outcome, Report, Set, Shard, mirror};

use crate::copy::carry;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FromTransport {
    Docker,
    Dir,
    Yaml,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ToTransport {
    Docker,
    Dir,
    Oci,
}

/// The kind of a destination.
fn destination(text: &str) -> Result<ToTransport, String> {
    let archive = matches!(text, "oci-archive" | "docker-archive");
    ToTransport::from_str(text, false).map_err(|_| match archive {
        true => {
            "an archive is written as a whole: `rcopy copy` writes one, or mirror to oci".to_owned()
        }
        false => "it is docker, dir or oci".to_owned(),
    })
}

/// Mirror many images: all or some tags of repositories, a directory, or a YAML list
#[derive(Debug, Args)]
pub struct Sync {
    /// The kind of SOURCE: docker (a repository or image), dir, or yaml (a list; `-` is stdin)
    #[arg(short, long = "src", value_enum)]
    src: FromTransport,
    /// The kind of DESTINATION: docker (a registry with a path), dir, or oci (a layout for each
    /// repository)
    #[arg(short, long = "dest", value_parser = destination)]
    dest: ToTransport,
    /// The source
    source: String,
    /// The destination; the last component of the repository name is appended to it
    destination: String,
    /// Show what would be done; do nothing
    #[arg(long)]
    dry_run: bool,
    /// Continue with the other images if one fails
    #[arg(long)]
    keep_going: bool,
    /// Write a line `DIGEST NAME` for each image to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Write the outcome of each name to a file as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Show progress in this form
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    what: WhatFlags,
    #[command(flatten)]
    choice: ChoiceFlags,
    #[command(flatten)]
    work: WorkFlags,
    #[command(flatten)]
    delete: DeleteFlags,
    #[command(flatten)]
    sign: SignFlags,
    #[command(flatten)]
    source_end: SourceFlags,
    #[command(flatten)]
    destination_end: DestinationFlags,
    #[command(flatten)]
    retry: RetryFlags,
}

/// Which tags to mirror, and their names at the destination.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Tags")]
struct ChoiceFlags {
    /// Mirror tags that match this regular expression only (with --src docker)
    #[arg(long, value_name = "REGEX", conflicts_with = "tag_semver")]
    tag_regex: Option<String>,
    /// Mirror tags that are versions in this range only, such as `>= 1.2, < 2` (with --src docker)
    #[arg(long, value_name = "RANGE")]
    tag_semver: Option<String>,
    /// Do not update tags that the destination has
    #[arg(long)]
    missing_only: bool,
    /// Treat matching tags as immutable: do not check them again after the first copy
    #[arg(long, value_name = "REGEX")]
    immutable_tags: Option<String>,
    /// Append the whole source name, registry and path, to the destination
    #[arg(long)]
    scoped: bool,
    /// Append this suffix to each tag at the destination
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    append_suffix: String,
}

/// How to do the work.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Work")]
struct WorkFlags {
    /// Copy this many images at a time
    #[arg(long, visible_alias = "jobs", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Do this share of the work, counted from 0: 0/4 to 3/4 for four workers
    #[arg(long, value_name = "INDEX/COUNT", env = "RCOPY_SHARD", hide_env = true)]
    shard: Option<Shard>,
    /// Record runs in this file (default: a file per mirror in ~/.local/state/rcopy)
    #[arg(long, value_name = "FILE", conflicts_with = "no_state")]
    state: Option<PathBuf>,
    /// Ignore earlier runs: ask both ends for every tag
    #[arg(long)]
    no_state: bool,
    /// Check recorded tags at the destination again after this time
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = flags::duration)]
    recheck: Duration,
    /// Repeat the run with this pause
    #[arg(long, visible_alias = "interval", value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1h", value_parser = flags::duration)]
    watch: Option<Duration>,
    /// Run at the times of this cron expression: "MINUTE HOUR DAY MONTH WEEKDAY"
    #[arg(long, value_name = "CRON", conflicts_with = "watch", value_parser = watch::cron)]
    schedule: Option<croner::Cron>,
}

/// What to do with tags that the source no longer has.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Deleting")]
struct DeleteFlags {
    /// Delete tags at the destination that the source no longer has; preview with --dry-run
    #[arg(long)]
    delete: bool,
    /// Delete nothing in a repository that would lose more than this percentage of its tags
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u8).range(0..=100))]
    delete_limit: u8,
}

impl Runnable for Sync {
    fn run(self, app: &App) -> Result<u8, Failure> {
        self.sign.check_many(self.dest == ToTransport::Docker)?;
        let progress = self.progress.unless(self.quiet);
        let pause = match (self.work.watch, &self.work.schedule) {
            (Some(time), _) => watch::Pause::After(time),
            (None, Some(times)) => watch::Pause::At(Box::new(times.clone())),
            (None, None) => {
                return observed("sync", progress, |task| self.once(app, task)).map(|()| 0);
            }
        };
        if self.dry_run {
            let what = "--watch and --schedule with --dry-run would repeat the same output";
            return Err(Failure::usage(what));
        }
        watch::again(&pause, || observed("sync", progress, |task| self.once(app, task)))
    }
}

impl Sync {
    fn once(&self, app: &App, task: &Task) -> Result<(), Failure> {
        let start = Instant::now();
        let sets = self.sets(app)?;
        let file = self.state_file(app)?;
        let mut state = match &file {
            Some(file) => MirrorState::open(file)?,
            None => MirrorState::default(),
        };
        let gate = app.gate()?;
        let options = MirrorOptions {
            parallel: usize::from(self.work.parallel),
            shard: self.work.shard.unwrap_or_default(),
            keep_going: self.keep_going,
            dry_run: self.dry_run,
            delete: self.delete.delete.then_some(self.delete.delete_limit),
            now: now(),
            recheck: i64::try_from(self.work.recheck.as_secs()).unwrap_or(i64::MAX),
            gate: &*gate,
        };
        let report = app.wait(mirror(&sets, &mut state, &options, task))?;
        self.carry(app, &report, task)?;
        self.sign(app, &report, task)?;
        if let Some(file) = file.filter(|_| !self.dry_run) {
            state.save(&file)?;
        }
        self.tell(&report, start)?;
        task.check()?;
        failed(report)
    }

    /// Brings the GPG signatures of what was copied from lookaside to lookaside.
    fn carry(&self, app: &App, done: &Report, task: &Task) -> Result<(), Failure> {
        if !self.what.signatures() {
            return Ok(());
        }
        let all = app.conf.lookaside()?;
        let (source, sink) = (
            Access::new(app, self.source_end.reach(&self.retry)?),
            Access::new(app, self.destination_end.reach(&self.retry)?),
        );
        for line in done.lines.iter().filter(|line| line.outcome == Outcome::Copied) {
            let (Some(from), Some(digest)) = (&line.source, line.digest) else { continue };
            let (from, to) = (from.parse::<Location>()?, line.target.parse::<Location>()?);
            if !all.may_have_at(&from) {
                continue;
            }
            let place = sink.source(&to)?;
            let root = app.wait(place.resolve())?.map_err(Failure::of)?;
            if root.digest == digest {
                carry((app, &all), (&from, &source), (&to, &sink), &root, task)?;
            }
        }
        Ok(())
    }

    /// Signs what was copied, each under its name at the destination.
    fn sign(&self, app: &App, done: &Report, task: &Task) -> Result<(), Failure> {
        let mut signer = None;
        let copied = done.lines.iter().filter(|line| line.outcome == Outcome::Copied);
        for line in copied {
            let (to, Some(digest)) = (line.target.parse::<Location>()?, line.digest) else {
                continue;
            };
            let made = match signer.take() {
                Some(made) => Some(made),
                None => self.sign.signer(app, &app.conf, &to)?,
            };
            let Some(mut made) = made else { return Ok(()) };
            if let Location::Registry(name) = &to {
                made = made.named(name.clone());
            }
            let sink = Access::new(app, self.destination_end.reach(&self.retry)?);
            let root = app.wait(sink.source(&to)?.resolve())?.map_err(Failure::of)?;
            if root.digest != digest {
                let what = format!("signing {to}: it was moved to {}", root.digest);
                return Err(Failure::new(Kind::Refused, what));
            }
            place::sign(&made, &sink, &to, &root, task)?;
            signer = Some(made);
        }
        Ok(())
    }

    /// The file of what earlier runs did: one for each mirror and part of it.
    fn state_file(&self, app: &App) -> Result<Option<PathBuf>, Failure> {
        if self.work.no_state {
            return Ok(None);
        }
        if let Some(file) = &self.work.state {
            return environment::absolute(file).map(Some);
        }
        let what = format!(
            "{:?} {:?} {} {} {} {} {}",
            self.src,
            self.dest,
            self.source,
            self.destination,
            self.choice.scoped,
            self.choice.append_suffix,
            self.work.shard.unwrap_or_default(),
        );
        let name = image::Digest::of(what.as_bytes()).hex()[..24].to_owned();
        Ok(Some(app.conf.paths.state().join(format!("rcopy/sync/{name}.json"))))
    }

    fn tell(&self, report: &Report, start: Instant) -> Result<(), Failure> {
        if self.dry_run {
            let planned = [Outcome::WouldCopy, Outcome::WouldDelete];
            for line in report.lines.iter().filter(|line| planned.contains(&line.outcome)) {
                match &line.source {
                    Some(source) => {
                        outln!("{} {source} to {}", line.outcome.as_str(), line.target);
                    }
                    None => outln!("{} {}", line.outcome.as_str(), line.target),
                }
            }
        }
        let write = |file: &PathBuf, text: String| {
            std::fs::write(file, text)
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))
        };
        if let Some(file) = &self.digestfile {
            let there = report.lines.iter().filter(|line| line.source.is_some());
            let lines = there.filter_map(|line| Some((line.digest?, &line.target)));
            write(file, lines.map(|(digest, name)| format!("{digest} {name}\n")).collect())?;
        }
        if let Some(file) = &self.report {
            let text = format!("{:#}\n", report.json());
            match file.to_str() {
                Some("-") => out!("{text}"),
                _ => write(file, text)?,
            }
        }
        if !self.quiet && self.progress.tells() {
            eprintln!("{} in {}", report.summary(), progress::duration(start.elapsed()));
        }
        Ok(())
    }

    fn sets(&self, app: &App) -> Result<Vec<Set>, Failure> {
        sets::of(self, app)
    }
}

/// The first failure, with how many more there were.
fn failed(report: Report) -> Result<(), Failure> {
    let count = report.count(Outcome::Failed);
    let first = report.lines.into_iter().find_map(|line| Some((line.target, line.error?)));
    let Some((name, error)) = first else { return Ok(()) };
    let failure = Failure::from(error);
    if failure.kind == Kind::Cancelled {
        return Err(failure);
    }
    // Of many names one that is missing is a failure like others.
    let failure = Failure { code: Some(1), ..failure.context(format!("mirroring {name}")) };
    match count {
        1 => Err(failure),
        _ => Err(failure.context(format!("{count} names could not be mirrored; the first:"))),
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
