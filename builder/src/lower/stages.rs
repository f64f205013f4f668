//! Which stages need which, and the order they are lowered in.

use std::collections::{BTreeMap, BTreeSet};

/// The stages that stages need, all by their number.
#[derive(Debug, Default)]
pub(super) struct Graph {
    needs: BTreeMap<usize, BTreeSet<usize>>,
    visited: BTreeSet<usize>,
}

impl Graph {
    /// Notes that a stage needs another; `false` if that is known.
    pub(super) fn add(&mut self, stage: usize, needed: usize) -> bool {
        self.needs.entry(stage).or_default().insert(needed)
    }

    /// The stages that a stage needs itself.
    pub(super) fn needs(&self, stage: usize) -> impl Iterator<Item = usize> + '_ {
        self.needs.get(&stage).into_iter().flatten().copied()
    }

    /// Notes that a stage was looked at; `false` if it was before.
    pub(super) fn visit(&mut self, stage: usize) -> bool {
        self.visited.insert(stage)
    }

    /// The needed stages that were not visited yet.
    pub(super) fn unvisited(&self) -> impl Iterator<Item = usize> + '_ {
        let needed = self.needs.values().flatten().copied();
        needed.filter(|stage| !self.visited.contains(stage))
    }

    /// The stages that `target` needs and itself, each behind those it needs, otherwise in the
    /// order of their numbers.
    ///
    /// # Errors
    /// Stages that need each other: each needs the one behind it, the last the first.
    pub(super) fn order(&self, target: usize) -> Result<Vec<usize>, Vec<usize>> {
        let mut open: BTreeMap<usize, usize> = BTreeMap::new();
        let mut users: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut found = vec![target];
        while let Some(stage) = found.pop() {
            if open.contains_key(&stage) {
                continue;
            }
            open.insert(stage, self.needs(stage).count());
            for needed in self.needs(stage) {
                users.entry(needed).or_default().push(stage);
                found.push(needed);
            }
        }
        let ready = open.iter().filter(|(_, count)| **count == 0);
        let mut ready: BTreeSet<usize> = ready.map(|(stage, _)| *stage).collect();
        let mut order = Vec::new();
        while let Some(stage) = ready.pop_first() {
            open.remove(&stage);
            order.push(stage);
            for user in users.get(&stage).into_iter().flatten() {
                if let Some(count) = open.get_mut(user) {
                    *count -= 1;
                    if *count == 0 {
                        ready.insert(*user);
                    }
                }
            }
        }
        match open.keys().next() {
            None => Ok(order),
            Some(first) => Err(self.circle(*first, &open)),
        }
    }

    /// The circle that following needs among `open` stages ends in.
    fn circle(&self, first: usize, open: &BTreeMap<usize, usize>) -> Vec<usize> {
        let mut way = vec![first];
        loop {
            let last = way[way.len() - 1];
            let Some(next) = self.needs(last).find(|stage| open.contains_key(stage)) else {
                return way;
            };
            if let Some(start) = way.iter().position(|stage| *stage == next) {
                return way.split_off(start);
            }
            way.push(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(needs: &[(usize, usize)]) -> Graph {
        let mut graph = Graph::default();
        for (stage, needed) in needs {
            graph.add(*stage, *needed);
        }
        graph
    }

    #[test]
    fn stages_come_behind_those_they_need_and_else_in_the_order_of_the_file() {
        let graph = graph(&[(4, 1), (4, 3), (3, 0), (1, 5), (2, 0)]);
        assert_eq!(graph.order(4), Ok(vec![0, 3, 5, 1, 4]));
        assert_eq!(graph.order(2), Ok(vec![0, 2]));
    }

    #[test]
    fn a_circle_is_named_without_the_way_into_it() {
        let graph = graph(&[(0, 1), (1, 2), (2, 3), (3, 1)]);
        assert_eq!(graph.order(0), Err(vec![1, 2, 3]));
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let needs: Vec<_> = (0..50_000).map(|stage| (stage, stage + 1)).collect();
        assert_eq!(graph(&needs).order(0).map(|order| order.len()), Ok(50_001));
    }
}
