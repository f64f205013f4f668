//! Spans of time in the configuration: `90s`, `15m`, `12h`, `30d`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    task::span(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

pub(crate) fn read_some<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    read(deserializer).map(Some)
}
