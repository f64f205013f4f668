//! The one door for what a build takes from elsewhere: images, downloads, repositories, layouts.
//!
//! Each has an identifier in BuildKit's words: `docker-image://docker.io/library/debian:12`,
//! `https://example.com/a.tar`, `git://example.com/r.git#v1`, `oci-layout:///srv/layout:v1`,
//! `local://context`. Before one is resolved it is *admitted*: the [source policies](PolicyRules)
//! let it through, refuse it or put another in its place, and the [lock](EnforcedLock) may pin it to
//! one content. After it was resolved it is *recorded*, and [`crate::BuildResult::inputs`] has it.
//!
//! Who resolves something of a kind of its own calls [`Inputs::admit`] first, takes what the
//! answer says instead of what the user wrote, and calls [`Inputs::record`] at the end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use image::Digest;
use serde::{Deserialize, Serialize};

use crate::input::{Decision, Input, InputKind, Pin};
use crate::lock::EnforcedLock;
use crate::plan::ImageKey;
use crate::source_policy::PolicyRules;
use crate::{Error, Result};

/// More conversions in a row than this are a loop.
const CONVERSIONS: usize = 20;

/// The rules of a build for what it takes from elsewhere; part of a [`crate::Request`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InputRules {
    /// Asked one after the other; each sees what those before it put in place.
    pub policies: Vec<PolicyRules>,
    /// Which content inputs must have.
    pub lock: Option<EnforcedLock>,
}

/// The decision of the source policies about one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputDecision {
    /// The identifier; that which was asked for unless a policy put another in its place.
    pub(crate) identifier: String,
    /// Whether a policy put another in its place.
    pub(crate) converted: bool,
    /// Attributes of the policies.
    pub(crate) attrs: BTreeMap<String, String>,
    /// The content it must have.
    pub(crate) pin: Option<String>,
}

impl InputDecision {
    /// The name of what a policy puts in the place of an image.
    pub(crate) fn image_name(&self) -> Result<String> {
        let to = &self.identifier;
        if let Some(name) = to.strip_prefix("docker-image://") {
            return Ok(name.to_owned());
        }
        if let Some(path) = to.strip_prefix("oci-layout://") {
            return Ok(format!("oci:{path}"));
        }
        let reason = "the source policy substitutes it for an image".to_owned();
        Err(Error::Denied { identifier: to.clone(), reason })
    }

    /// The pin as a digest.
    pub(crate) fn digest(&self) -> Result<Option<Digest>> {
        let Some(pin) = &self.pin else { return Ok(None) };
        let digest = pin.parse::<Digest>();
        digest.map(Some).map_err(|error| Error::Denied {
            identifier: self.identifier.clone(),
            reason: format!("the lock pins it to {pin:?}: {error}"),
        })
    }
}

/// The inputs of one build.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    rules: InputRules,
    used: Mutex<Vec<Input>>,
}

impl Inputs {
    pub(crate) fn new(rules: InputRules) -> Inputs {
        Inputs { rules, used: Mutex::default() }
    }

    /// Asks the policies and the lock before an input is resolved.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub(crate) fn admit(&self, kind: InputKind, identifier: &str) -> Result<InputDecision> {
        let deny = |identifier: &str, reason: String| Error::Denied {
            identifier: identifier.to_owned(),
            reason,
        };
        let mut at = identifier.to_owned();
        let mut attrs = BTreeMap::new();
        let mut conversions = 0;
        'again: loop {
            for policy in &self.rules.policies {
                match policy.decide(&at) {
                    Decision::Allow => {}
                    Decision::Deny { reason } => return Err(deny(&at, reason)),
                    Decision::Convert { to, attrs: more } => {
                        attrs.extend(more);
                        if to == at {
                            continue;
                        }
                        conversions += 1;
                        if conversions > CONVERSIONS {
                            let reason = "the source policy converts it in a cycle".to_owned();
                            return Err(deny(identifier, reason));
                        }
                        at = to;
                        continue 'again;
                    }
                }
            }
            break;
        }
        let pin = match self.rules.lock.as_ref().map(|lock| lock.pin(kind, &at)) {
            None | Some(Pin::Free) => None,
            Some(Pin::To(content)) => Some(content),
            Some(Pin::Refused(reason)) => return Err(deny(&at, reason)),
        };
        Ok(InputDecision { converted: at != identifier, identifier: at, attrs, pin })
    }

    /// Notes that an input was used. The same one counts once.
    pub(crate) fn record(&self, input: Input) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&mut Input| {
            (&known.kind, &known.name, &known.identifier, &known.resolved, &known.platform)
                == (&input.kind, &input.name, &input.identifier, &input.resolved, &input.platform)
        };
        match used.iter_mut().find(same) {
            Some(known) => known.place = known.place.take().or(input.place),
            None => used.push(input),
        }
    }

    /// Says where the Dockerfile names an image first.
    pub(crate) fn locate(&self, key: &ImageKey, place: &str) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |input: &&mut Input| {
            input.name == key.name && input.platform.as_ref() == Some(&key.platform)
        };
        for input in used.iter_mut().filter(named) {
            input.place.get_or_insert_with(|| place.to_owned());
        }
    }

    /// Everything that was used so far, here and there, ordered by identifier.
    pub(crate) fn all(&self, there: &Inputs) -> Vec<Input> {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.extend(there.used.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        all.sort_by(|a, b| {
            let key = |input: &Input| {
                (input.kind, input.identifier.clone(), input.name.clone(), input.platform.clone())
            };
            key(a).cmp(&key(b))
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Lock;

    #[test]
    fn policies_refuse_convert_and_pass_on_and_locks_see_what_came_of_it() {
        let convert = |from: &str, to: &str| {
            format!(
                r#"{{"action":"CONVERT","selector":{{"identifier":"{from}"}},"updates":{{"identifier":"{to}"}}}}"#
            )
        };
        let rules = [
            convert("a", "b"),
            convert("b", "c"),
            r#"{"action":"DENY","selector":{"identifier":"x"}}"#.to_owned(),
            convert("y", "x"),
            convert("l", "m"),
            convert("m", "l"),
        ];
        let text = format!(r#"{{"rules":[{}]}}"#, rules.join(","));
        let digest = Digest::of(b"content").to_string();
        let mut lock = Lock::default();
        lock.pin("c", &digest).unwrap();
        let lock = EnforcedLock { lock, file: "rbuild.lock".to_owned(), partial: false };
        let policies = vec![PolicyRules::read("p.json", &text).unwrap()];
        let rules = InputRules { policies, lock: Some(lock) };
        let inputs = Inputs::new(rules);
        let admit = |text: &str| inputs.admit(InputKind::Image, text);
        let admitted = admit("a").unwrap();
        assert_eq!((admitted.identifier.as_str(), admitted.converted), ("c", true));
        assert_eq!(admitted.pin.as_deref(), Some(&digest[..]));
        assert!(!admit("c").unwrap().converted);
        for (text, why) in [("x", "x"), ("y", "x"), ("l", "cycle"), ("z", "not in rbuild.lock")] {
            let error = admit(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_input_is_recorded_once_and_keeps_its_first_place() {
        let inputs = Inputs::default();
        let input = |place: Option<&str>| Input {
            kind: InputKind::Http,
            name: "u".to_owned(),
            identifier: "u".to_owned(),
            resolved: "sha256:1".to_owned(),
            platform: None,
            manifest: None,
            place: place.map(str::to_owned),
        };
        inputs.record(input(None));
        inputs.record(input(Some("f:1")));
        inputs.record(input(Some("f:2")));
        assert_eq!(inputs.all(&Inputs::default()), [input(Some("f:1"))]);
    }
}
