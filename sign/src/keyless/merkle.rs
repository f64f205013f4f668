//! Proofs that a log has an entry (RFC 9162, section 2.1.3.2).

use ring::digest::{Context, SHA256};

/// A node of a log's tree.
pub(crate) type Hash = [u8; 32];

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The hash of an entry.
pub(crate) fn leaf(entry: &[u8]) -> Hash {
    hash(&[&[0], entry])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

/// The root that a proof leads to from the entry with this index in a tree of this size; `None`
/// where the proof has the wrong shape.
pub(crate) fn root(entry: Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut index, mut last, mut current) = (index, size - 1, entry);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if index & 1 == 1 || index == last {
            current = node(sibling, &current);
            while index & 1 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            current = node(&current, sibling);
        }
        index >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree and the proof as RFC 9162 defines them, without a trick.
    fn whole(entries: &[Vec<u8>]) -> Hash {
        match entries {
            [] => hash(&[]),
            [one] => leaf(one),
            many => {
                let (left, right) = many.split_at(many.len().next_power_of_two() / 2);
                node(&whole(left), &whole(right))
            }
        }
    }

    fn path(index: usize, entries: &[Vec<u8>]) -> Vec<Hash> {
        if entries.len() < 2 {
            return Vec::new();
        }
        let (left, right) = entries.split_at(entries.len().next_power_of_two() / 2);
        let (mut path, other) = match index < left.len() {
            true => (path(index, left), whole(right)),
            false => (path(index - left.len(), right), whole(left)),
        };
        path.push(other);
        path
    }

    #[test]
    fn proofs_of_every_entry_of_small_trees_hold_and_no_others() {
        for size in 1..20_usize {
            let entries: Vec<Vec<u8>> = (0..size).map(|n| vec![n as u8; n]).collect();
            let expected = whole(&entries);
            for index in 0..size {
                let proof = path(index, &entries);
                let of = |entry: &[u8], index: usize, size: usize, proof: &[Hash]| {
                    root(leaf(entry), index as u64, size as u64, proof)
                };
                assert_eq!(of(&entries[index], index, size, &proof), Some(expected));
                assert_ne!(of(b"other", index, size, &proof), Some(expected));
                assert_ne!(of(&entries[index], index + 1, size, &proof), Some(expected));
                assert_eq!(of(&entries[index], size, size, &proof), None);
                let longer = [&proof[..], &[expected]].concat();
                assert_ne!(of(&entries[index], index, size, &longer), Some(expected));
                if let Some((_, shorter)) = proof.split_last() {
                    assert_ne!(of(&entries[index], index, size, shorter), Some(expected));
                }
            }
        }
    }
}
