//! The file systems of images, read from their layers without unpacking one.

use image::{Descriptor, Digest, Image};
use layers::{Touch, Tree, TreeOptions};
use task::Task;

use crate::edit::{of_layer, read_layer, same_diff_id};
use crate::{Result, Source};

/// A name and what a layer does to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// Puts something there.
    Brings(Vec<u8>),
    /// Takes away what is there, and everything below.
    Removes(Vec<u8>),
    /// Takes away what is in the directory.
    Empties(Vec<u8>),
}

impl PathChange {
    /// The name.
    pub fn path(&self) -> &[u8] {
        match self {
            PathChange::Brings(path) | PathChange::Removes(path) | PathChange::Empties(path) => {
                path
            }
        }
    }
}

/// Reads trees. Every layer is checked against its digest and its diffID.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trees {
    /// Whether contents are digested.
    pub digests: bool,
}

impl Trees {
    /// The tree of a whole image.
    ///
    /// # Errors
    /// [`crate::Error::Place`] when the source fails, [`crate::Error::Layer`] for a layer that is
    /// not what it should be.
    pub async fn of(self, source: &dyn Source, image: &Image, task: &Task) -> Result<Tree> {
        let layers: Vec<_> = image.layers().map(|l| (l.descriptor.clone(), l.diff_id)).collect();
        let (tree, _) = self.on(Tree::new(), source, &layers, task).await?;
        Ok(tree)
    }

    /// A tree with more layers on top, and what those do.
    ///
    /// # Errors
    /// As [`Trees::of`].
    pub async fn on(
        self,
        mut tree: Tree,
        source: &dyn Source,
        layers: &[(Descriptor, Digest)],
        task: &Task,
    ) -> Result<(Tree, Vec<PathChange>)> {
        let mut all = Vec::new();
        for (descriptor, diff_id) in layers {
            let options = TreeOptions { digests: self.digests, ..TreeOptions::default() };
            let (layer, diff_id, hidden) = (descriptor.clone(), *diff_id, task.hidden());
            let (grown, touched) = read_layer(source, descriptor, task, move |reader| {
                let mut touched = Vec::new();
                let mut hear = |touch: Touch<'_>| {
                    let path = touch.path().to_vec();
                    touched.push(match touch {
                        Touch::Brings(_) => PathChange::Brings(path),
                        Touch::Removes(_) => PathChange::Removes(path),
                        Touch::Empties(_) => PathChange::Empties(path),
                    });
                };
                let read = tree.add(reader, &options, &hidden, &mut hear);
                let read = read.map_err(of_layer(&layer.digest.to_string()))?;
                same_diff_id(&layer, diff_id, read.diff_id)?;
                Ok((tree, touched))
            })
            .await?;
            tree = grown;
            all.extend(touched);
        }
        Ok((tree, all))
    }

    /// The trees of two images; what both have at the bottom is read once.
    ///
    /// # Errors
    /// As [`Trees::of`].
    pub async fn of_both(
        self,
        one: (&dyn Source, &Image),
        other: (&dyn Source, &Image),
        task: &Task,
    ) -> Result<(Tree, Tree)> {
        let layers = |image: &Image| {
            image.layers().map(|l| (l.descriptor.clone(), l.diff_id)).collect::<Vec<_>>()
        };
        let (a, b) = (layers(one.1), layers(other.1));
        let shared = a.iter().zip(&b).take_while(|(a, b)| a.1 == b.1).count();
        let (base, _) = self.on(Tree::new(), one.0, &a[..shared], task).await?;
        let (first, _) = self.on(base.clone(), one.0, &a[shared..], task).await?;
        let (second, _) = self.on(base, other.0, &b[shared..], task).await?;
        Ok((first, second))
    }
}
