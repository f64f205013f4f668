use app::place::Access;
use app::{App, Runnable, observed};
use clap::Args;
use image::{Image, Platform};
use options::Failure;
use options::ends::OneEnd;
use options::place::{ToFlags, location};
use options::progress::Progress;
use serde_json::json;
use task::{Kind, Task};
use transport::{BASE_DIGEST, BASE_NAME, Base, Location, RebaseReport};

use super::OpenedImage;

/// Move the image's own layers to another base, if that is safe
#[derive(Debug, Args)]
pub struct Rebase {
    /// The image
    image: String,
    /// The current base (default: from the annotations)
    #[arg(long, alias = "old_base", value_name = "IMAGE")]
    old_base: Option<String>,
    /// The new base (default: the current image of the old base's name)
    #[arg(long, alias = "new_base", value_name = "IMAGE")]
    new_base: Option<String>,
    /// Choose the image of this platform in an index (default: change all and the index)
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Rebase despite conflicts
    #[arg(long)]
    force: bool,
    /// Check for conflicts and write nothing
    #[arg(long)]
    check: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    to: ToFlags,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Rebase {
    /// Looks, and writes the image if that is safe; without a destination beside the original,
    /// by its digest.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.image, "docker://")?;
        let to = self.to.location()?;
        let (reports, written) = observed(&format!("rebase {from}"), Progress::Auto, |task| {
            let ends = (&from, to.as_ref());
            let (source, originals) =
                super::open_all(app, &self.end, ends, self.platform.as_ref(), task)?;
            let bases = originals.images().map(|image| self.opened_bases(app, image, task));
            let bases = bases.collect::<Result<Vec<_>, Failure>>()?;
            let (mut reports, mut made) = (Vec::new(), Vec::new());
            for (image, (old, new, new_at)) in originals.images().zip(&bases) {
                let rebased = app.wait(transport::rebase(
                    Base { source: &*source, image },
                    Base { source: &*old.source, image: &old.image },
                    Base { source: &*new.source, image: &new.image },
                    app.conf.settings.room(),
                    task,
                ))??;
                let mut draft = rebased.draft;
                draft.name_base(new_at, &new.image);
                if image.descriptor().media_type.is_docker() {
                    draft.manifest.annotations.clear();
                }
                made.push(draft.finish());
                reports.push(rebased.report);
            }
            if self.check || !(self.force || conflicts(&reports) == 0) {
                return Ok((reports, None));
            }
            let platforms = made.iter().zip(originals.images());
            let platforms: Vec<_> =
                platforms.map(|(made, image)| (made.root().digest, image.platform())).collect();
            let made = originals.join(&*source, made)?;
            let root = made.root().clone();
            let to = to.map_or_else(|| options::place::beside(&from, &root), Ok)?;
            let root = super::publish(app, &self.end, &made, &to, task)?;
            for (digest, platform) in &platforms {
                self.verify(app, &to, platform, digest, task)?;
            }
            Ok((reports, Some((to, root))))
        })?;
        let told = written.map(|(to, root)| options::place::told(&to, &root));
        for (number, report) in reports.iter().enumerate() {
            let last = number + 1 == reports.len();
            self.tell(report, told.as_deref().filter(|_| last));
        }
        match (told, conflicts(&reports)) {
            (Some(_), _) | (None, 0) => Ok(0),
            (None, conflicts) => {
                let what = format!(
                    "rebasing {from}: the image and the new base conflict in {conflicts} places"
                );
                Err(Failure::new(Kind::Refused, what)
                    .hint("rebuild the image on the new base, or override with --force"))
            }
        }
    }
}

impl Rebase {
    /// Reads the result back from where it was written: every digest and every diffID.
    fn verify(
        &self,
        app: &App,
        to: &Location,
        platform: &Platform,
        digest: &image::Digest,
        task: &Task,
    ) -> Result<(), Failure> {
        if matches!(to, Location::DockerArchive(..)) {
            // It keeps no manifest; its layers were checked while they were written.
            return Ok(());
        }
        let source = Access::new(app, self.end.reach_at(to)?).source(to)?;
        Ok(app.wait(transport::read_back(&*source, platform, *digest, task))??)
    }

    /// The old and the new base of an image, for its platform, and where the new one is.
    fn opened_bases(
        &self,
        app: &App,
        image: &Image,
        task: &Task,
    ) -> Result<(OpenedImage, OpenedImage, Location), Failure> {
        let (old_at, new_at) = self.bases(image)?;
        let usual = image.platform();
        let platform = self.platform.as_ref().unwrap_or(&usual);
        let old = super::open(app, &self.end, &old_at, platform, task)?;
        let new = super::open(app, &self.end, &new_at, platform, task)?;
        Ok((old, new, new_at))
    }

    fn bases(&self, image: &Image) -> Result<(Location, Location), Failure> {
        let annotations = &image.manifest().annotations;
        let (name, digest) = (annotations.get(BASE_NAME), annotations.get(BASE_DIGEST));
        let unknown = |flag: &str| {
            Failure::usage("the image has no annotation of its base")
                .hint(format!("give it with {flag} IMAGE"))
        };
        let old = match (&self.old_base, name, digest) {
            (Some(old), ..) => old.clone(),
            (None, Some(name), Some(digest)) => {
                let name: image::Reference = name.parse()?;
                name.repository.pinned(digest.parse()?).to_string()
            }
            _ => return Err(unknown("--old-base")),
        };
        let new = match (&self.new_base, name) {
            (Some(new), _) => new.clone(),
            (None, Some(name)) => name.clone(),
            (None, None) => return Err(unknown("--new-base")),
        };
        Ok((location(&old, "docker://")?, location(&new, "docker://")?))
    }

    fn tell(&self, report: &RebaseReport, made: Option<&str>) {
        if self.json {
            let value = json!({
                "safe": report.conflicts.is_empty(), "conflicts": report.conflicts,
                "notes": report.notes, "assumptions": report.assumptions, "touched": report.touched,
                "image": made,
            });
            outln!("{value:#}");
            return;
        }
        let lists = [
            ("conflict", &report.conflicts),
            ("note", &report.notes),
            ("assumed", &report.assumptions),
        ];
        for (word, lines) in lists {
            lines.iter().for_each(|line| eprintln!("{word}: {line}"));
        }
        made.iter().for_each(|made| outln!("{made}"));
    }
}

/// In how many places images and their new bases conflict.
fn conflicts(reports: &[RebaseReport]) -> usize {
    reports.iter().map(|report| report.conflicts.len()).sum()
}
