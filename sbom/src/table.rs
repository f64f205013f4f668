//! Tables for people.

use std::collections::BTreeMap;

use crate::{Inventory, Vulnerable};

/// Characters of a summary that are shown.
const SUMMARY: usize = 60;

/// The known vulnerabilities of packages as people read them.
pub fn vulnerability_table(found: &[Vulnerable]) -> String {
    let row = |one: &Vulnerable| {
        let fixed = one.fixed.clone().unwrap_or_else(|| "-".to_owned());
        let Vulnerable { id, package, version, summary, .. } = one.clone();
        vec![id, package, version, fixed, summary.chars().take(SUMMARY).collect()]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let total = match rows.len() {
        0 => "no known vulnerabilities\n".to_owned(),
        1 => "1 known vulnerability\n".to_owned(),
        more => format!("{more} known vulnerabilities\n"),
    };
    match rows.is_empty() {
        true => total,
        false => {
            format::table(&["ID", "PACKAGE", "VERSION", "FIXED IN", "SUMMARY"], &rows) + &total
        }
    }
}

/// What is installed in an image, as people read it.
pub fn table(inventory: &Inventory) -> String {
    let rows: Vec<_> = inventory
        .packages
        .iter()
        .map(|located| {
            let package = &located.package;
            let epoch = package.epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
            let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            vec![
                package.ecosystem.as_str().to_owned(),
                package.name.clone(),
                or_dash(format!("{epoch}{}", package.version)),
                located.layer.to_string(),
                located.path.clone(),
            ]
        })
        .collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for located in &inventory.packages {
        *counts.entry(located.package.ecosystem.as_str()).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let total = match counts.as_slice() {
        [] => "no packages found\n".to_owned(),
        counts => format!("{}\n", counts.join(", ")),
    };
    format::table(&["TYPE", "NAME", "VERSION", "LAYER", "FOUND IN"], &rows) + &total
}
