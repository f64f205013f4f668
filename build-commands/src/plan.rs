//! `rbuild plan`: what a build would do.

use app::App;
use builder::{ForecastOutcome, StepForecast};
use clap::Args;
use serde_json::json;

use crate::bud::Bud;
use options::Failure;

/// Show which steps of a build are cached, which would run, and why
///
/// Takes the flags of `rbuild bud`. Exit code 0: every step is cached; 3: some would run.
#[derive(Debug, Args)]
pub struct Plan {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bud: Bud,
}

/// The exit code when a build would run steps.
const WOULD_RUN: u8 = 3;

impl Plan {
    /// Asks the cache.
    ///
    /// # Errors
    /// As `rbuild bud`, before any step.
    pub fn run(self, app: &App) -> Result<u8, Failure> {
        let steps = self.bud.means()?.forecast(app, self.bud.request()?)?;
        let runs = |step: &&StepForecast| {
            matches!(step.outlook, ForecastOutcome::Run | ForecastOutcome::Depends)
        };
        let run = steps.iter().filter(runs).count();
        let cached = steps.iter().filter(|step| step.outlook == ForecastOutcome::Cached).count();
        if self.json {
            outln!("{}", json!({ "cached": cached, "run": run, "steps": steps }));
        } else {
            out!("{}", text(&steps));
            eprintln!("{cached} of {} steps are cached", steps.len());
        }
        Ok(if run == 0 { 0 } else { WOULD_RUN })
    }
}

fn text(steps: &[StepForecast]) -> String {
    let mut text = String::new();
    for step in steps {
        let word = step.outlook.as_str();
        text.push_str(&format!("{word:<9}{}\n", step.explanation.step));
        for reason in &step.explanation.reasons {
            text.push_str(&format!("         {reason}\n"));
        }
    }
    text
}
