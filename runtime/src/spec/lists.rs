//! How lists of what is asked for are laid over each other.

/// Lists and tables of both, in order: a later one is laid over.
pub(super) fn both<T, C: IntoIterator<Item = T> + Extend<T>>(mut kept: C, now: C) -> C {
    kept.extend(now);
    kept
}

/// The list of the later, where it says anything.
pub(super) fn last<T>(kept: Vec<T>, now: Vec<T>) -> Vec<T> {
    if now.is_empty() { kept } else { now }
}
