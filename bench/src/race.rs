//! Programs take turns at a work, round after round, so that what the machine does beside them
//! meets all of them alike.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Result;
use crate::measure::{self, Usage};

/// One run of one program at a work.
pub(crate) struct Lap<'a> {
    scratch: &'a Path,
    sample: bool,
    /// Different for every lap of the whole benchmark: what makes an input new.
    pub(crate) number: usize,
}

impl Lap<'_> {
    /// Measures one command.
    pub(crate) fn run(&self, mut command: Command) -> Result<Usage> {
        measure::run(&mut command, self.scratch, self.sample)
    }

    /// What the last measured command printed.
    pub(crate) fn output(&self) -> String {
        let bytes = std::fs::read(self.scratch.join("output")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Prepares, runs measured, checks; gives back what counts.
pub(crate) type Turn<'a> = Box<dyn FnMut(&Lap<'_>) -> Result<Usage> + 'a>;

/// What a program did at a work.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) tool: &'static str,
    pub(crate) laps: Vec<Usage>,
    /// Bytes.
    pub(crate) peak: u64,
    pub(crate) failure: Option<String>,
}

/// All rounds of all works.
pub(crate) struct Race {
    rounds: usize,
    scratch: PathBuf,
    laps: usize,
    pub(crate) rows: Vec<Row>,
}

impl Race {
    pub(crate) fn new(rounds: usize, scratch: &Path) -> Race {
        Race { rounds, scratch: scratch.to_owned(), laps: 0, rows: Vec::new() }
    }

    /// Lets every program do the work once with its memory watched, which is not timed and warms
    /// all caches alike, and then in turns as often as there are rounds, `times` in each.
    pub(crate) fn run(
        &mut self,
        (id, title): (&'static str, &'static str),
        times: usize,
        mut turns: Vec<(&'static str, Turn<'_>)>,
    ) {
        let row = |tool| Row { id, title, tool, laps: Vec::new(), peak: 0, failure: None };
        let mut rows: Vec<Row> = turns.iter().map(|(tool, _)| row(*tool)).collect();
        for round in 0..=self.rounds * times {
            // The order changes, so that no program always follows the same one.
            for turn in 0..turns.len() {
                let index = (turn + round) % turns.len();
                let (row, (_, turn)) = (&mut rows[index], &mut turns[index]);
                if row.failure.is_some() {
                    continue;
                }
                self.laps += 1;
                let number = self.laps;
                let lap = Lap { scratch: &self.scratch, sample: round == 0, number };
                match turn(&lap) {
                    Ok(usage) => {
                        row.peak = row.peak.max(usage.peak);
                        if round > 0 {
                            row.laps.push(usage);
                        }
                    }
                    Err(failure) => {
                        eprintln!("  {}: {failure}", row.tool);
                        row.failure = Some(failure.to_string());
                    }
                }
            }
        }
        self.rows.extend(rows);
    }
}
