//! Tables on a terminal.

use std::fmt::Write;

/// Columns padded to their widest cell, two spaces apart; the last one is not padded. No cell can
/// break a line.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let on_one_line = |cell: &String| cell.replace(['\n', '\r', '\t'], " ");
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(on_one_line).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let header = header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A table, without its first line if no header is wanted.
pub fn headed(table: String, noheading: bool) -> String {
    match noheading {
        true => table.split_once('\n').map_or("", |(_, rest)| rest).to_owned(),
        false => table,
    }
}
