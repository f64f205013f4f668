//! Medians, and the Markdown and JSON that show them.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::measure::Usage;
use crate::race::Row;
use crate::tools::Tools;

/// What the figures were measured on.
pub(crate) struct Machine {
    lines: Vec<String>,
}

impl Machine {
    pub(crate) fn read(tools: &Tools) -> Machine {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
        let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
        let memory = read("/proc/meminfo");
        let memory: u64 = memory
            .lines()
            .find_map(|line| {
                line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok()
            })
            .unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        let version = kernel.trim().split('-').next().unwrap_or_default();
        let mut lines = vec![format!(
            "{cores} cores ({}), {} GB of memory, Linux {version}, load {} at the end",
            model.trim_start_matches(['\t', ' ', ':']),
            memory >> 20,
            read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        )];
        let all = ["rbuild", "rcopy", "buildah", "podman", "buildkit", "skopeo", "crane", "crun"];
        lines.extend(all.iter().filter(|name| tools.has(name)).map(|name| tools.version(name)));
        Machine { lines }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

impl Row {
    fn median(&self, of: impl Fn(&Usage) -> f64) -> f64 {
        median(self.laps.iter().map(of).collect())
    }

    fn least(&self) -> f64 {
        self.laps.iter().map(|lap| lap.wall).fold(f64::INFINITY, f64::min)
    }

    fn ours(&self) -> bool {
        matches!(self.tool, "rbuild" | "rcopy")
    }
}

fn seconds(value: f64) -> String {
    match value {
        value if value.abs() < 0.1 => format!("{value:.4}"),
        value if value.abs() < 10.0 => format!("{value:.3}"),
        value => format!("{value:.1}"),
    }
}

/// Machine, versions and table.
pub(crate) fn markdown(rows: &[Row], machine: &Machine, rounds: usize) -> String {
    let mut text = format!("Machine and versions ({rounds} rounds):\n\n");
    for line in &machine.lines {
        let _ = writeln!(text, "- {line}");
    }
    text.push_str("\n| Work | Program | Median s | Least s | CPU s | Peak MB | Ours is |\n");
    text.push_str("|---|---|--:|--:|--:|--:|---|\n");
    text + &lines(rows)
}

/// The lines of the table.
pub(crate) fn lines(rows: &[Row]) -> String {
    let (mut text, mut last) = (String::new(), "");
    for row in rows {
        let work = if row.id == last { String::new() } else { format!("{} {}", row.id, row.title) };
        last = row.id;
        if let Some(failure) = &row.failure {
            let failure: String = failure.chars().filter(|c| *c != '|').collect();
            let end: String =
                failure.chars().skip(failure.chars().count().saturating_sub(200)).collect();
            let _ = writeln!(text, "| {work} | {} | failed | | | | …{end} |", row.tool);
            continue;
        }
        let name = if row.ours() { format!("**{}**", row.tool) } else { row.tool.to_owned() };
        let _ = writeln!(
            text,
            "| {work} | {name} | {} | {} | {} | {:.0} | {} |",
            seconds(row.median(|lap| lap.wall)),
            seconds(row.least()),
            seconds(row.median(|lap| lap.cpu)),
            row.peak as f64 / 1e6,
            ratio(rows, row),
        );
    }
    text
}

/// How much faster or slower our median is than this program's.
fn ratio(rows: &[Row], peer: &Row) -> String {
    let ours = rows.iter().find(|row| row.id == peer.id && row.ours() && row.failure.is_none());
    let Some(ours) = ours.filter(|_| !peer.ours()) else { return String::new() };
    let (us, them) = (ours.median(|lap| lap.wall), peer.median(|lap| lap.wall));
    if us <= them {
        format!("{:.1} times as fast", them / us)
    } else {
        format!("**behind: {:.2} times its time**", us / them)
    }
}

/// Every sample.
pub(crate) fn json(rows: &[Row]) -> Value {
    let lap = |lap: &Usage| json!({"wall": lap.wall, "cpu": lap.cpu, "peak": lap.peak});
    let row = |row: &Row| {
        json!({
            "work": row.id, "title": row.title, "tool": row.tool, "failure": row.failure,
            "peak": row.peak, "laps": row.laps.iter().map(lap).collect::<Vec<_>>(),
        })
    };
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_both_middles() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_ratio_says_who_is_ahead() {
        let row = |tool, wall| Row {
            id: "W0",
            title: "nothing",
            tool,
            laps: vec![Usage { wall, cpu: wall, peak: 1 }],
            peak: 1,
            failure: None,
        };
        let rows = [row("rbuild", 1.0), row("buildah", 3.0), row("podman", 0.5)];
        assert_eq!(ratio(&rows, &rows[0]), "");
        assert_eq!(ratio(&rows, &rows[1]), "3.0 times as fast");
        assert!(ratio(&rows, &rows[2]).contains("behind: 2.00"));
    }
}
