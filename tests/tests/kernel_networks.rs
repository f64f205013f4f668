//! Networks that the kernel carries for root: bridges, rules of the packet filter, and what is left
//! of them. Each test has a network namespace of its own, with a neighbour outside.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::netns::{Netns, holder, kill};
use e2e::{Bench, Ran, eventually, peer, root, run, user::User};

/// A bench on a machine of its own; nothing where that cannot be had.
fn machine() -> Option<(Netns, Bench)> {
    if !root() || ["ip", "nft", "nsenter"].iter().any(|program| peer(program).is_none()) {
        return None;
    }
    let netns = Netns::enter();
    let bench = Bench::new();
    bench.busybox();
    Some((netns, bench))
}

/// Ends what runs; nothing of ours is left then.
fn end(bench: &Bench) {
    bench.rbuild(["rm", "-f", "-a"]).ok();
    eventually("no bridge is left", || !ip("-br link show").contains("rb"));
    eventually("no rule is left", || !nft("list tables").contains("rb-"));
}

fn ip(line: &str) -> String {
    run(Command::new("ip").args(line.split(' '))).ok().stdout
}

fn nft(line: &str) -> String {
    run(Command::new("nft").args(line.split(' '))).ok().stdout
}

fn create(bench: &Bench, flags: &[&str], name: &str) {
    let line = [&["network", "create", "--opt=carrier=kernel"], flags, &[name]].concat();
    bench.rbuild(line).ok();
}

/// Starts a web server that says its host name, and logs its clients.
fn serve(bench: &Bench, name: &str, flags: &[&str]) {
    let (name, host) = (format!("--name={name}"), format!("--hostname={name}"));
    let command = ["busybox", "busybox", "httpd", "-f", "-vv", "-p", "80", "-h", "/etc"];
    bench.rbuild([&["run", "-d", &name, &host], flags, &command].concat()).ok();
}

/// What a container sees of a web server: its host name.
fn fetch(bench: &Bench, flags: &[&str], host: &str) -> Ran {
    let line = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do \
         busybox timeout 5 wget -q -O- http://{host}/hostname && exit 0; sleep 0.2; done; exit 1"
    );
    bench.rbuild([&["run", "--rm"], flags, &["busybox", "sh", "-c", &line]].concat())
}

/// Whether a container does not reach a web server.
fn is_cut_off(bench: &Bench, flags: &[&str], host: &str) -> bool {
    let line = format!("busybox timeout 3 wget -q -O- http://{host}/hostname");
    bench.rbuild([&["run", "--rm"], flags, &["busybox", "sh", "-c", &line]].concat()).code != 0
}

/// What the web server at an address of this machine says.
fn answer(at: &str) -> Option<String> {
    let at: SocketAddr = at.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.contains("200 OK").then(|| body.to_owned())
}

/// What the neighbour sees of a web server.
fn seen_outside(netns: &Netns, host: &str) -> Option<String> {
    let mut command = netns.command("busybox");
    let url = format!("http://{host}/hostname");
    let ran = run(command.args(["timeout", "3", "wget", "-q", "-O-", &url]));
    (ran.code == 0).then_some(ran.stdout)
}

fn inspect(bench: &Bench, name: &str, template: &str) -> String {
    bench.rbuild(["inspect", "--type=container", "--format", template, name]).ok().text().to_owned()
}

#[test]
fn a_bridge_and_rules_last_as_long_as_containers_are_on_the_network() {
    let Some((_netns, bench)) = machine() else { return };
    nft("add table ip others");
    create(&bench, &["--subnet=10.201.0.0/24"], "web");
    assert!(!ip("-br link show").contains("rb-"));
    serve(&bench, "one", &["--network=web:ip=10.201.0.9", "--network-alias=first"]);
    let id = bench.rbuild(["network", "inspect", "-f", "{{slice .Id 0 12}}", "web"]).ok();
    let bridge = format!("rb-{}", id.text());
    assert!(ip(&format!("-4 address show dev {bridge}")).contains("10.201.0.1/24"));
    assert!(nft("list tables").contains(&format!("table inet {bridge}")));
    let name = bench.rbuild(["network", "inspect", "-f", "{{.NetworkInterface}}", "web"]).ok();
    assert_eq!(name.text(), bridge);
    for host in ["one", "first", "one.web", "10.201.0.9"] {
        assert_eq!(fetch(&bench, &["--network=web"], host).ok().stdout, "one\n", "{host}");
    }
    // As with docker, this machine reaches the container.
    assert_eq!(answer("10.201.0.9:80").as_deref(), Some("one\n"));
    let mtu = ["exec", "one", "cat", "/sys/class/net/eth0/mtu"];
    assert_eq!(bench.rbuild(mtu).ok().stdout, "1500\n");
    end(&bench);
    assert_eq!(nft("list tables"), "table ip others\n");
}

#[test]
fn a_published_port_is_reached_from_everywhere_and_keeps_the_address_of_the_client() {
    let Some((netns, bench)) = machine() else { return };
    create(&bench, &["--subnet=10.201.0.0/24", "--subnet=fd12:3456::/64"], "web");
    serve(
        &bench,
        "one",
        &["--network=web:ip=10.201.0.9", "--publish=8080:80", "--publish=127.0.0.1:8081:80"],
    );
    eventually("it serves", || answer("127.0.0.1:8080").is_some());
    for at in
        ["127.0.0.1:8080", "127.9.9.9:8080", "198.51.100.1:8080", "[::1]:8080", "127.0.0.1:8081"]
    {
        assert_eq!(answer(at).as_deref(), Some("one\n"), "{at}");
    }
    for host in ["198.51.100.1:8080", "[2001:db8::1]:8080"] {
        assert_eq!(seen_outside(&netns, host).as_deref(), Some("one\n"), "{host}");
    }
    assert_eq!(seen_outside(&netns, "198.51.100.1:8081"), None);
    // Through the machine's address, also from its own network and by itself.
    let host = "198.51.100.1:8080";
    assert_eq!(fetch(&bench, &["--network=web"], host).ok().stdout, "one\n");
    let own = ["exec", "one", "busybox", "wget", "-q", "-O-", "http://198.51.100.1:8080/hostname"];
    assert_eq!(bench.rbuild(own).ok().stdout, "one\n");
    let logs = bench.rbuild(["logs", "one"]).ok().told();
    assert!(logs.contains("198.51.100.2") && logs.contains("2001:db8::2"), "{logs}");
    assert!(logs.contains("10.201.0.1]"), "{logs}");
    // The port is held for others to see.
    let again = ["run", "--rm", "--network=web", "--publish=8080:80", "busybox", "true"];
    bench.rbuild(again).code(125).fails(&["8080/tcp", "another"]);
    bench.rbuild(["rm", "-f", "one"]).ok();
    assert_eq!(seen_outside(&netns, "198.51.100.1:8080"), None);
    end(&bench);
}

#[test]
fn networks_do_not_reach_each_other_and_nobody_outside_reaches_them() {
    let Some((netns, bench)) = machine() else { return };
    create(&bench, &["--subnet=10.201.0.0/24"], "a");
    create(&bench, &["--subnet=10.202.0.0/24"], "b");
    create(&bench, &["--internal", "--subnet=10.203.0.0/24"], "in");
    serve(&bench, "one", &["--network=a:ip=10.201.0.9", "--publish=8080:80"]);
    serve(&bench, "shut", &["--network=in:ip=10.203.0.9"]);
    assert_eq!(fetch(&bench, &["--network=a"], "one").ok().stdout, "one\n");
    assert!(is_cut_off(&bench, &["--network=b"], "10.201.0.9"));
    assert_eq!(fetch(&bench, &["--network=b"], "198.51.100.1:8080").ok().stdout, "one\n");
    run(netns.command("ip").args(["route", "add", "10.200.0.0/13", "via", Netns::HERE])).ok();
    assert_eq!(seen_outside(&netns, "10.201.0.9"), None);
    // Of an internal one nothing leaves, and names of containers alone are known.
    assert_eq!(fetch(&bench, &["--network=in"], "shut").ok().stdout, "shut\n");
    assert!(is_cut_off(&bench, &["--network=in"], "198.51.100.1:8080"));
    assert!(is_cut_off(&bench, &["--network=in"], "10.203.0.1:8080"));
    let ping = |network: &str| {
        let line =
            ["run", "--rm", network, "busybox", "busybox", "ping", "-c1", "-W2", Netns::WORLD];
        bench.rbuild(line).code
    };
    assert_eq!(ping("--network=a"), 0);
    assert_ne!(ping("--network=in"), 0);
    end(&bench);
}

#[test]
fn no_container_speaks_for_another_or_reaches_the_loopback_of_the_machine() {
    let Some((_netns, bench)) = machine() else { return };
    create(&bench, &["--subnet=10.201.0.0/24"], "web");
    serve(&bench, "one", &["--network=web:ip=10.201.0.9"]);
    let inside = |flags: &[&str], line: &str| {
        let all = [&["run", "--rm", "--network=web"], flags, &["busybox", "sh", "-c", line]];
        bench.rbuild(all.concat())
    };
    let admin = ["--cap-add=NET_ADMIN", "--cap-add=NET_RAW"];
    inside(&admin, "busybox ping -c1 -W5 10.201.0.9").ok();
    let line = "ip address add 10.201.0.77/24 dev eth0 && \
                ! busybox ping -I 10.201.0.77 -c1 -W2 10.201.0.9";
    inside(&admin, line).ok();
    let line = "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; \
                ip link set eth0 up; ! busybox ping -c1 -W2 10.201.0.9";
    inside(&admin, line).ok();
    // The bridge leads to loopback addresses for published ports alone.
    let service = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = service.local_addr().expect("an address").port();
    std::thread::spawn(move || service.incoming().for_each(drop));
    let line = format!(
        "ip route add 127.0.0.0/8 via 10.201.0.1 dev eth0 table 7; \
         ip address flush dev lo; ip rule add pref 0 to 127.0.0.0/8 table 7; \
         ! busybox timeout 2 nc 127.0.0.1 {port} </dev/null"
    );
    inside(&admin, &line).ok();
    // Where it is asked for, it is reached by a name.
    let line = format!("busybox timeout 5 nc me {port} </dev/null");
    inside(&["--add-host=me:host-gateway"], &line).ok();
    assert_ne!(inside(&[], &format!("busybox timeout 2 nc 192.0.0.1 {port} </dev/null")).code, 0);
    end(&bench);
}

#[test]
fn names_outside_are_asked_of_the_servers_and_containers_have_ipv6() {
    let Some((_netns, bench)) = machine() else { return };
    create(&bench, &["--subnet=10.201.0.0/24", "--subnet=fd12:3456::/64"], "web");
    serve(&bench, "one", &["--network=web", "--ip6=fd12:3456::9"]);
    assert_eq!(fetch(&bench, &["--network=web"], "[fd12:3456::9]").ok().stdout, "one\n");
    let ping = ["exec", "one", "busybox", "ping", "-6", "-c1", "-W5", "2001:db8::2"];
    bench.rbuild(ping).ok();
    // Something else listens at port 53 of the machine.
    let server = UdpSocket::bind(("127.0.0.77", 53)).expect("a socket");
    let _other = UdpSocket::bind(("0.0.0.0", 53));
    server.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let asked = std::thread::spawn(move || {
        let mut question = [0; 512];
        loop {
            let (count, from) = server.recv_from(&mut question).expect("a question");
            // The same, as an answer: there is no such name.
            let mut answer = question[..count].to_vec();
            answer[2..4].copy_from_slice(&[0x81, 0x83]);
            server.send_to(&answer, from).expect("an answer");
            if question[..count].windows(9).any(|part| part == b"elsewhere") {
                return;
            }
        }
    });
    let flags = ["run", "--rm", "--network=web", "--dns=127.0.0.77", "busybox"];
    let lookup = ["busybox", "nslookup", "elsewhere.example"];
    let ran = bench.rbuild([&flags[..], &lookup].concat());
    assert!(ran.told().contains("can't find elsewhere.example"), "{}", ran.told());
    asked.join().expect("a server");
    end(&bench);
}

/// Does something in the network namespace of a process.
fn inside<T: Send>(pid: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
    let enter = move || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("a namespace");
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().expect("a thread"))
}

#[test]
fn datagrams_reach_a_published_port_from_everywhere() {
    let Some((netns, bench)) = machine() else { return };
    create(&bench, &["--subnet=10.201.0.0/24"], "web");
    // A flow from before the port was published must not keep its old way.
    let client = UdpSocket::bind("198.51.100.1:0").expect("a socket");
    let send = |client: &UdpSocket, to: &str| client.send_to(b"hello\n", to).map(drop);
    send(&client, "198.51.100.1:5300").expect("a datagram");
    let flags = ["run", "-d", "--name=one", "--network=web", "--publish=5300:53/udp", "busybox"];
    bench.rbuild([&flags[..], &["sleep", "600"]].concat()).ok();
    let server = inside(&inspect(&bench, "one", "{{.State.Pid}}"), || {
        UdpSocket::bind("0.0.0.0:53").expect("a socket")
    });
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((count, from)) = server.recv_from(&mut bytes) {
            let _ = server.send_to(&bytes[..count], from);
        }
    });
    let asked = |client: &UdpSocket, to: &str| {
        client.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let _ = send(client, to);
        client.recv(&mut [0; 64]).is_ok()
    };
    eventually("it answers", || asked(&client, "198.51.100.1:5300"));
    let local = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    eventually("loopback", || asked(&local, "127.0.0.1:5300"));
    let six = UdpSocket::bind("[::1]:0").expect("a socket");
    eventually("loopback of IPv6", || asked(&six, "[::1]:5300"));
    let world = inside(&netns.pid().to_string(), || UdpSocket::bind("0.0.0.0:0"));
    let world = world.expect("a socket");
    eventually("the neighbour", || asked(&world, "198.51.100.1:5300"));
    end(&bench);
}

/// The processes that carry networks of a bench.
fn carriers(bench: &Bench) -> Vec<u32> {
    let place = bench.store().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with("container-network-bridge\0") && line.contains(&place) {
            found.push(pid);
        }
    }
    found
}

#[test]
fn a_network_outlives_the_kill_of_its_process_and_the_flush_of_a_firewall() {
    let Some((netns, bench)) = machine() else { return };
    create(&bench, &["--subnet=10.201.0.0/24"], "web");
    serve(&bench, "one", &["--network=web:ip=10.201.0.9", "--publish=8080:80"]);
    serve(&bench, "two", &["--network=web"]);
    eventually("it serves", || answer("127.0.0.1:8080").is_some());
    // A connection between containers does not notice.
    let mut talk = Command::new(e2e::binary("rbuild"));
    talk.env("RBUILD_ROOT", bench.store()).args([
        "exec",
        "-i",
        "two",
        "busybox",
        "nc",
        "10.201.0.9",
        "80",
    ]);
    let mut talk = talk.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("rbuild");
    eventually("they are connected", || {
        let line = "grep -q ':0050 01 ' /proc/net/tcp";
        bench.rbuild(["exec", "two", "sh", "-c", line]).code == 0
    });
    for _ in 0..5 {
        let carrier = carriers(&bench);
        assert_eq!(carrier.len(), 1, "one process carries the network");
        kill(carrier[0]);
        eventually("another one comes", || carriers(&bench).iter().any(|one| *one != carrier[0]));
        eventually("the port answers", || seen_outside(&netns, "198.51.100.1:8080").is_some());
        let url = "http://one/hostname";
        eventually("they reach each other", || {
            let line = ["exec", "two", "busybox", "timeout", "2", "wget", "-q", "-O-", url];
            bench.rbuild(line).stdout == "one\n"
        });
    }
    assert_eq!(inspect(&bench, "one", "{{.NetworkSettings.Networks.web.IPAddress}}"), "10.201.0.9");
    let mut stdin = talk.stdin.take().expect("a pipe");
    stdin.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").expect("a request");
    let mut text = String::new();
    talk.stdout.take().expect("a pipe").read_to_string(&mut text).expect("an answer");
    assert!(text.ends_with("one\n"), "{text}");
    drop(stdin);
    talk.wait().expect("an end");
    nft("flush ruleset");
    assert_eq!(seen_outside(&netns, "198.51.100.1:8080").as_deref(), Some("one\n"));
    end(&bench);
}

/// Where the kernel cannot carry networks in 10.201.0.0/16, and words of the reason.
const OBSTACLES: [(&str, &[&str]); 4] = [
    (
        "nft add table ip filter && \
         nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
        &["FORWARD", "filter"],
    ),
    (
        "nft add table inet firewalld && nft 'add chain inet firewalld filter_FORWARD \
         { type filter hook forward priority 10; policy accept; }'",
        &["firewalld", "filter_FORWARD"],
    ),
    ("iptables-legacy --list", &["iptables-legacy"]),
    ("ip route add 10.201.0.0/16 dev up0", &["up0", "10.201.0.0/16"]),
];

#[test]
fn where_the_kernel_cannot_carry_a_network_a_process_does_and_says_why_it_must() {
    if peer("iptables-legacy").is_none() {
        return;
    }
    for (obstacle, words) in OBSTACLES {
        let Some((netns, bench)) = machine() else { return };
        run(Command::new("sh").args(["-c", obstacle])).ok();
        bench.rbuild(["network", "create", "--subnet=10.201.0.0/24", "web"]).ok();
        serve(&bench, "one", &["--network=web", "--publish=8080:80"]);
        assert_eq!(fetch(&bench, &["--network=web"], "one").ok().stdout, "one\n", "{obstacle}");
        eventually("it serves", || seen_outside(&netns, "198.51.100.1:8080").is_some());
        assert!(!ip("-br link show").contains("rb-"), "{obstacle}");
        create(&bench, &["--subnet=10.201.1.0/24"], "must");
        let must = ["run", "--rm", "--network=must", "busybox", "true"];
        bench.rbuild(must).code(125).fails(words).fails(&["must", "carrier=kernel"]);
        end(&bench);
    }
}

#[test]
fn without_permission_the_kernel_carries_no_network_and_the_error_says_what_is_missing() {
    let Some((_netns, bench)) = machine() else { return };
    create(&bench, &[], "must");
    let line =
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.env("RBUILD_ROOT", bench.store()).args(["--mount", "sh", "-c", line, "sh"]);
    command.arg(e2e::binary("rbuild"));
    let ran = run(command.args(["run", "--rm", "--network=must", "busybox", "true"]));
    ran.code(125).fails(&["must", "setting net.", "read-only", "carrier=kernel"]);
    end(&bench);
    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    create(&bench, &[], "must");
    let must = ["run", "--rm", "--network=must", "busybox", "true"];
    bench.rbuild(must).code(125).fails(&["must", "not permitted", "root", "carrier=kernel"]);
}

#[test]
fn a_port_of_sctp_is_led_by_the_kernel_and_refused_by_name_elsewhere() {
    let Some((_netns, bench)) = machine() else { return };
    create(&bench, &["--subnet=10.201.0.0/24"], "web");
    bench.rbuild(["network", "create", "--opt=carrier=user", "slow"]).ok();
    let flags = ["run", "-d", "--name=one", "--network=web:ip=10.201.0.9"];
    let command = ["--publish=3868:3869/sctp", "busybox", "sleep", "600"];
    bench.rbuild([&flags[..], &command].concat()).ok();
    assert_eq!(bench.rbuild(["port", "one"]).ok().stdout, "3869/sctp -> 0.0.0.0:3868\n");
    assert!(nft("list ruleset").contains("sctp dport 3868 dnat ip to 10.201.0.9:3869"));
    for (network, words) in [
        ("--network=web", &["3868/sctp", "another"][..]),
        ("--network=slow", &["3868", "sctp", "network create"]),
        ("--network=private", &["3868", "sctp", "network create"]),
    ] {
        let line = ["run", "--rm", network, "--publish=3868:1/sctp", "busybox", "true"];
        bench.rbuild(line).code(125).fails(words);
    }
    end(&bench);
}

#[test]
fn containers_on_the_wire_of_a_device_are_neighbours_of_who_is_there() {
    let Some((netns, bench)) = machine() else { return };
    let flags = ["--subnet=198.51.100.0/24", "--gateway=198.51.100.2"];
    let more = ["--ip-range=198.51.100.64/26", "-d", "macvlan", "--opt=parent=up0", "lan"];
    bench.rbuild([&["network", "create"], &flags[..], &more].concat()).ok();
    serve(&bench, "one", &["--network=lan:ip=198.51.100.70,mac=02:00:00:00:00:07"]);
    eventually("it serves", || seen_outside(&netns, "198.51.100.70").is_some());
    assert_eq!(seen_outside(&netns, "198.51.100.70").as_deref(), Some("one\n"));
    for host in ["one", "ONE.lan", "198.51.100.70"] {
        assert_eq!(fetch(&bench, &["--network=lan"], host).ok().stdout, "one\n", "{host}");
    }
    let line = "ip route; cat /sys/class/net/eth0/address; cat /etc/resolv.conf";
    let told = bench.rbuild(["exec", "one", "sh", "-c", line]).ok().stdout;
    for words in ["default via 198.51.100.2", "02:00:00:00:00:07", "nameserver 127.0.0.11"] {
        assert!(told.contains(words), "{told}");
    }
    // A server of names in the container takes port 53, and still finds others.
    let line = "busybox udpsvd 0.0.0.0 53 cat & sleep 1; busybox nslookup one";
    let flags = ["run", "--rm", "--network=lan", "busybox", "sh", "-c", line];
    assert!(bench.rbuild(flags).ok().stdout.contains("198.51.100.70"));
    let show = ["network", "inspect", "-f", "{{.Driver}} {{.NetworkInterface}}", "lan"];
    assert_eq!(bench.rbuild(show).ok().text(), "macvlan up0");
    let listed = ["network", "ls", "--filter=driver=macvlan", "--format={{.Name}}"];
    assert_eq!(bench.rbuild(listed).ok().stdout, "lan\n");
    // Its device and its names outlive the process that gives addresses.
    bench.rbuild(["run", "-d", "--name=two", "busybox", "sleep", "600"]).ok();
    bench.rbuild(["network", "connect", "lan", "two"]).ok();
    let carrier = carriers(&bench);
    assert_eq!(carrier.len(), 1);
    kill(carrier[0]);
    eventually("another one comes", || carriers(&bench).iter().any(|one| *one != carrier[0]));
    eventually("they find each other", || {
        let url = "http://one/hostname";
        let line = ["exec", "two", "busybox", "timeout", "2", "wget", "-q", "-O-", url];
        bench.rbuild(line).stdout == "one\n"
    });
    let pid = inspect(&bench, "one", "{{.State.Pid}}").parse().expect("a pid");
    let killed = holder(pid).expect("a holder");
    kill(killed);
    eventually("another one comes", || holder(pid).is_some_and(|now| now != killed));
    eventually("it finds others", || {
        bench.rbuild(["exec", "one", "busybox", "nslookup", "two"]).stdout.contains("198.51.100.")
    });
    assert!(seen_outside(&netns, "198.51.100.70").is_some());
    bench.rbuild(["network", "disconnect", "lan", "two"]).ok();
    bench.rbuild(["exec", "two", "sh", "-c", "! test -e /sys/class/net/eth1"]).ok();
    for (flags, words) in [
        (&["--publish=8080:80"][..], &["80", "own addresses"][..]),
        (&["--add-host=me:host-gateway"], &["lan", "host-gateway"]),
        (&["--ip=198.51.100.2"], &["198.51.100.2", "gateway"]),
    ] {
        let line = [&["run", "--rm", "--network=lan"], flags, &["busybox", "true"]].concat();
        bench.rbuild(line).code(125).fails(words);
    }
    bench.rbuild(["rm", "-f", "one"]).ok();
    bench.rbuild(["network", "rm", "lan"]).ok();
    end(&bench);
}

#[test]
fn a_wire_that_cannot_be_had_is_one_clear_error() {
    let Some((_netns, bench)) = machine() else { return };
    let create = |flags: &[&str]| {
        bench.rbuild([&["network", "create", "--subnet=10.206.0.0/24"], flags, &["lan"]].concat())
    };
    for (flags, words) in [
        (&["-d", "macvlan"][..], &["lan", "parent=DEVICE"][..]),
        (&["-d", "macvlan", "--opt=parent=none0"], &["none0", "macvlan", "ip link"]),
        (&["-d", "macvlan", "--opt=parent=up0", "--opt=macvlan_mode=x"], &["vepa"]),
        (&["-d", "macvlan", "--opt=parent=up0", "--opt=carrier=user"], &["carrier", "parent"]),
        (&["-d", "ipvlan", "--opt=parent=up0", "--opt=ipvlan_mode=bridge"], &["l2, l3, l3s"]),
        (&["--opt=parent=up0"], &["parent=up0", "bridge"]),
        (&["-d", "overlay"], &["overlay", "machines"]),
        (&["-d", "thing"], &["thing", "macvlan"]),
    ] {
        create(flags).fails(words);
    }
    // One and the same wire has one of the two drivers; not every kernel has both.
    let ran = create(&["-d", "ipvlan", "--opt=parent=up0", "--opt=ipvlan_mode=l3"]);
    match ran.code {
        0 => {
            let line = ["run", "--rm", "--network=lan", "busybox", "ip", "route"];
            assert!(bench.rbuild(line).ok().stdout.contains("default dev eth0"));
            let flags = ["run", "--rm", "--network=lan", "--mac-address=02:00:00:00:00:07"];
            bench.rbuild([&flags[..], &["busybox", "true"]].concat()).fails(&["Ethernet address"]);
        }
        _ => drop(ran.fails(&["ipvlan", "up0", "modprobe ipvlan"])),
    }
    if let Some(user) = User::get() {
        let bench = Bench::of(user.uid, user.gid);
        let line = ["network", "create", "-d", "macvlan", "--opt=parent=up0", "lan"];
        bench.rbuild(line).fails(&["macvlan", "up0", "root", "bridge"]);
    }
}
