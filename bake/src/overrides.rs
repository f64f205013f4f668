//! Keys of targets that are overridden from outside: `TARGET.KEY=VALUE`.

use std::str::FromStr;

use dockerfile::glob::Pattern;
use serde_json::{Value, json};

use crate::error::Error;
use crate::model::Target;

/// Keys whose value is a list.
const LISTS: [&str; 12] = [
    "tags",
    "platforms",
    "cache-from",
    "cache-to",
    "secret",
    "ssh",
    "output",
    "attest",
    "ulimits",
    "entitlements",
    "no-cache-filter",
    "annotations",
];

/// A value of one key in the targets whose names match: `app.tags=app:2`, `*.args.VERSION=2`.
#[derive(Debug, Clone)]
pub struct Override {
    targets: Pattern,
    key: String,
    /// The key of the object in that key.
    inner: Option<String>,
    value: String,
}

impl FromStr for Override {
    type Err = Error;

    fn from_str(text: &str) -> Result<Override, Error> {
        let malformed = || Error::Override { text: text.to_owned() };
        let (path, value) = text.split_once('=').ok_or_else(malformed)?;
        let (targets, key) = path.split_once('.').ok_or_else(malformed)?;
        let targets = Pattern::parse(targets).map_err(|_| malformed())?;
        let (key, inner) = match key.split_once('.') {
            Some((key, inner)) => (key, Some(inner.to_owned())),
            None => (key, None),
        };
        let key = if key == "platform" { "platforms" } else { key }.to_owned();
        Ok(Override { targets, key, inner, value: value.to_owned() })
    }
}

/// Puts the values that are meant for the target into it. Of a list the first value replaces what
/// the file says, and further ones are added.
pub(crate) fn apply(name: &str, target: &mut Target, overrides: &[Override]) {
    let mut begun = Vec::new();
    for Override { key, inner, value, .. } in
        overrides.iter().filter(|one| one.targets.matches(name))
    {
        match inner {
            Some(inner) => {
                let fields = target.entry(key.clone()).or_insert_with(|| json!({}));
                if !fields.is_object() {
                    *fields = json!({});
                }
                fields[inner] = value.as_str().into();
            }
            None if LISTS.contains(&key.as_str()) => {
                let list = target.entry(key.clone()).or_insert_with(|| json!([]));
                if !begun.contains(&key) {
                    *list = json!([]);
                    begun.push(key);
                }
                list.as_array_mut().into_iter().for_each(|list| list.push(value.as_str().into()));
            }
            None => {
                let plain = || value.as_str().into();
                target.insert(key.clone(), value.parse().map_or_else(|_| plain(), Value::Bool));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_that_make_no_sense_are_refused() {
        for text in ["", "x", "x=y", "x.tags", "[.tags=x"] {
            let error = text.parse::<Override>().unwrap_err();
            assert!(matches!(error, Error::Override { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn a_field_of_what_is_no_object_makes_it_one() {
        let mut target = Target::from([("args".to_owned(), json!("x"))]);
        apply("app", &mut target, &["*.args.A=1".parse().unwrap()]);
        assert_eq!(target["args"], json!({ "A": "1" }));
    }

    #[test]
    fn lists_begin_anew_and_grow() {
        let mut target = Target::from([("tags".to_owned(), json!(["old"]))]);
        let overrides = ["app.tags=a", "other.tags=no", "a*.tags=b", "app.platform=linux/arm64"];
        let overrides = overrides.map(|text| text.parse().unwrap());
        apply("app", &mut target, &overrides);
        assert_eq!(target["tags"], json!(["a", "b"]));
        assert_eq!(target["platforms"], json!(["linux/arm64"]));
    }
}
