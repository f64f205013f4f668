//! One worker's part of a mirror that several workers share.

use std::fmt;
use std::str::FromStr;

use image::Digest;

use crate::{Error, Result};

/// The part `index` of `count` equal parts, counted from 0 as Kubernetes counts the pods of an
/// Indexed Job.
///
/// What is whose depends on the names at the destination alone, so workers need not know of each
/// other: every name belongs to exactly one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

impl Default for Shard {
    fn default() -> Self {
        Shard { index: 0, count: 1 }
    }
}

impl Shard {
    /// Whether this part has the name.
    pub fn owns(&self, name: &str) -> bool {
        if self.count == 1 {
            return true;
        }
        let digest = Digest::of(name.as_bytes());
        let head = u64::from_str_radix(&digest.hex()[..16], 16).unwrap_or(0);
        head % self.count == self.index
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Shard> {
        let refuse = |reason: &str| Error::Pattern {
            text: text.chars().take(60).collect(),
            reason: reason.to_owned(),
        };
        let parts = text.split_once('/').and_then(|(index, count)| {
            Some((index.trim().parse::<u64>().ok()?, count.trim().parse::<u64>().ok()?))
        });
        match parts {
            Some((index, count)) if index < count => Ok(Shard { index, count }),
            Some((_, 0)) => Err(refuse("there is no part of nothing")),
            Some(_) => Err(refuse("parts are counted from 0: the last one of 4 is 3/4")),
            None => Err(refuse("expected INDEX/COUNT, such as 0/4")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_belongs_to_exactly_one_part() {
        let shards: Vec<Shard> = (0..5).map(|i| format!("{i}/5").parse().unwrap()).collect();
        let mut sizes = [0; 5];
        for n in 0..5000 {
            let name = format!("mirror.example/team/app:{n}");
            let owners: Vec<usize> = (0..5).filter(|i| shards[*i].owns(&name)).collect();
            assert_eq!(owners.len(), 1, "{name}");
            sizes[owners[0]] += 1;
        }
        assert!(sizes.iter().all(|size| (800..1200).contains(size)), "{sizes:?}");
    }

    #[test]
    fn shards_are_read() {
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "2/3");
        for wrong in ["3/3", "0/0", "1", "a/b", "-1/2", "1/2/3", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
