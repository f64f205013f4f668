//! Networks in the format of CNI, with the plugins of Debian: addresses, ports, and what is left after
//! a bad end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use e2e::netns::{Netns, holder, kill, parent};
use e2e::{Bench, eventually, peer, root, user::User};

const PLUGINS: &str = "/usr/lib/cni";

/// A bench on a machine of its own, with a network of one bridge; nothing where that is not possible.
fn machine() -> Option<(Netns, Bench)> {
    let plugins = ["bridge", "host-local", "portmap"].map(|name| format!("{PLUGINS}/{name}"));
    if !root() || ["ip", "iptables"].iter().any(|program| peer(program).is_none()) {
        return None;
    }
    if plugins.iter().any(|plugin| peer(plugin).is_none()) {
        return None;
    }
    let netns = Netns::enter();
    let bench = Bench::new();
    bench.busybox();
    let addresses = addresses(&bench).parent().expect("a directory").to_owned();
    bench.write(
        "net.d/10-net.conflist",
        format!(
            r#"{{"cniVersion": "0.4.0", "name": "net", "plugins": [
                {{"type": "bridge", "bridge": "cni-test0", "isGateway": true, "ipMasq": true,
                  "ipam": {{"type": "host-local", "dataDir": "{}", "routes": [{{"dst": "0.0.0.0/0"}}],
                            "ranges": [[{{"subnet": "10.207.0.0/24"}}]]}}}},
                {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}"#,
            addresses.display()
        ),
    );
    bench.write("net.d/20-none.conf", r#"{"name": "none-such", "type": "no-plugin"}"#);
    Some((netns, bench))
}

/// Where the plugin keeps the addresses that it has given.
fn addresses(bench: &Bench) -> PathBuf {
    bench.path().join("addresses/net")
}

/// The addresses that the plugin has given.
fn given(bench: &Bench) -> Vec<String> {
    let entries = std::fs::read_dir(addresses(bench)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("10.")).collect()
}

fn serve(bench: &Bench, flags: &[&str]) {
    let place = format!("--cni-config-dir={}", bench.path().join("net.d").display());
    let line = ["run", "-d", "--name=one", "--hostname=one", &place, "--network=cni:net"];
    let command = ["busybox", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
    bench.rbuild([&line[..], flags, &command].concat()).ok();
}

fn inspect(bench: &Bench, template: &str) -> String {
    bench.rbuild(["inspect", "--type=container", "-f", template, "one"]).ok().text().to_owned()
}

/// What the web server at an address says.
fn answer(at: &str) -> Option<String> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.split_once("\r\n\r\n")?.1.to_owned())
}

/// A number that inspect shows.
fn number(bench: &Bench, template: &str) -> u32 {
    inspect(bench, template).parse().expect("a number")
}

#[test]
fn a_container_on_a_network_of_cni_has_its_address_and_ports_until_it_ends() {
    let Some((_netns, bench)) = machine() else { return };
    serve(&bench, &["--publish=8080:80"]);
    let address = inspect(&bench, "{{(index .NetworkSettings.Networks \"cni:net\").IPAddress}}");
    assert_eq!(given(&bench), std::slice::from_ref(&address));
    eventually("it serves", || answer(&format!("{address}:80")).is_some());
    for at in [format!("{address}:80"), "198.51.100.1:8080".to_owned()] {
        assert_eq!(answer(&at).as_deref(), Some("one\n"), "{at}");
    }
    let mac = inspect(&bench, "{{(index .NetworkSettings.Networks \"cni:net\").MacAddress}}");
    let line = ["exec", "one", "cat", "/sys/class/net/eth0/address"];
    assert_eq!(bench.rbuild(line).ok().text(), mac);
    assert_eq!(bench.rbuild(["port", "one"]).ok().stdout, "80/tcp -> 0.0.0.0:8080\n");
    bench.rbuild(["network", "connect", "cni:net", "one"]).fails(&["cni:net", "--network"]);
    // It has its networks again when it is started again.
    bench.rbuild(["restart", "-t", "0", "one"]).ok();
    eventually("it serves", || answer("198.51.100.1:8080").is_some());
    assert_eq!(given(&bench).len(), 1);
    bench.rbuild(["stop", "-t", "0", "one"]).ok();
    eventually("its address is free", || given(&bench).is_empty());
    bench.rbuild(["rm", "one"]).ok();
}

#[test]
fn plugins_check_a_container_on_demand() {
    let Some((_netns, bench)) = machine() else { return };
    let text = std::fs::read_to_string(bench.path().join("net.d/10-net.conflist")).expect("a file");
    // The check of portmap 1.1 fails where a container has no IPv6.
    let (start, _) = text.split_once(",\n                {\"type\": \"portmap\"").expect("a list");
    bench.write("net.d/10-net.conflist", format!("{start}]}}"));
    serve(&bench, &["--cap-add=NET_ADMIN"]);
    bench.rbuild(["network", "reload", "one"]).ok();
    bench.rbuild(["exec", "one", "ip", "address", "flush", "dev", "eth0"]).ok();
    bench.rbuild(["network", "reload", "one"]).fails(&["cni:net", "bridge", "CHECK"]);
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn commands_of_builds_are_on_networks_of_cni() {
    let Some((_netns, bench)) = machine() else { return };
    let place = format!("--cni-config-dir={}", bench.path().join("net.d").display());
    let line = "ip address show dev eth0 | grep -q 'inet 10.207.0.'";
    bench.write("context/Dockerfile", format!("FROM localhost/busybox\nRUN {line}\n"));
    bench.rbuild(["bud", &place, "--network=cni:net", "context"]).ok();
    bench.rbuild(["from", "--name=work", "busybox"]).ok();
    let command = ["work", "--", "sh", "-c", line];
    bench.rbuild([&["run", &place, "--network=cni:net"][..], &command].concat()).ok();
    // The directories are kept with the container.
    bench.rbuild(["from", "--name=kept", &place, "--network=cni:net", "busybox"]).ok();
    bench.rbuild(["run", "kept", "--", "sh", "-c", line]).ok();
    let flags = ["run", "--rm", &place, "--network=cni:net:ip=10.207.0.77", "busybox"];
    let told = bench.rbuild([&flags[..], &["hostname", "-i"]].concat()).ok().stdout;
    assert!(told.contains("10.207.0.77"), "{told}");
    eventually("all addresses are free", || given(&bench).is_empty());
}

/// Kills the processes that have files of containers of the bench open.
fn kill_all(bench: &Bench) {
    let place = bench.store().join("containers");
    for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let fds = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let own = |fd: std::fs::DirEntry| {
            std::fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(&place))
        };
        if pid != std::process::id() && fds.into_iter().any(own) {
            kill(pid);
        }
    }
}

#[test]
fn a_killed_process_leaves_no_address_of_cni() {
    let Some((_netns, bench)) = machine() else { return };
    // The process beside the container: another one takes over.
    serve(&bench, &["--publish=8080:80"]);
    let first = inspect(&bench, "{{(index .NetworkSettings.Networks \"cni:net\").IPAddress}}");
    let pid = number(&bench, "{{.State.Pid}}");
    let before = holder(pid).expect("a holder");
    kill(before);
    eventually("another one comes", || {
        let template = "{{(index .NetworkSettings.Networks \"cni:net\").IPAddress}}";
        holder(pid).is_some_and(|now| now != before) && inspect(&bench, template) == first
    });
    assert_eq!(answer("198.51.100.1:8080").as_deref(), Some("one\n"));
    // And its guard too: the end of the container gives the address back.
    let now = holder(pid).expect("a holder");
    kill(parent(now).expect("a guard"));
    kill(now);
    assert_eq!(answer("198.51.100.1:8080").as_deref(), Some("one\n"));
    bench.rbuild(["rm", "-f", "one"]).ok();
    eventually("its address is free", || given(&bench).is_empty());
    // All of it: the next container does.
    serve(&bench, &[]);
    let pid = number(&bench, "{{.State.Pid}}");
    let now = holder(pid).expect("a holder");
    kill(parent(now).expect("a guard"));
    kill(now);
    kill_all(&bench);
    if std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists() {
        kill(pid);
    }
    eventually("it has ended", || inspect(&bench, "{{.State.Running}}") == "false");
    let place = format!("--cni-config-dir={}", bench.path().join("net.d").display());
    bench.rbuild(["run", "--rm", &place, "--network=cni:net", "busybox", "true"]).ok();
    eventually("all addresses are free", || given(&bench).is_empty());
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn what_is_wrong_with_a_network_of_cni_is_one_clear_error() {
    let Some((_netns, bench)) = machine() else { return };
    let place = format!("--cni-config-dir={}", bench.path().join("net.d").display());
    let run = |flags: &[&str]| {
        let line = [&["run", "--rm", &place], flags, &["busybox", "true"]].concat();
        bench.rbuild(line).code(125)
    };
    run(&["--network=cni:other"]).fails(&["cni:other", "net.d", "net, none-such"]);
    run(&["--network=cni:none-such"]).fails(&["cni:none-such", "no-plugin", PLUGINS]);
    run(&["--network=cni:net", "--cni-plugin-path=/nowhere"]).fails(&["bridge", "/nowhere"]);
    run(&["--network=cni:none-such", "--publish=80"]).fails(&["cni:none-such", "portMappings"]);
    run(&["--network=cni:net:ip=10.9.0.1"]).fails(&["cni:net", "10.9.0.1"]);
    run(&["--network=cni:net:alias=db"]).fails(&["cni:net", "aliases"]);
    run(&["--network=cni:net", "--add-host=me:host-gateway"]).fails(&["cni:net", "host-gateway"]);
    assert_eq!(given(&bench), [""; 0]);
    if let Some(user) = User::get() {
        let bench = Bench::of(user.uid, user.gid);
        bench.busybox();
        let line = ["run", "--rm", "--network=cni:net", "busybox", "true"];
        bench.rbuild(line).code(125).fails(&["cni:net", "root"]);
        bench.write("built/Dockerfile", "FROM busybox\nRUN true\n");
        bench.rbuild(["bud", "--network=cni:net", "built"]).code(125).fails(&["cni:net", "root"]);
    }
}
