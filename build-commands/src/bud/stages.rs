//! Stages besides the target: built for their own sake, or kept as images.

use app::{App, observed_by};
use builder::{OtherStage, Request};
use clap::Args;
use options::{Failure, flags};

use super::{BuildResources, failure};
use progress::ProgressDisplay;

/// What to do with stages that are not the target.
#[derive(Debug, Args)]
pub(super) struct StageFlags {
    /// Build only the stages that the target needs; false builds all stages before it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    skip_unused_stages: bool,
    /// Keep each stage as an unnamed image
    #[arg(long)]
    save_stages: bool,
    /// Label the images of --save-stages with the name of the stage and of its base
    #[arg(long, requires = "save_stages")]
    stage_labels: bool,
    /// Add a label to the images of --save-stages
    #[arg(long, value_name = "KEY=VALUE", requires = "save_stages")]
    layer_label: Vec<String>,
}

impl StageFlags {
    /// Builds the other stages. The target finds what they have in common in the cache.
    pub(super) fn build(
        &self,
        resources: &BuildResources,
        app: &App,
        request: &Request,
        rendering: &ProgressDisplay,
    ) -> Result<(), Failure> {
        if self.skip_unused_stages && !self.save_stages {
            return Ok(());
        }
        let env = resources.env(app)?;
        for stage in builder::other_stages(request) {
            if self.skip_unused_stages && !stage.needed {
                continue;
            }
            let stage = if self.save_stages { stage } else { stage.without_image() };
            let OtherStage { request: mut one, name, base, .. } = stage;
            one.labels.extend(self.layer_label.iter().map(|text| flags::pair(text)));
            if self.stage_labels {
                one.labels.insert("io.rbuild.stage.name".to_owned(), name);
                one.labels.insert("io.rbuild.stage.base".to_owned(), base);
            }
            observed_by("stage", rendering, |task| {
                app.wait(builder::build(one, &env, task))?.map_err(failure)
            })?;
        }
        Ok(())
    }
}
