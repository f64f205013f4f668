//! Builds of the stages besides the target.

use crate::{Output, Request};

/// A stage before the target.
#[derive(Debug, Clone)]
pub struct OtherStage {
    /// Builds it: without names, and without an output but the store.
    pub request: Request,
    /// Its name, or its number.
    pub name: String,
    /// What its `FROM` names.
    pub base: String,
    /// Whether the target needs it.
    pub needed: bool,
}

/// The stages before the target of a request whose Dockerfile is [given](crate::complete). What
/// they have in common with the target is in the cache once one of them is built.
pub fn other_stages(request: &Request) -> Vec<OtherStage> {
    let (file, _) = dockerfile::parse(&request.dockerfile.text);
    let last = file.stages.len().saturating_sub(1);
    let target = request.target.as_deref().and_then(|name| file.stage(name)).unwrap_or(last);
    let args: Vec<_> = request.build_args.clone().into_iter().collect();
    let needed = file.needed_stages(target, &args);
    let stage = |(at, stage): (usize, &dockerfile::Stage)| OtherStage {
        request: Request {
            target: Some(at.to_string()),
            tags: Vec::new(),
            push: false,
            outputs: Vec::new(),
            ..request.clone()
        },
        name: stage.name.clone().unwrap_or_else(|| at.to_string()),
        base: stage.base.text.clone(),
        needed: needed.contains(&at),
    };
    file.stages.iter().take(target).enumerate().map(stage).collect()
}

impl OtherStage {
    /// Fills the cache only: makes no image.
    #[must_use]
    pub fn without_image(mut self) -> OtherStage {
        self.request.outputs = vec![Output::Nothing];
        self
    }
}
