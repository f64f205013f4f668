//! The rows of a table: JSON, as containers/storage and containerd's stargz-snapshotter write it.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::Digest;
use serde::Deserialize;

use super::{FilePart, LayerTable, TableEntry, malformed};
use crate::entries::entry;
use crate::tar::{Header, TypeFlag};
use crate::{Limits, Result};

/// No layer with more entries is read through its table.
const MOST: usize = 2_000_000;

#[derive(Deserialize)]
struct EntryRows {
    entries: Vec<EntryRow>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EntryRow {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    link_name: String,
    mode: u32,
    size: u64,
    uid: u32,
    gid: u32,
    offset: u64,
    end_offset: u64,
    inner_offset: u64,
    chunk_offset: u64,
    chunk_size: u64,
    chunk_type: String,
    chunk_digest: Option<Digest>,
    digest: Option<Digest>,
    modtime: Option<String>,
    dev_major: u32,
    dev_minor: u32,
    xattrs: BTreeMap<String, String>,
}

impl EntryRow {
    fn header(&self) -> Option<Header> {
        let mut header = Header::new(match self.kind.as_str() {
            "reg" => TypeFlag::File,
            "hardlink" => TypeFlag::HardLink,
            "symlink" => TypeFlag::Symlink,
            "dir" => TypeFlag::Directory,
            "char" => TypeFlag::Char,
            "block" => TypeFlag::Block,
            "fifo" => TypeFlag::Fifo,
            _ => return None,
        });
        header.path = self.name.as_bytes().to_vec();
        header.link = self.link_name.as_bytes().to_vec();
        (header.mode, header.uid, header.gid) = (self.mode & 0o7777, self.uid, self.gid);
        header.size = self.size;
        header.mtime = self.modtime.as_deref().and_then(time).unwrap_or_default();
        header.device = (self.dev_major, self.dev_minor);
        for (name, value) in &self.xattrs {
            header.xattrs.push((name.as_bytes().to_vec(), STANDARD.decode(value).ok()?));
        }
        Some(header)
    }

    /// The piece that this row tells of a file of `size` bytes that ends at `end` in the layer;
    /// `whole` is the digest of the file.
    fn part(&self, size: u64, end: u64, whole: Option<Digest>) -> Option<FilePart> {
        let left = size.checked_sub(self.chunk_offset)?;
        let length = if self.chunk_size == 0 { left } else { self.chunk_size };
        if length > left || size > Limits::default().file {
            return None;
        }
        if self.chunk_type == "zeros" {
            return Some(FilePart {
                range: 0..0,
                skip: 0,
                size: length,
                digest: None,
                entrance: None,
            });
        }
        let whole = whole.filter(|_| length == size);
        let digest = Some(self.chunk_digest.or(whole)?);
        (self.offset < end).then_some(FilePart {
            range: self.offset..end,
            skip: self.inner_offset,
            size: length,
            digest,
            entrance: None,
        })
    }
}

/// Seconds and nanoseconds since 1970 of a time as RFC 3339 writes it.
fn time(text: &str) -> Option<(i64, u32)> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days from a calendar that starts in March, in eras of 400 years.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let (of_era, of_year) = (year.rem_euclid(400), (153 * month + 2) / 5 + day - 1);
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let rest = text.get(19..).filter(|rest| rest.len() <= 16)?;
    let zone = rest.find(['Z', '+', '-'])?;
    let fraction = rest[..zone].strip_prefix('.').unwrap_or("0");
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let offset = match rest[zone..].split_once(':') {
        Some((hours, minutes)) => {
            let (sign, hours) = hours.split_at_checked(1)?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if sign == "-" { -minutes * 60 } else { minutes * 60 }
        }
        None => 0,
    };
    Some((seconds - offset, nanoseconds))
}

/// The file whose rows are being read.
struct FileRows {
    size: u64,
    end: u64,
    digest: Option<Digest>,
    /// Bytes of content in the rows so far.
    told: u64,
}

/// `end` is where the contents end in the layer.
pub(super) fn parse(text: &[u8], end: u64) -> Result<LayerTable> {
    let bad = |reason: String| malformed(&format!("it is malformed: {reason}"));
    let rows: EntryRows = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
    if rows.entries.len() > MOST {
        return Err(malformed("it is too large"));
    }
    let starts: BTreeSet<u64> = rows.entries.iter().map(|row| row.offset).collect();
    let mut entries: Vec<TableEntry> = Vec::new();
    let mut file: Option<FileRows> = None;
    for row in &rows.entries {
        let wrong = || bad(row.name.clone());
        if row.kind != "chunk" {
            let Some(entry) = entry(row.header().ok_or_else(wrong)?)? else {
                file = None;
                continue;
            };
            file = (row.kind == "reg" && row.size > 0).then_some(FileRows {
                size: row.size,
                end: row.end_offset,
                digest: row.digest,
                told: 0,
            });
            entries.push(TableEntry { entry, parts: Vec::new() });
        }
        let (Some(of), Some(last)) = (&mut file, entries.last_mut()) else { continue };
        let next = starts.range(row.offset.saturating_add(1)..).next();
        let next = next.copied().unwrap_or(end).min(end);
        let stop = if of.end > row.offset { next.min(of.end) } else { next };
        let part = row.part(of.size, stop, of.digest).ok_or_else(wrong)?;
        if row.chunk_offset != of.told {
            return Err(wrong());
        }
        // No part is longer than what the file has left.
        of.told += part.size;
        last.parts.push(part);
    }
    match entries.iter().find(|entry| entry.told() != entry.content()) {
        Some(entry) => Err(bad(String::from_utf8_lossy(&entry.entry.path).into_owned())),
        None => Ok(LayerTable { entries }),
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some((0, 0))),
            ("2000-02-29T00:00:00.5Z", Some((951_782_400, 500_000_000))),
            ("1969-12-31T23:59:59Z", Some((-1, 0))),
            ("2099-12-31T23:59:59Z", Some((4_102_444_799, 0))),
            ("2024-03-01T01:30:00.000000001+01:30", Some((1_709_251_200, 1))),
            ("2024-02-29T22:00:00-02:00", Some((1_709_251_200, 0))),
            ("2024-02-29T22:00:00-999999999999999999:00", None),
            ("yesterday", None),
            ("2024-02-29", None),
            ("", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_rows_are_a_table_or_an_error(
            rows in proptest::collection::vec(
                ("reg|chunk|dir", 0..4u8, proptest::num::u64::ANY, 0..5u8, "[0-9TZ:.+-]{0,30}"), 0..6),
        ) {
            let small = |kind: u8, any: u64| match kind {
                0 => 0,
                1 => any % 16,
                2 => u64::MAX - any % 16,
                _ => any,
            };
            let rows: Vec<String> = rows.iter().map(|(kind, one, any, other, time)| {
                let (size, other) = (small(*one, *any), small(*other, any.rotate_left(7)));
                format!(
                    r#"{{"type":"{kind}","name":"f","size":{size},"offset":{other},"chunkSize":{other},
                        "chunkOffset":{other},"endOffset":{size},"innerOffset":{size},
                        "chunkType":"zeros","modtime":"{time}"}}"#
                )
            }).collect();
            let text = format!(r#"{{"version":1,"entries":[{}]}}"#, rows.join(","));
            if let Ok(table) = super::parse(text.as_bytes(), 100) {
                for entry in &table.entries {
                    proptest::prop_assert_eq!(entry.told(), entry.content());
                }
            }
        }
    }
}
