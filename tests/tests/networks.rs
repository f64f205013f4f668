//! Networks between containers: who reaches whom, by what name, and what is left after a bad end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::netns::{Netns, holder, kill, parent};
use e2e::{Bench, Ran, eventually, peer, root, user::User};

/// Does the same as root, for whom the kernel carries networks, and as an ordinary user.
fn as_everybody(work: impl Fn(&Bench)) {
    if !root() || peer("ip").is_none() {
        return;
    }
    let _netns = Netns::enter();
    let user = User::get();
    let of = |user: &Arc<User>| Bench::of(user.uid, user.gid);
    for bench in user.iter().map(of).chain([Bench::new()]) {
        bench.busybox();
        work(&bench);
        bench.rbuild(["rm", "-f", "-a"]);
    }
}

/// Runs a command in a container that is removed again.
fn once(bench: &Bench, flags: &[&str], command: &[&str]) -> Ran {
    bench.rbuild([&["run", "--rm"], flags, &["busybox"], command].concat())
}

/// Starts a web server that says its host name.
fn serve(bench: &Bench, name: &str, flags: &[&str]) {
    let (name, host) = (format!("--name={name}"), format!("--hostname={name}"));
    let command = ["busybox", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
    bench.rbuild([&["run", "-d", &name, &host], flags, &command].concat()).ok();
}

/// What a container sees of a web server: its host name.
fn fetch(bench: &Bench, flags: &[&str], host: &str) -> Ran {
    let line = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do busybox timeout 5 wget -q -O- http://{host}/hostname && exit 0; \
         sleep 0.2; done; exit 1"
    );
    once(bench, flags, &["sh", "-c", &line])
}

fn inspect(bench: &Bench, name: &str, template: &str) -> String {
    bench.rbuild(["inspect", "--type=container", "--format", template, name]).ok().text().to_owned()
}

#[test]
fn containers_on_a_network_find_each_other_by_name_and_address() {
    as_everybody(|bench| {
        bench.rbuild(["network", "create", "--subnet=10.201.0.0/24", "web"]).ok();
        serve(bench, "one", &["--network=web:ip=10.201.0.9", "--network-alias=first"]);
        let address = inspect(bench, "one", "{{.NetworkSettings.Networks.web.IPAddress}}");
        assert_eq!(address, "10.201.0.9");
        let short = inspect(bench, "one", "{{slice .Id 0 12}}");
        for host in ["one", "ONE", "first", "one.web", &short, "10.201.0.9"] {
            assert_eq!(fetch(bench, &["--network=web"], host).ok().stdout, "one\n", "{host}");
        }
        // Others see neither its name nor its address.
        for network in ["private", "bridge"] {
            let flags = [format!("--network={network}")];
            for host in ["one", "10.201.0.9"] {
                let line = format!("busybox timeout 2 wget -q -O- http://{host}/hostname");
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                assert_ne!(once(bench, &flags, &["sh", "-c", &line]).code, 0, "{network} {host}");
            }
        }
        // Reverse, and itself by its own name.
        let line = "busybox nslookup 10.201.0.9 | grep -q 'one.web' && busybox ping -c1 -W5 one && hostname -i";
        let told = once(bench, &["--network=web", "--hostname=me"], &["sh", "-c", line]).ok();
        assert!(told.stdout.contains("10.201.0."), "{}", told.told());
    });
}

#[test]
fn networks_are_made_shown_and_removed_as_docker_does() {
    as_everybody(|bench| {
        let flags =
            ["--subnet=10.202.0.0/24", "--gateway=10.202.0.254", "--ip-range=10.202.0.64/26"];
        let more = ["--label=a=1", "--opt=com.docker.network.driver.mtu=1400", "web"];
        let id = bench.rbuild([&["network", "create"], &flags[..], &more].concat()).ok();
        let show = |template: &str| {
            bench.rbuild(["network", "inspect", "-f", template, "web"]).ok().text().to_owned()
        };
        assert_eq!(show("{{.Id}}"), id.text());
        let config = "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}} {{.IPRange}}{{end}}";
        assert_eq!(show(config), "10.202.0.0/24 10.202.0.254 10.202.0.64/26");
        let ls = |flags: &[&str]| {
            let line = [&["network", "ls", "--format={{.Name}}"], flags].concat();
            bench.rbuild(line).ok().stdout
        };
        assert_eq!(ls(&[]), "bridge\nweb\n");
        assert_eq!(ls(&["--filter=label=a=1"]), "web\n");
        assert_eq!(ls(&["--filter=type=builtin"]), "bridge\n");
        let line = "cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address; ip route";
        let flags = ["--network=web", "--mac-address=02:00:00:00:00:07"];
        let told = once(bench, &flags, &["sh", "-c", line]).ok().stdout;
        assert!(told.starts_with("1400\n02:00:00:00:00:07\n"), "{told}");
        assert!(told.contains("default via 10.202.0.254"), "{told}");
        assert!(told.contains("src 10.202.0.64") || told.contains("10.202.0.0/24"), "{told}");
        serve(bench, "one", &["--network=web"]);
        let member = "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}";
        assert!(show(member).starts_with("one 10.202.0."));
        // As docker: it adds the services of a swarm, which no network of one machine has.
        let plain = bench.rbuild(["network", "inspect", "web"]).ok().stdout;
        assert_eq!(bench.rbuild(["network", "inspect", "--verbose", "web"]).ok().stdout, plain);
        bench.rbuild(["network", "rm", "web"]).fails(&["web", "one"]);
        assert_eq!(ls(&["--filter=dangling=true"]), "");
        let ps = ["ps", "--filter=network=web", "--format={{.Names}} {{.Networks}}"];
        assert_eq!(bench.rbuild(ps).ok().stdout, "one web\n");
        bench.rbuild(["rm", "-f", "one"]).ok();
        bench.rbuild(["network", "exists", "web"]).ok();
        assert_eq!(bench.rbuild(["network", "prune", "-f"]).ok().stdout, "web\n");
        bench.rbuild(["network", "exists", "web"]).code(1);
    });
}

#[test]
fn what_is_wrong_with_a_network_is_one_clear_error() {
    as_everybody(|bench| {
        bench.rbuild(["network", "create", "--subnet=10.203.0.0/24", "web"]).ok();
        bench.write("context/Dockerfile", "FROM localhost/busybox\nRUN true\n");
        for (line, words) in [
            (&["network", "create", "web"][..], &["web", "already"][..]),
            (
                &["network", "create", "--subnet=10.203.0.0/16", "b"],
                &["10.203.0.0/16", "web", "hint"],
            ),
            (&["network", "create", "--gateway=10.9.0.1", "b"], &["10.9.0.1", "subnet"]),
            (&["network", "create", "--opt=a=b", "b"], &["a=b", "mtu"]),
            (&["network", "create", "-d", "overlay", "b"], &["overlay", "not supported"]),
            (&["network", "rm", "bridge"], &["bridge", "always"]),
            (&["network", "inspect", "none-such"], &["none-such", "network ls"]),
            (&["run", "--rm", "--network=no", "busybox", "true"], &["\"no\"", "network create"]),
            (
                &["run", "--rm", "--network=web", "--ip=10.9.0.9", "busybox", "true"],
                &["10.9.0.9", "10.203.0.0/24"],
            ),
            (&["run", "--rm", "--ip=10.9.0.9", "busybox", "true"], &["--ip", "--network"]),
            (&["run", "--rm", "--network=web", "--network=host", "busybox"], &["host", "alone"]),
            (&["run", "--rm", "--network=pasta:-t,80", "busybox"], &["pasta", "published"]),
            (&["bud", "--network=web:ip=10.203.0.9", "context"], &["web", "fixed address"]),
            (&["bud", "--network=no", "context"], &["\"no\"", "network create"]),
            (&["bud", "--network=container:a", "context"], &["container:NAME", "named network"]),
        ] {
            bench.rbuild(line).fails(words);
        }
        serve(bench, "one", &["--network=web:ip=10.203.0.9"]);
        let taken = once(bench, &["--network=web:ip=10.203.0.9"], &["true"]);
        taken.code(125).fails(&["10.203.0.9", "container one", "hint"]);
    });
}

#[test]
fn a_container_is_put_on_networks_and_taken_off_while_it_runs() {
    as_everybody(|bench| {
        bench.rbuild(["network", "create", "a"]).ok();
        bench.rbuild(["network", "create", "b"]).ok();
        serve(bench, "one", &["--network=a"]);
        serve(bench, "two", &[]);
        bench.rbuild(["network", "connect", "--alias=deux", "b", "two"]).ok();
        bench.rbuild(["network", "connect", "b", "one"]).ok();
        bench.rbuild(["network", "connect", "b", "one"]).fails(&["one", "already"]);
        let from_one = |host: &str| {
            let url = format!("http://{host}/hostname");
            bench.rbuild(["exec", "one", "busybox", "timeout", "5", "wget", "-q", "-O-", &url])
        };
        assert_eq!(from_one("two").ok().stdout, "two\n");
        assert_eq!(from_one("deux").ok().stdout, "two\n");
        // The other one has an uplink of its own, and still finds its neighbour.
        let url = "http://one/hostname";
        let from_two = ["exec", "two", "busybox", "timeout", "5", "wget", "-q", "-O-", url];
        assert_eq!(bench.rbuild(from_two).ok().stdout, "one\n");
        // It is where it was when it starts again.
        bench.rbuild(["restart", "-t", "0", "one"]).ok();
        assert_eq!(from_one("deux").ok().stdout, "two\n");
        bench.rbuild(["network", "disconnect", "b", "two"]).ok();
        assert_ne!(from_one("deux").code, 0);
        bench.rbuild(["exec", "two", "sh", "-c", "! test -e /sys/class/net/eth1"]).ok();
        bench.rbuild(["network", "disconnect", "b", "two"]).fails(&["two", "not on it"]);
        bench.rbuild(["network", "disconnect", "-f", "b", "two"]).ok();
    });
}

/// A name server of this machine that knows no name; it ends with this value.
struct NameServer {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NameServer {
    /// The flag by which it is asked.
    const FLAG: &str = "--dns=127.0.0.78";

    fn start() -> NameServer {
        let server = UdpSocket::bind(("127.0.0.78", 53)).expect("a socket");
        server.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            while !end.load(Ordering::Relaxed) {
                let Ok((count, from)) = server.recv_from(&mut question) else { continue };
                // The same, as an answer: there is no such name.
                question[2..4].copy_from_slice(&[0x81, 0x83]);
                let _ = server.send_to(&question[..count], from);
            }
        });
        NameServer { over, thread: Some(thread) }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_renamed_container_is_found_by_its_new_name_at_once() {
    as_everybody(|bench| {
        let _server = NameServer::start();
        let flags = ["--network=web", NameServer::FLAG];
        bench.rbuild(["network", "create", "web"]).ok();
        serve(bench, "old", &["--network=web"]);
        fetch(bench, &flags, "old").ok();
        bench.rbuild(["rename", "old", "new"]).ok();
        fetch(bench, &flags, "new").ok();
        let gone = once(bench, &flags, &["busybox", "nslookup", "old"]);
        assert_ne!(gone.code, 0, "{}", gone.told());
        assert!(gone.told().contains("can't find old: NXDOMAIN"), "{}", gone.told());
        bench.rbuild(["rm", "-f", "new"]).ok();
        bench.rbuild(["network", "rm", "web"]).ok();
    });
}

#[test]
fn a_container_with_a_name_server_of_its_own_finds_its_neighbours_and_asks_that_server() {
    as_everybody(|bench| {
        bench.rbuild(["network", "create", "web"]).ok();
        serve(bench, "db", &["--network=web"]);
        let address = "127.0.0.77";
        let server = UdpSocket::bind((address, 53)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let flags = ["--network=web", "--dns", address];
        fetch(bench, &flags, "db").ok();
        let file = once(bench, &flags, &["cat", "/etc/resolv.conf"]).ok().stdout;
        assert!(!file.contains(address) && file.contains("nameserver 10."), "{file}");
        let asked = std::thread::spawn(move || {
            let mut question = [0; 512];
            loop {
                let (count, from) = server.recv_from(&mut question).unwrap();
                // The same, as an answer: there is no such name.
                let mut answer = question[..count].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x83]);
                server.send_to(&answer, from).unwrap();
                if question[..count].windows(9).any(|part| part == b"elsewhere") {
                    return;
                }
            }
        });
        let ran = once(bench, &flags, &["busybox", "nslookup", "elsewhere.example"]);
        assert!(ran.told().contains("can't find elsewhere.example"), "{}", ran.told());
        asked.join().unwrap();
        bench.rbuild(["rm", "-f", "db"]).ok();
        bench.rbuild(["network", "rm", "web"]).ok();
    });
}

#[test]
fn a_container_on_two_networks_is_found_on_both_and_joins_them_for_nobody() {
    as_everybody(|bench| {
        bench.rbuild(["network", "create", "a"]).ok();
        bench.rbuild(["network", "create", "--internal", "b"]).ok();
        serve(bench, "both", &["--network=a", "--network=b:interface_name=inner0"]);
        serve(bench, "left", &["--network=a"]);
        for network in ["--network=a", "--network=b"] {
            assert_eq!(fetch(bench, &[network], "both").ok().stdout, "both\n");
        }
        assert_ne!(once(bench, &["--network=b"], &["busybox", "nslookup", "left"]).code, 0);
        bench.rbuild(["exec", "both", "test", "-e", "/sys/class/net/inner0"]).ok();
    });
}

/// A line of a shell that reads a page until it is what a container serves.
fn reading(host: &str) -> String {
    format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do \
         busybox timeout 5 wget -q -O- http://{host}/hostname | grep -qx one && exit 0; sleep 0.2; \
         done; exit 1"
    )
}

#[test]
fn commands_of_builds_are_on_the_named_network_of_the_build() {
    as_everybody(|bench| {
        bench.rbuild(["network", "create", "web"]).ok();
        serve(bench, "one", &["--network=web"]);
        let service = Service::start();
        let shut = format!("! busybox timeout 2 wget -q -O- http://127.0.0.1:{}/", service.port);
        let file = format!(
            "FROM localhost/busybox AS base\nRUN {}\nRUN {shut}\n\
             RUN --network=none ! test -e /sys/class/net/eth0\n\
             RUN --network=default busybox nslookup one.web\n",
            reading("one")
        );
        bench.write("context/Dockerfile", file);
        bench.rbuild(["bud", "--network=web", "--no-cache", "context"]).ok();
        // Beside a network of its own, and on the one that is always there.
        let both = ["bud", "--network=private", "--network=web", "--no-cache", "context"];
        bench.rbuild(both).ok();
        bench.write("context/Dockerfile", format!("FROM localhost/busybox\nRUN {shut}\n"));
        bench.rbuild(["bud", "--network=bridge", "--no-cache", "context"]).ok();
        let names = "FROM localhost/busybox\nRUN busybox nslookup one\n";
        bench.write("context/Dockerfile", names);
        let _server = NameServer::start();
        let line = ["bud", "--network=bridge", NameServer::FLAG, "--no-cache", "context"];
        bench.rbuild(line).fails(&["nslookup one"]);
        bench.write("context/Dockerfile", "FROM localhost/busybox\nRUN --network=web true\n");
        bench.rbuild(["bud", "context"]).fails(&["web", "default, none, host"]);
        // Nobody of a build is left on it.
        let members = ["network", "inspect", "-f", "{{len .Containers}}", "web"];
        assert_eq!(bench.rbuild(members).ok().text(), "1");
    });
}

#[test]
fn commands_of_working_containers_are_on_named_networks() {
    as_everybody(|bench| {
        bench.rbuild(["network", "create", "--subnet=10.205.0.0/24", "web"]).ok();
        serve(bench, "one", &["--network=web"]);
        let line = reading("one");
        let run = |flags: &[&str], name: &str, line: &str| {
            bench.rbuild([&["run"], flags, &[name, "--", "sh", "-c", line]].concat())
        };
        bench.rbuild(["from", "--name=work", "busybox"]).ok();
        run(&["--network=web"], "work", &line).ok();
        let server = NameServer::start();
        assert_ne!(run(&[NameServer::FLAG], "work", "busybox nslookup one").code, 0);
        drop(server);
        let fixed = run(&["--network=web:ip=10.205.0.77"], "work", "hostname -i").ok();
        assert!(fixed.stdout.contains("10.205.0.77"), "{}", fixed.told());
        // What from says holds for each command.
        bench.rbuild(["from", "--name=kept", "--network=web", "busybox"]).ok();
        run(&[], "kept", &line).ok();
        run(&["--network=none"], "kept", "! test -e /sys/class/net/eth0").ok();
        bench.rbuild(["rm", "-f", "one"]).ok();
        bench.rbuild(["network", "rm", "web"]).ok();
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_others_have() {
    as_everybody(|bench| {
        // Published at this machine's address, it is outside for other networks.
        let port = e2e::free_port();
        serve(bench, "outside", &[&format!("--publish={port}:80")]);
        let machine = machine_address();
        bench.rbuild(["network", "create", "--internal", "in"]).ok();
        bench.rbuild(["network", "create", "out"]).ok();
        let host = format!("{machine}:{port}");
        assert_eq!(fetch(bench, &["--network=out"], &host).ok().stdout, "outside\n");
        let url = format!("http://{host}/hostname");
        let told =
            once(bench, &["--network=in"], &["busybox", "timeout", "3", "wget", "-q", "-O-", &url]);
        assert_ne!(told.code, 0);
        once(bench, &["--network=in", "-p", "80"], &["true"]).fails(&["80", "internal"]);
        // Its loopback services are reachable where that is asked for only.
        let service = Service::start();
        let url = format!("http://me:{}/", service.port);
        let open = ["--network=out", "--add-host=me:host-gateway"];
        assert_eq!(once(bench, &open, &["wget", "-q", "-O-", &url]).ok().stdout, "hello");
        let line = format!(
            "busybox timeout 3 wget -q -O- http://$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'):{}/",
            service.port
        );
        assert_ne!(once(bench, &["--network=out"], &["sh", "-c", &line]).code, 0);
    });
}

#[test]
fn containers_have_addresses_of_ipv6_where_the_network_has() {
    as_everybody(|bench| {
        bench.rbuild(["network", "create", "--subnet=fd12:3456::/64", "--ipv6", "six"]).ok();
        serve(bench, "one", &["--network=six", "--ip6=fd12:3456::9"]);
        let seen = inspect(bench, "one", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}");
        assert_eq!(seen, "fd12:3456::9");
        assert_eq!(fetch(bench, &["--network=six"], "[fd12:3456::9]").ok().stdout, "one\n");
        let line = "busybox nslookup -type=aaaa one | grep -q fd12:3456::9";
        once(bench, &["--network=six"], &["sh", "-c", line]).ok();
    });
}

#[test]
fn published_ports_lead_onto_named_networks() {
    as_everybody(|bench| {
        let (tcp, udp) = (e2e::free_port(), e2e::free_port());
        bench.rbuild(["network", "create", "web"]).ok();
        let publish = format!("--publish=127.0.0.1:{tcp}:80");
        let second = format!("--publish={udp}:53/udp");
        serve(bench, "one", &["--network=web", &publish, &second]);
        eventually("the port answers", || answer(tcp).is_some_and(|text| text.ends_with("one\n")));
        let told = bench.rbuild(["port", "one"]).ok().stdout;
        assert!(told.contains(&format!("80/tcp -> 127.0.0.1:{tcp}")), "{told}");
        assert!(told.contains(&format!("53/udp -> 0.0.0.0:{udp}")), "{told}");
        let ports = inspect(bench, "one", "{{json .NetworkSettings.Ports}}");
        assert!(ports.contains(&format!("\"HostPort\":\"{tcp}\"")), "{ports}");
        assert!(bench.rbuild(["ps"]).ok().stdout.contains(&format!("127.0.0.1:{tcp}->80/tcp")));
        let again = once(bench, &["--network=web", &publish], &["true"]);
        again.code(125).fails(&[&format!("127.0.0.1:{tcp}/tcp"), "another"]);
        bench.rbuild(["rm", "-f", "one"]).ok();
        eventually("the port is free", || UdpSocket::bind(("0.0.0.0", udp)).is_ok());
        eventually("the port is free", || TcpListener::bind(("127.0.0.1", tcp)).is_ok());
    });
}

/// The processes that carry networks of a bench, or hold those of its containers.
fn processes(bench: &Bench, mark: &str) -> Vec<u32> {
    let place = bench.store().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        if words[0] == mark && words.get(1).is_some_and(|word| word.contains(&place)) {
            found.push(pid);
        }
    }
    found
}

#[test]
fn a_network_outlives_the_kill_of_the_process_that_carries_it() {
    as_everybody(|bench| {
        let port = e2e::free_port();
        bench.rbuild(["network", "create", "web"]).ok();
        serve(bench, "one", &["--network=web", &format!("--publish=127.0.0.1:{port}:80")]);
        serve(bench, "two", &["--network=web"]);
        let place = |name| inspect(bench, name, "{{.NetworkSettings.Networks.web.IPAddress}}");
        let before = (place("one"), place("two"));
        for _ in 0..5 {
            let carrier = processes(bench, "container-network-bridge");
            assert_eq!(carrier.len(), 1, "one process carries the network");
            kill(carrier[0]);
            eventually("both are back", || (place("one"), place("two")) == before);
            let url = "http://two/hostname";
            eventually("they reach each other", || {
                bench
                    .rbuild(["exec", "one", "busybox", "timeout", "2", "wget", "-q", "-O-", url])
                    .stdout
                    == "two\n"
            });
            eventually("the port answers", || answer(port).is_some());
        }
        bench.rbuild(["network", "reload", "--all"]).ok();
        bench.rbuild(["rm", "-f", "one", "two"]).ok();
        eventually("nothing is left", || processes(bench, "container-network-bridge").is_empty());
        bench.rbuild(["network", "rm", "web"]).ok();
    });
}

#[test]
fn a_container_keeps_its_networks_if_the_process_that_holds_them_is_killed() {
    as_everybody(|bench| {
        let (one, two) = (e2e::free_port(), e2e::free_port());
        bench.rbuild(["network", "create", "web"]).ok();
        serve(bench, "one", &["--network=web", &format!("--publish=127.0.0.1:{one}:80")]);
        serve(bench, "two", &[&format!("--publish=127.0.0.1:{two}:80")]);
        bench.rbuild(["network", "connect", "--alias=deux", "web", "two"]).ok();
        let place = |name| inspect(bench, name, "{{.NetworkSettings.Networks.web.IPAddress}}");
        let before = (place("one"), place("two"));
        let pid = |name| inspect(bench, name, "{{.State.Pid}}").parse().expect("a pid");
        let of = |from: &str, host: &str| {
            let url = format!("http://{host}/hostname");
            let line = ["exec", from, "busybox", "timeout", "5", "wget", "-q", "-O-", &url];
            bench.rbuild(line).stdout
        };
        for _ in 0..3 {
            for (name, port) in [("one", one), ("two", two)] {
                let killed = holder(pid(name)).expect("a holder");
                kill(killed);
                let came = || holder(pid(name)).is_some_and(|now| now != killed);
                eventually("another one comes", came);
                eventually("the port answers", || answer(port).is_some());
            }
            eventually("both are back", || (place("one"), place("two")) == before);
            eventually("they find each other", || {
                of("one", "deux") == "two\n" && of("two", "one") == "one\n"
            });
        }
        // Without a guard the container continues, and says what to do.
        let last = holder(pid("one")).expect("a holder");
        kill(parent(last).expect("a guard"));
        kill(last);
        bench.rbuild(["network", "create", "b"]).ok();
        bench.rbuild(["network", "connect", "b", "one"]).fails(&["killed", "restart"]);
        bench.rbuild(["restart", "-t", "0", "one"]).ok();
        eventually("the port answers", || answer(one).is_some());
        bench.rbuild(["rm", "-f", "one", "two"]).ok();
        bench.rbuild(["network", "rm", "web", "b"]).ok();
    });
}

#[test]
fn no_kill_at_any_instant_leaves_an_address_or_a_port() {
    as_everybody(|bench| {
        let port = e2e::free_port();
        // Three addresses: a lost one would be missed soon.
        bench
            .rbuild([
                "network",
                "create",
                "--subnet=10.204.0.0/29",
                "--ip-range=10.204.0.4/30",
                "web",
            ])
            .ok();
        for round in 0..24u64 {
            let publish = format!("--publish=127.0.0.1:{port}:80");
            let line = ["run", "--rm", "--network=web", &publish, "busybox", "sleep", "60"];
            let mut command = bench.command("rbuild");
            command.args(line).stdin(std::process::Stdio::null());
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let mut child = command.spawn().expect("rbuild");
            std::thread::sleep(Duration::from_millis(round * 7));
            child.kill().expect("a kill");
            child.wait().expect("an end");
            eventually("the port is free", || TcpListener::bind(("127.0.0.1", port)).is_ok());
        }
        eventually("nobody is on the network", || {
            let members = ["network", "inspect", "-f", "{{len .Containers}}", "web"];
            bench.rbuild(members).ok().text() == "0"
        });
        eventually("nothing carries it", || {
            processes(bench, "container-network-bridge").is_empty()
        });
        bench.rbuild(["network", "rm", "web"]).ok();
    });
}

/// What the service at a port says.
fn answer(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.contains("200 OK").then_some(text)
}

/// An address of this machine that is not of its loopback.
fn machine_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("a default route");
    socket.local_addr().expect("an address").ip().to_string()
}

/// A service on this machine's loopback.
struct Service {
    port: u16,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            }
        });
        Service { port }
    }
}
