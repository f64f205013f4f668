//! Publishing, taking names away and collecting in any order, against a model of a few lines.

use std::collections::{BTreeMap, BTreeSet};

use image::Digest;
use proptest::prelude::*;
use task::Task;

use super::{Sample, problems};
use crate::{Budget, SnapshotId};

const SAMPLES: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Put(usize),
    Unpack(usize),
    Publish(usize, usize),
    PublishUntagged(usize),
    Unname(usize),
    Collect,
    Keep(usize),
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    let sample = 0..SAMPLES;
    let name = 0..3usize;
    prop_oneof![
        3 => sample.clone().prop_map(Op::Put),
        1 => sample.clone().prop_map(Op::Unpack),
        3 => (name.clone(), sample.clone()).prop_map(|(name, sample)| Op::Publish(name, sample)),
        1 => sample.clone().prop_map(Op::PublishUntagged),
        2 => name.prop_map(Op::Unname),
        2 => Just(Op::Collect),
        1 => sample.prop_map(Op::Keep),
        1 => Just(Op::Release),
    ]
}

/// Images of which neighbours share layers.
fn samples() -> Vec<Sample> {
    let layer = |n: usize| format!("layer {n}").into_bytes();
    (0..SAMPLES).map(|n| Sample::new(&n.to_string(), &[layer(n), layer(n + 1)])).collect()
}

#[derive(Default)]
struct Model {
    blobs: BTreeSet<Digest>,
    snapshots: BTreeSet<usize>,
    names: BTreeMap<usize, usize>,
    known: BTreeSet<usize>,
    kept: BTreeSet<usize>,
}

impl Model {
    fn has_all(&self, sample: &Sample) -> bool {
        sample.blobs().iter().all(|(descriptor, _)| self.blobs.contains(&descriptor.digest))
    }

    fn collect(&mut self, samples: &[Sample]) {
        let live: BTreeSet<usize> = self.names.values().chain(&self.kept).copied().collect();
        let all = live.iter().flat_map(|at| samples[*at].blobs());
        self.blobs = all.map(|(descriptor, _)| descriptor.digest).collect();
        self.snapshots.retain(|at| live.contains(at));
        self.known.retain(|at| live.contains(at));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_what_the_model_says(ops in proptest::collection::vec(op(), 1..25)) {
        let samples = samples();
        let (_directory, store) = super::fresh();
        let mut model = Model::default();
        let mut leases = Vec::new();
        for op in ops {
            // Each step through a lease of its own, as if by another process.
            let step = store.lease().unwrap();
            match op {
                Op::Put(at) => {
                    samples[at].put(&step);
                    model.blobs.extend(samples[at].blobs().iter().map(|(d, _)| d.digest));
                }
                Op::Unpack(at) => {
                    let chain = SnapshotId::from(samples[at].chain());
                    step.begin().unwrap().commit(chain, None).unwrap();
                    model.snapshots.insert(at);
                }
                Op::Publish(name, at) => {
                    let done = step.publish(&name.to_string(), samples[at].root()).is_ok();
                    prop_assert_eq!(done, model.has_all(&samples[at]));
                    if done {
                        model.names.insert(name, at);
                        model.known.insert(at);
                    }
                }
                Op::PublishUntagged(at) => {
                    let done = step.publish_untagged(samples[at].root()).is_ok();
                    prop_assert_eq!(done, model.has_all(&samples[at]));
                    if done {
                        model.known.insert(at);
                    }
                }
                Op::Unname(name) => {
                    let done = step.unname(&name.to_string()).unwrap();
                    prop_assert_eq!(done, model.names.remove(&name).is_some());
                }
                Op::Collect => {
                    store.collect(&Budget::default(), &Task::silent()).unwrap();
                    model.collect(&samples);
                }
                Op::Keep(at) => {
                    // A pinned manifest keeps its parts once the store knows them.
                    if model.known.contains(&at) {
                        let lease = store.lease().unwrap();
                        prop_assert!(lease.contains(samples[at].root().digest).unwrap());
                        leases.push(lease);
                        model.kept.insert(at);
                    }
                }
                Op::Release => {
                    leases.clear();
                    model.kept.clear();
                }
            }
            drop(step);
            let names = store.names().unwrap().into_iter();
            let names: BTreeMap<usize, Digest> =
                names.map(|n| (n.name.parse().unwrap(), n.descriptor.digest)).collect();
            let expected =
                model.names.iter().map(|(name, at)| (*name, samples[*at].root().digest)).collect();
            prop_assert_eq!(names, expected);
            prop_assert_eq!(problems(&store), Vec::<String>::new());
            let blobs: BTreeSet<String> = super::listing(&store, "blobs").into_iter().collect();
            prop_assert_eq!(blobs, model.blobs.iter().map(Digest::hex).collect());
            let snapshots = crate::file::list(&store.path().join("snapshots")).unwrap().len();
            prop_assert_eq!(snapshots, model.snapshots.len());
        }
    }
}
