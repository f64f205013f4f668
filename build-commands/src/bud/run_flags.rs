//! What the commands of `RUN` may do, as a build's flags or a kept failure say.

use builder::debug::FailedCommand;
use builder::{Network, RunOptions};
use options::Failure;
use options::container::{MapFlags, SharedFlags, refuse_containers, refuse_volumes};
use runtime::{ContainerSpec, Membership};

/// What commands get.
///
/// # Errors
/// Values that are not understood or not supported, by name.
pub(crate) fn options(flags: &SharedFlags, maps: &MapFlags) -> Result<RunOptions, Failure> {
    let base = flags.completed(maps)?;
    refuse_volumes(&base)?;
    refuse_containers(&base)?;
    refuse_addresses(&base)?;
    Ok(RunOptions { base, ..RunOptions::default() })
}

/// Commands of a build run beside each other, so none of them has an address for itself.
fn refuse_addresses(base: &ContainerSpec) -> Result<(), Failure> {
    let fixed = |one: &&Membership| one.ip.is_some() || one.ip6.is_some() || one.mac.is_some();
    match base.network.networks.iter().find(fixed) {
        None => Ok(()),
        Some(one) => Err(Failure::usage(format!(
            "--network {}: the commands of a build cannot have a fixed address, as several run at once",
            one.network
        ))
        .hint("leave out ip, ip6 and mac")),
    }
}

/// The network of commands whose instruction names none.
pub(crate) fn network(spec: &ContainerSpec) -> Network {
    match spec.network.mode {
        None | Some(runtime::Network::Private) => Network::Default,
        Some(runtime::Network::None) => Network::None,
        Some(runtime::Network::Host) => Network::Host,
    }
}

/// Whether commands get the proxy variables.
pub(crate) fn wants_proxy(spec: &ContainerSpec) -> bool {
    spec.network.http_proxy.unwrap_or(true)
}

/// What flags of an older record say: of a kept failure, or of provenance.
///
/// # Errors
/// They no longer hold: a directory is gone, say.
pub(crate) fn recorded(flags: &[String]) -> Result<ContainerSpec, Failure> {
    SharedFlags::parse(flags)?.spec()
}

/// How the commands of the build ran that a failure was kept of.
///
/// # Errors
/// As [`recorded`].
pub(crate) fn kept(failed: &FailedCommand) -> Result<ContainerSpec, Failure> {
    let mut spec = match &failed.run {
        Some(spec) => spec.clone(),
        None => recorded(&failed.flags)?,
    };
    spec.isolation.user_namespace = runtime::in_user_namespace();
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_record_of_a_failure_is_read_from_its_flags() {
        let flags = ["--network=none", "--memory=64m", "--http-proxy=false"].map(str::to_owned);
        let spec = recorded(&flags).unwrap();
        assert_eq!(network(&spec), Network::None);
        assert_eq!(spec.limits.memory, Some(64 << 20));
        assert!(!wants_proxy(&spec) && wants_proxy(&ContainerSpec::default()));
        assert_eq!(network(&ContainerSpec::default()), Network::Default);
    }
}
