//! What the user can do about an error of a library, where that is a flag or a command of ours: a
//! library does not know the command line.

use std::error::Error;

use options::{Failure, full_disk};
use task::Cause;

/// A failure that says what to do about it, where that is known.
pub fn hinted(mut failure: Failure) -> Failure {
    let known = |cause: &Cause| of(cause).or_else(|| cause.hint());
    let found = failure.cause.as_ref().and_then(|cause| known(cause).or_else(without_proc));
    failure.hint = failure.hint.or(found);
    failure
}

/// Files that are held are opened through `/proc`; the kernel calls them missing if it is.
fn without_proc() -> Option<String> {
    let there = std::path::Path::new("/proc/self/fd").exists();
    (!there).then(|| "mount /proc: this root file system has none".to_owned())
}

/// What to do about the outermost error of a chain that this knows.
fn of(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let hint = find(error, build)
            .or_else(|| find(error, store))
            .or_else(|| find(error, transport))
            .or_else(|| find(error, container))
            .or_else(|| find(error, registry))
            .or_else(|| find(error, network))
            .or_else(|| find(error, target))
            .or_else(|| find(error, leaks))
            .or_else(|| find(error, template));
        if hint.is_some() {
            return hint;
        }
        next = error.source();
    }
    None
}

/// What `hint` says of an error of its type: as it is, boxed, or carried by a stream.
fn find<E: Error + 'static>(
    error: &(dyn Error + 'static),
    hint: fn(&E) -> Option<String>,
) -> Option<String> {
    let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let carried = carried.and_then(|inner| inner.downcast_ref::<Cause>());
    let boxed = error.downcast_ref::<Cause>().or(carried);
    error.downcast_ref::<E>().or_else(|| boxed.and_then(Cause::downcast_ref::<E>)).and_then(hint)
}

fn build(error: &builder::Error) -> Option<String> {
    Some(match error {
        builder::Error::NotPulled { .. } => "leave out --pull=never".to_owned(),
        builder::Error::NotCached { .. } => "leave out --fail-if-not-cached to run it".to_owned(),
        builder::Error::Required { what: "secret", id } => format!("use --secret id={id},src=FILE"),
        builder::Error::Required { id, .. } => format!("use --ssh {id}=SOCKET"),
        builder::Error::Stale { .. } => "build without --resume".to_owned(),
        builder::Error::NotThere { what: "build", .. } => {
            "`rbuild history builds` lists what there is".to_owned()
        }
        builder::Error::File { action: "reading the lock file", .. } => {
            "`rbuild lock` makes it".to_owned()
        }
        builder::Error::Dockerfile { diagnostics, .. }
            if diagnostics.iter().any(|found| found.rule == "not-allowed") =>
        {
            "grant entitlements with --allow".to_owned()
        }
        builder::Error::NoDockerfile { .. } => "name one with --file".to_owned(),
        builder::Error::NoCommonPlatform { .. } => "name them with --platform".to_owned(),
        builder::Error::Command { full: Some(store), .. } => full_disk(store),
        builder::Error::Command { kept: Some(id), .. } => format!(
            "its files are kept: `rbuild debug shell {id}` opens them, \
             `rbuild bud --resume {id}` continues from them, `rbuild debug rm {id}` removes them"
        ),
        _ => return None,
    })
}

fn store(error: &store::Error) -> Option<String> {
    match error {
        store::Error::Full { .. } => {
            Some("remove images with `rbuild rmi`, or raise --disk-limit".to_owned())
        }
        store::Error::NoList { name } => Some(format!("`rbuild manifest create {name}` makes one")),
        store::Error::OneImage { .. } => {
            Some("`rbuild manifest create --amend` takes another name".to_owned())
        }
        _ => None,
    }
}

fn transport(error: &transport::Error) -> Option<String> {
    match error {
        transport::Error::FileName { .. } => {
            Some("`rcopy blob get` fetches single blobs".to_owned())
        }
        transport::Error::Floor { .. } => Some(
            "look at what --delete --dry-run says, then allow it with --delete-limit".to_owned(),
        ),
        _ => None,
    }
}

fn container(error: &containers::Error) -> Option<String> {
    match error {
        containers::Error::Port { .. } => {
            Some("--network private and --network bridge have ports".to_owned())
        }
        containers::Error::NoVolume { .. } => {
            Some("`rbuild volume ls` lists the volumes".to_owned())
        }
        // It stands in for the error, which is not in the chain.
        containers::Error::Network(error) => network(error),
        _ => None,
    }
}

fn registry(error: &registry_client::Error) -> Option<String> {
    use registry_client::{Error, Flaw};
    match error {
        Error::Certificate { registry, flaw: Flaw::Issuer | Flaw::Authority, .. } => Some(format!(
            "put the certificate authority of {registry} into certs.d, or use --tls-verify=false"
        )),
        Error::NoTls { registry, .. } => Some(format!(
            "use --tls-verify=false, or set `insecure = true` for {registry} in registries.conf"
        )),
        _ => None,
    }
}

fn network(error: &network::Error) -> Option<String> {
    match error {
        network::Error::NoDevice { .. } => Some(
            "the kernel needs module tun (and an accessible /dev/net/tun) or veth; \
             --network host uses the network of this machine"
                .to_owned(),
        ),
        network::Error::NoNetwork { .. } => Some(
            "`rbuild network ls` lists the networks, `rbuild network create` makes one".to_owned(),
        ),
        network::Error::NetworkInUse { name, by } => {
            Some(format!("stop it, or use `rbuild network disconnect {name} {by}`"))
        }
        _ => None,
    }
}

fn target(error: &bake::Error) -> Option<String> {
    match error {
        bake::Error::NoTarget { closest: None, .. } => {
            Some("`rbuild bake --list targets` lists what there is".to_owned())
        }
        _ => None,
    }
}

fn leaks(_: &builder::Leaks) -> Option<String> {
    let text = "give secrets to a build with --secret; to allow a finding, write its rule and place \
                into a file and name it with --secret-allow, or use --secret-scan=warn";
    Some(text.to_owned())
}

fn template(_: &::format::Error) -> Option<String> {
    Some("`--format json` shows which fields there are".to_owned())
}

#[cfg(test)]
mod tests {
    use task::Kind;

    use super::*;

    #[test]
    fn a_full_disk_is_found_below_everything_that_failed_because_of_it() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let inner = builder::Error::File { action: "writing", path: "x".into(), source: full };
        let part = |source| builder::Error::Part { action: "copying".into(), source };
        let outer = part(Cause::new(part(Cause::new(inner))));
        assert_eq!(Failure::from(outer).kind, Kind::NoSpace);
        assert_eq!(Failure::from(builder::Error::TooLarge).kind, Kind::Invalid);
    }

    #[test]
    fn an_error_of_a_library_gets_the_flag_that_helps() {
        let needed = builder::Error::Required { what: "secret", id: "key".to_owned() };
        let nested = builder::Error::Part { action: "x".into(), source: Cause::new(needed) };
        let hint = hinted(Failure::from(nested)).hint;
        assert_eq!(hint.as_deref(), Some("use --secret id=key,src=FILE"));
    }
}
