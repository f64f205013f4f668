//! Devices of the machine's network that a bundle asks for.

use std::process::Command;

use e2e::{root, run};
use serde_json::json;

use super::{Bundle, changed, list};

#[test]
fn a_container_gets_devices_of_the_machine() {
    if !root() {
        return;
    }
    let _machine = e2e::netns::Netns::enter();
    let ip = |line: &str| run(Command::new("ip").args(line.split(' ')));
    ip("link add gift0 type veth peer name left1").ok();
    ip("address add 192.0.2.7/24 dev gift0").ok();
    ip("address add 192.0.2.8/24 dev gift0 valid_lft 900 preferred_lft 900").ok();
    ip("address add 2001:db8:7::7/64 dev gift0 nodad").ok();
    ip("link add other0 type veth peer name left0").ok();
    let bundle = Bundle::new("devices");
    let look = "ip=/bin/busybox; $ip ip -o address show scope global | $ip tr -s ' ' | $ip cut -d' ' -f2-4; \
        for one in /sys/class/net/*; do echo ${one##*/}; done; cat /sys/class/net/eth9/flags";
    let devices = json!({"gift0": {"name": "eth9"}, "other0": {}});
    let ran = changed(&bundle, look, |config| config["linux"]["netDevices"] = devices).ok();
    let expected = "eth9 inet 192.0.2.7/24\neth9 inet6 2001:db8:7::7/64\neth9\nlo\nother0\n";
    assert!(ran.stdout.starts_with(expected), "{}", ran.told());
    // Up.
    let flags = ran.stdout.trim().rsplit('\n').next().expect("flags").trim_start_matches("0x");
    assert_eq!(u32::from_str_radix(flags, 16).expect("a number") & 1, 1);
    // It went with its namespace.
    assert_ne!(ip("link show gift0").code, 0);
    ip("link add gift1 type veth peer name left2").ok();
    for (name, device, words) in [
        ("nosuch0", json!({}), "finding device nosuch0"),
        ("gift1", json!({"name": "lo"}), "moving device gift1"),
        ("gift1", json!({"name": "sixteen--letters"}), "sixteen--letters"),
    ] {
        let devices = json!({name: device});
        let ran = changed(&bundle, "true", |config| config["linux"]["netDevices"] = devices);
        ran.fails(&["linux.netDevices", words]);
    }
    // Where it failed it is still there.
    ip("link show gift1").ok();
    let shared = changed(&bundle, "true", |config| {
        config["linux"]["netDevices"] = json!({"gift1": {}});
        list(config, "/linux/namespaces").retain(|one| one["type"] != "network");
    });
    shared.fails(&["linux.netDevices without a network namespace"]);
}
