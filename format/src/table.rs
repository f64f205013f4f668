//! Tables with columns of equal width.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_without_trailing_blanks() {
        let rows = [vec!["a".to_owned(), "long".to_owned()], vec!["bcd".to_owned(), String::new()]];
        assert_eq!(table(&["X", "Y"], &rows), "X    Y\na    long\nbcd\n");
        let forged = [vec!["a\nroot".to_owned(), "x\ty".to_owned()]];
        assert_eq!(table(&["X", "Y"], &forged), "X       Y\na root  x y\n");
    }
}
