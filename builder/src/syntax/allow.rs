//! Entitlements.

use super::SyntaxError;
use crate::Allow;

/// Adds an entitlement: `security.insecure`, `network.host`, `device` or `device=/dev/PATH`.
///
/// # Errors
/// It is not one of these.
pub fn allow(text: &str, allow: &mut Allow) -> Result<(), SyntaxError> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("security.insecure", "") => allow.insecure = true,
        ("network.host", "") => allow.host_network = true,
        ("device", "") => allow.all_devices = true,
        ("device", path) if path.starts_with("/dev/") => allow.devices.push(path.to_owned()),
        _ => {
            return Err(SyntaxError::new("it is not supported").hinting(
                "there are security.insecure, network.host, device and device=/dev/PATH",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlements_are_those_of_buildkit() {
        let mut all = Allow::default();
        for text in ["security.insecure", "network.host", "device", "device=/dev/fuse"] {
            allow(text, &mut all).unwrap();
        }
        assert!(all.insecure && all.host_network && all.all_devices);
        assert_eq!(all.devices, ["/dev/fuse"]);
        for text in ["", "security", "network.host=x", "device=fuse"] {
            assert!(allow(text, &mut all).is_err(), "{text}");
        }
    }
}
