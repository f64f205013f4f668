//! How commands run in a working container: given to `from`, kept with the container.

use builder::working::State;
use options::container::SharedFlags;
use options::{Failure, environment};
use runtime::ContainerSpec;
use serde_json::Value;

/// How commands run in a working container.
///
/// # Errors
/// What an older record says no longer holds: a device is gone, say.
pub(super) fn settings(state: &State) -> Result<ContainerSpec, Failure> {
    let mut spec = match &state.settings {
        Value::Null => state.spec.clone(),
        older => {
            let read = SharedFlags::parse(&arguments(older)).and_then(|flags| flags.spec());
            read.map_err(|failure| failure.context("reading the container's settings"))?
        }
    };
    spec.isolation.user_namespace = runtime::in_user_namespace();
    Ok(spec)
}

/// The flags an older record holds by their names.
fn arguments(older: &Value) -> Vec<String> {
    let mut arguments = Vec::new();
    for (name, value) in older.as_object().into_iter().flatten() {
        let name = name.replace('_', "-");
        let values = match value {
            Value::Array(values) => values.iter().collect(),
            value => vec![value],
        };
        arguments.extend(values.into_iter().filter_map(|value| match value {
            Value::Null => None,
            Value::String(text) => Some(format!("--{name}={text}")),
            other => Some(format!("--{name}={other}")),
        }));
    }
    arguments
}

/// The proxy variables that commands see.
pub(super) fn proxies(spec: &ContainerSpec) -> Vec<String> {
    let wanted = spec.network.http_proxy.unwrap_or(true);
    let all = environment::proxies().into_iter().filter(|_| wanted);
    all.map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use runtime::Network;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_older_record_says_the_same() {
        let settings = json!({
            "add_host": ["db:10.0.0.1"], "cap_add": ["NET_ADMIN"], "cgroup_parent": null,
            "cpu_shares": 512, "http_proxy": false, "memory": "64m", "network": "none",
            "pid": "host", "dns": ["9.9.9.9"], "ulimit": ["nofile=5:6"], "isolation": "",
        });
        let state = State { settings, ..State::default() };
        let spec = super::settings(&state).unwrap();
        assert_eq!(spec.network.hosts[0].0, "db");
        assert_eq!(spec.network.mode, Some(Network::None));
        assert_eq!(spec.isolation.cap_add, ["NET_ADMIN"]);
        assert_eq!((spec.limits.memory, spec.limits.cpu_shares), (Some(64 << 20), Some(512)));
        assert!(spec.isolation.host_pid() && proxies(&spec).is_empty());
        assert_eq!((spec.network.dns.servers.len(), spec.limits.ulimits.len()), (1, 1));
        let mut spec = spec;
        spec.isolation.user_namespace = false;
        let state = State { spec: spec.clone(), ..State::default() };
        let text = serde_json::to_string(&state).unwrap();
        let again: State = serde_json::from_str(&text).unwrap();
        assert_eq!(again, state);
    }
}
