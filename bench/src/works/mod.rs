//! The works: what every program does.

mod build;
mod mirror;
mod run;
mod transfer;

use crate::failure::Result;
use crate::fixtures::Fixtures;
use crate::race::{Race, Turn};
use crate::tools::Tools;

/// What a work needs.
pub(crate) struct Bench<'a> {
    pub(crate) race: &'a mut Race,
    pub(crate) tools: &'a Tools,
    pub(crate) fixtures: &'a Fixtures,
    pub(crate) work: &'static Work,
}

impl Bench<'_> {
    /// Runs the turns of those programs that take part, `times` in each round.
    fn race(&mut self, times: usize, turns: Vec<(&'static str, Turn<'_>)>) {
        let turns = turns.into_iter().filter(|(tool, _)| self.tools.has(tool)).collect();
        self.race.run((self.work.id, self.work.title), times, turns);
    }
}

/// Something to do, by its id in the baselines.
pub(crate) struct Work {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) run: fn(&mut Bench<'_>) -> Result<()>,
}

const fn work(
    id: &'static str,
    title: &'static str,
    run: fn(&mut Bench<'_>) -> Result<()>,
) -> Work {
    Work { id, title, run }
}

/// In the order of the table.
pub(crate) const ALL: &[Work] = &[
    work("W1", "fully cached rebuild, 12 steps", build::cached),
    work("W2a", "rebuild after one changed file, 60 files", build::changed_small),
    work("W2b", "rebuild after one changed file, 50,000 files, 400 MB", build::changed_large),
    work("W3", "first COPY of 50,000 files, 400 MB", build::first_copy),
    work("W4a", "RUN that writes 1 GB, into the store", build::gigabyte),
    work("W4b", "RUN that writes 1 GB, built and pushed, gzip", build::gigabyte_gzip),
    work("W4c", "RUN that writes 1 GB, built and pushed, zstd", build::gigabyte_zstd),
    work("W5", "one tiny RUN step (slope from 5 to 35)", build::steps),
    work("W6a", "registry to empty registry, 6 layers, 600 MB", transfer::copy_big),
    work("W6b", "registry to empty registry, 40 small layers", transfer::copy_many),
    work("W6c", "the same again: nothing to do, 6 layers", transfer::copy_big_again),
    work("W6d", "the same again: nothing to do, 40 layers", transfer::copy_many_again),
    work("W6e", "as W6a, 20 ms away", transfer::copy_big_far),
    work("W6f", "as W6b, 20 ms away", transfer::copy_many_far),
    work("W6g", "as W6c, 20 ms away", transfer::copy_big_again_far),
    work("W6h", "as W6d, 20 ms away", transfer::copy_many_again_far),
    work("W7", "registry to OCI layout, 6 layers, 600 MB", transfer::layout),
    work("W8", "pull and unpack, 6 layers, 600 MB, gzip", transfer::pull),
    work("W9", "start, run `true`, remove", run::start),
    work("W10a", "inspect an image's config in a registry", transfer::inspect),
    work("W10b", "list 10,000 tags", transfer::tags),
    work("W11", "mirror of 1,000 unchanged tags", mirror::unchanged),
];
