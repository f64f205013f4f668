//! Reading JSON in which a name that appears twice is an error, not a choice.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// An object with free names, none of them twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unique<V>(pub(crate) BTreeMap<String, V>);

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Unique(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Names<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<V>, A::Error> {
                let mut values = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value()?;
                    if values.contains_key(&name) {
                        return Err(A::Error::custom(format!("{name:?} appears twice")));
                    }
                    values.insert(name, value);
                }
                Ok(Unique(values))
            }
        }

        deserializer.deserialize_map(Names(PhantomData))
    }
}

/// Free text by name, as people wrote it: strings as they are, anything else as JSON.
pub(crate) fn texts(values: Unique<serde_json::Value>) -> BTreeMap<String, String> {
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    values.0.into_iter().map(|(name, value)| (name, text(value))).collect()
}
