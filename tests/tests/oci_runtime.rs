//! `rbuild runtime`: containers from bundles, step by step, alone and below the engines of others.

#[path = "oci_runtime/devices.rs"]
mod devices;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::{Bench, Ran, peer, root, run};
use serde_json::{Value, json};

/// A bundle whose root file system is one static busybox, and where its engine keeps state.
struct Bundle {
    bench: Bench,
    program: PathBuf,
    id: String,
}

impl Bundle {
    fn new(name: &str) -> Bundle {
        let bench = Bench::new();
        let program = bench.path().join("rbuild-runtime");
        symlink(e2e::binary("rbuild"), &program).expect("a link");
        let rootfs = bench.path().join("bundle/rootfs");
        for directory in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(rootfs.join(directory)).expect("a directory");
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox");
        for applet in
            ["sh", "cat", "echo", "sleep", "true", "id", "ls", "hostname", "readlink", "kill"]
        {
            symlink("busybox", rootfs.join("bin").join(applet)).expect("a link");
        }
        bench.write("bundle/rootfs/etc/passwd", "root:x:0:0::/:/bin/sh\n");
        let id = format!("{name}-{}", std::process::id());
        let bundle = Bundle { bench, program, id };
        run(bundle.command(&["spec", "--bundle"]).arg(bundle.directory())).ok();
        bundle
    }

    fn directory(&self) -> PathBuf {
        self.bench.path().join("bundle")
    }

    fn rootfs(&self) -> PathBuf {
        self.directory().join("rootfs")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.bench.path().join("state")).args(words);
        command
    }

    /// Changes the configuration, and gives the container a line to run.
    fn set(&self, line: &str, change: impl FnOnce(&mut Value)) {
        let path = self.directory().join("config.json");
        let text = std::fs::read_to_string(&path).expect("a configuration");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["process"]["args"] = json!(["sh", "-c", line]);
        config["process"]["terminal"] = json!(false);
        change(&mut config);
        std::fs::write(path, config.to_string()).expect("a file");
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Ran {
        run(&mut self.command(words))
    }

    /// Makes the container; its output goes to a file.
    #[track_caller]
    fn create(&self) {
        let output = std::fs::File::create(self.output_file()).expect("a file");
        let error = output.try_clone().expect("a descriptor");
        let mut command = self.command(&["create", "--bundle"]);
        command.arg(self.directory()).arg("--pid-file").arg(self.bench.path().join("pid"));
        command.arg(&self.id).stdin(Stdio::null()).stdout(output).stderr(error);
        let status = command.status().expect("rbuild runs");
        assert!(status.success(), "{}", self.output());
    }

    fn output_file(&self) -> PathBuf {
        self.bench.path().join("output")
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.output_file()).unwrap_or_default()
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.run(&["state", &self.id]).ok().stdout).expect("JSON")
    }

    /// Waits until the container is in this state.
    fn wait_for(&self, status: &str) {
        while self.state()["status"] != status {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn the_life_of_a_container_goes_in_steps() {
    if !root() {
        return;
    }
    let bundle = Bundle::new("life");
    let id = &bundle.id;
    bundle.set("echo started; sleep 1000", |_| {});
    bundle.create();
    let state = bundle.state();
    assert_eq!((&state["status"], &state["id"]), (&json!("created"), &json!(id)));
    assert_eq!(state["bundle"], json!(bundle.directory()));
    let pid = std::fs::read_to_string(bundle.bench.path().join("pid")).expect("a file");
    assert_eq!(state["pid"].to_string(), pid);
    assert_eq!(bundle.output(), "");
    bundle.run(&["create", "--bundle", "/nowhere", id]).fails(&["/nowhere"]);
    bundle.run(&["start", id]).ok();
    bundle.run(&["start", id]).fails(&["running"]);
    while bundle.output() != "started\n" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let exec = bundle.run(&["exec", "--env", "A=b", id, "sh", "-c", "echo $A; exit 4"]);
    assert_eq!(exec.code(4).stdout, "b\n");
    bundle.run(&["exec", id, "no-such-program"]).code(127);
    let list: Value =
        serde_json::from_str(&bundle.run(&["list", "--format", "json"]).ok().stdout).expect("JSON");
    assert_eq!(list[0]["status"], "running");
    let pids = bundle.run(&["ps", "--format", "json", id]).ok();
    assert!(pids.stdout.contains(&pid), "{}", pids.told());
    bundle.run(&["pause", id]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    bundle.run(&["resume", id]).ok();
    bundle.run(&["update", "--pids-limit", "77", id]).ok();
    let events = bundle.run(&["events", "--stats", id]).ok();
    let events: Value = serde_json::from_str(&events.stdout).expect("JSON");
    assert_eq!(events["data"]["pids"]["limit"], 77);
    bundle.run(&["delete", id]).fails(&["running"]);
    bundle.run(&["kill", id, "KILL"]).ok();
    bundle.wait_for("stopped");
    bundle.run(&["kill", id]).fails(&["stopped"]);
    bundle.run(&["delete", id]).ok();
    bundle.run(&["state", id]).fails(&[id]);
}

#[test]
fn a_run_in_the_foreground_has_the_programs_code_and_leaves_nothing() {
    if !root() {
        return;
    }
    let bundle = Bundle::new("foreground");
    bundle.set("echo out; echo error >&2; hostname; exit 9", |config| {
        config["hostname"] = json!("inside");
    });
    let directory = bundle.directory().display().to_string();
    let ran = bundle.run(&["run", "--bundle", &directory, &bundle.id]).code(9);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\ninside\n", "error\n"));
    assert_eq!(bundle.run(&["list", "--quiet"]).ok().stdout, "");
    bundle.set("", |config| config["process"]["args"] = json!(["/bin/missing"]));
    let log = bundle.bench.path().join("log");
    let mut command = Command::new(&bundle.program);
    command.arg("--log").arg(&log).args(["--log-format", "json", "--root"]);
    command.arg(bundle.bench.path().join("state")).args(["run", "--bundle", &directory, "gone"]);
    run(&mut command).code(127).fails(&["/bin/missing"]);
    let line: Value =
        serde_json::from_str(&std::fs::read_to_string(log).expect("a log")).expect("JSON");
    assert!(line["msg"].as_str().is_some_and(|text| text.contains("/bin/missing")), "{line}");
}

#[test]
fn hooks_run_at_their_moments_in_their_namespaces() {
    if !root() {
        return;
    }
    let bundle = Bundle::new("hooks");
    let log = bundle.rootfs().join("tmp/log");
    let outside = log.display().to_string();
    // The state says the status; the file system says where the hook runs.
    let hook = |name: &str, file: &str| {
        let line = format!(
            "read -r state; case $state in *creating*) s=creating;; *created*) s=created;; *running*) s=running;; *) s=stopped;; esac; \
             [ -e /bin/busybox ] && [ ! -e /usr ] && w=inside || w=outside; echo {name} $s $w >> {file}"
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "timeout": 20}])
    };
    bundle.set("echo program >> /tmp/log", |config| {
        config["hooks"] = json!({
            "prestart": hook("prestart", &outside),
            "createRuntime": hook("createRuntime", &outside),
            "createContainer": hook("createContainer", &outside),
            "startContainer": hook("startContainer", "/tmp/log"),
            "poststart": hook("poststart", &outside),
            "poststop": hook("poststop", &outside),
        });
    });
    let directory = bundle.directory().display().to_string();
    bundle.run(&["run", "--bundle", &directory, &bundle.id]).ok();
    let text = std::fs::read_to_string(&log).expect("a log");
    let mut lines: Vec<&str> = text.lines().collect();
    // The program and the hook after its start run at the same time.
    lines.retain(|line| *line != "program" && *line != "poststart running outside");
    assert_eq!(
        lines,
        [
            "prestart creating outside",
            "createRuntime creating outside",
            "createContainer creating outside",
            "startContainer created inside",
            "poststop stopped outside"
        ],
        "{text}"
    );
    assert!(text.contains("program") && text.contains("poststart running outside"), "{text}");
    bundle.set("true", |config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
    });
    bundle.run(&["run", "--bundle", &directory, "refused"]).fails(&["hook /bin/false failed"]);
    assert_eq!(bundle.run(&["list", "--quiet"]).ok().stdout, "");
}

#[test]
fn fields_are_honoured_or_refused_by_name() {
    if !root() {
        return;
    }
    let bundle = Bundle::new("fields");
    let directory = bundle.directory().display().to_string();
    let run = |line: &str, change: &dyn Fn(&mut Value)| {
        let path = bundle.directory().join("config.json");
        let before = std::fs::read_to_string(&path).expect("a configuration");
        bundle.set(line, |config| change(config));
        let ran = bundle.run(&["run", "--bundle", &directory, &bundle.id]);
        std::fs::write(path, before).expect("a file");
        ran
    };
    let ran = run("cat /proc/uptime", &|config| {
        config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 500_000_000}});
    });
    assert!(ran.ok().stdout.starts_with("50"), "the clock is that of the time namespace");
    let ran = run("/bin/busybox uname -m", &|config| {
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
    });
    assert_eq!(
        ran.ok().stdout.trim(),
        if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" }
    );
    let ran = run(
        "/bin/busybox cut -d' ' -f41 /proc/self/stat; cat /proc/self/oom_score_adj",
        &|config| {
            config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH"});
            config["process"]["oomScoreAdj"] = json!(321);
        },
    );
    let ran = ran.ok();
    assert_eq!(ran.stdout, "3\n321\n", "{}", ran.told());
    let ran = run("cat /proc/self/mountinfo", &|config| {
        config["linux"]["rootfsPropagation"] = json!("shared");
    });
    let text = ran.ok().stdout;
    let own = text.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
    assert!(own.contains("shared:"), "{own}");
    run("true", &|config| config["linux"]["intelRdt"] = json!({"closID": "x"}))
        .code(125)
        .fails(&["linux.intelRdt"]);
    run("true", &|config| config["linux"]["sysctl"] = json!({"kernel.core_pattern": "x"}))
        .code(125)
        .fails(&["linux.sysctl", "kernel.core_pattern"]);
    let features: Value =
        serde_json::from_str(&bundle.run(&["features"]).ok().stdout).expect("JSON");
    assert_eq!(features["ociVersionMax"], "1.2.0");
}

/// Runs a bundle whose configuration is changed.
#[track_caller]
fn changed(bundle: &Bundle, line: &str, change: impl FnOnce(&mut Value)) -> Ran {
    let path = bundle.directory().join("config.json");
    let before = std::fs::read_to_string(&path).expect("a configuration");
    bundle.set(line, change);
    let directory = bundle.directory().display().to_string();
    let ran = bundle.run(&["run", "--bundle", &directory, &bundle.id]);
    std::fs::write(path, before).expect("a file");
    ran
}

fn list<'a>(config: &'a mut Value, path: &str) -> &'a mut Vec<Value> {
    config.pointer_mut(path).and_then(Value::as_array_mut).expect("a list")
}

#[test]
fn mounts_are_mapped_filled_and_listed_in_order() {
    if !root() {
        return;
    }
    let bundle = Bundle::new("mounts");
    let host = bundle.bench.write("host/file", "text").parent().expect("a directory").to_owned();
    let bind = |options: &[&str]| json!({"destination": "/tmp/x", "type": "bind", "source": host, "options": options});
    let owner = "/bin/busybox stat -c %u:%g /tmp/x/file";
    let maps = json!([{"containerID": 0, "hostID": 5, "size": 1}]);
    let ran = changed(&bundle, owner, |config| {
        let mut mount = bind(&["rbind"]);
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps.clone();
        list(config, "/mounts").push(mount);
    });
    assert_eq!(ran.ok().stdout, "5:5\n");
    let user = |config: &mut Value| {
        list(config, "/linux/namespaces").push(json!({"type": "user"}));
        let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        config["linux"]["uidMappings"] = maps.clone();
        config["linux"]["gidMappings"] = maps;
        config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
    };
    let ran = changed(&bundle, &format!("id -u; {owner}"), |config| {
        user(config);
        list(config, "/mounts").push(bind(&["rbind", "idmap"]));
    });
    assert_eq!(ran.ok().stdout, "0\n0:0\n");
    let ran = changed(&bundle, "true", |config| list(config, "/mounts").push(bind(&["idmap"])));
    ran.fails(&["/tmp/x has idmap"]);
    // A time namespace may go with a user namespace.
    let ran = changed(&bundle, "id -u; cat /proc/uptime", |config| {
        user(config);
        list(config, "/linux/namespaces").push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 500_000_000}});
    });
    assert!(ran.ok().stdout.starts_with("0\n50"));
    bundle.bench.write("bundle/rootfs/data/sub/file", "below");
    let line = "cat /data/sub/file; echo x > /data/new || echo refused";
    let ran = changed(&bundle, line, |config| {
        let options = ["tmpcopyup", "ro"];
        let mount = json!({"destination": "/data", "type": "tmpfs", "options": options});
        list(config, "/mounts").push(mount);
    });
    assert_eq!(ran.ok().stdout, "belowrefused\n");
    let ran = changed(&bundle, "cat /proc/self/mountinfo", |config| {
        let list = list(config, "/mounts");
        list.push(json!({"destination": "/tmp/a", "type": "tmpfs"}));
        list.push(bind(&["bind"]));
        list.push(json!({"destination": "/tmp/b", "type": "tmpfs"}));
    });
    let text = ran.ok().stdout;
    let place = |end: &str| text.find(&format!(" /tmp/{end} ")).expect("a mount");
    assert!(place("a") < place("x") && place("x") < place("b"), "{text}");
}

#[test]
fn a_user_namespace_is_joined() {
    if !root() {
        return;
    }
    let (first, second) = (Bundle::new("first"), Bundle::new("second"));
    first.set("sleep 1000", |config| {
        list(config, "/linux/namespaces").push(json!({"type": "user"}));
        let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        config["linux"]["uidMappings"] = maps.clone();
        config["linux"]["gidMappings"] = maps;
    });
    first.create();
    first.run(&["start", &first.id]).ok();
    let path = format!("/proc/{}/ns/user", first.state()["pid"]);
    let host = second.bench.write("host/file", "x");
    // Root of the namespace may not make it.
    std::fs::create_dir(second.rootfs().join("tmp/x")).expect("a directory");
    let bind = json!({"destination": "/tmp/x", "type": "bind", "source": host.parent(), "options": ["rbind", "idmap"]});
    let line = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user; /bin/busybox stat -c %u:%g /tmp/x/file";
    let ran = changed(&second, line, |config| {
        list(config, "/linux/namespaces").push(json!({"type": "user", "path": path}));
        list(config, "/mounts").push(bind);
        config["linux"]["cgroupsPath"] = json!(format!("/{}", second.id));
    });
    let told: Vec<String> = ran.ok().stdout.split_whitespace().map(str::to_owned).collect();
    let namespace = std::fs::read_link(&path).expect("a namespace").display().to_string();
    assert_eq!(told, ["0", "0", "100000", "65536", &namespace, "0:0"]);
    let ran = changed(&second, "true", |config| {
        list(config, "/linux/namespaces").push(json!({"type": "user", "path": path}));
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 5, "size": 1}]);
    });
    ran.fails(&["maps of ids together with a joined user namespace"]);
    let ran = changed(&second, "true", |config| {
        list(config, "/linux/namespaces")
            .push(json!({"type": "user", "path": "/proc/self/ns/mnt"}));
    });
    ran.fails(&["/proc/self/ns/mnt"]);
    first.run(&["delete", "--force", &first.id]).ok();
}

#[test]
fn a_mount_namespace_is_joined_or_shared() {
    if !root() {
        return;
    }
    let bundle = Bundle::new("joined");
    let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("a namespace");
    let own = std::process::id();
    let mut other = Command::new("unshare").args(["-m", "sleep", "1000"]).spawn().expect("unshare");
    while of(other.id()) == of(own) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mounts = || {
        let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        text.lines().filter(|line| line.contains("bundle")).count()
    };
    let before = mounts();
    let line = "readlink /proc/self/ns/mnt; ls /; cat /proc/1/comm";
    for (path, pid) in [(false, own), (true, own), (true, other.id())] {
        let ran = changed(&bundle, line, |config| {
            let spaces = list(config, "/linux/namespaces");
            spaces.retain(|space| space["type"] != "mount");
            let path = path.then(|| format!("/proc/{pid}/ns/mnt"));
            spaces.extend(path.map(|path| json!({"type": "mount", "path": path})));
        });
        let (text, space) = (ran.ok().stdout, of(pid));
        let begins = text.starts_with(&format!("{}\nbin\n", space.display()));
        assert!(begins && text.ends_with("\ncat\n"), "{text}");
    }
    // Nothing is left in the namespace that was shared.
    assert_eq!(mounts(), before);
    other.kill().expect("a child");
    other.wait().expect("a child");
}

#[test]
fn the_memory_of_a_container_is_on_the_nodes_that_it_names() {
    if !root() {
        return;
    }
    let bundle = Bundle::new("nodes");
    let line = "head -1 /proc/self/numa_maps";
    let policy = |mode: &str, nodes: &str, flags: Value| {
        let policy = json!({"mode": mode, "nodes": nodes, "flags": flags});
        changed(&bundle, "/bin/busybox head -1 /proc/self/numa_maps", |config| {
            config["linux"]["memoryPolicy"] = policy;
        })
    };
    let static_nodes = json!(["MPOL_F_STATIC_NODES"]);
    if !Path::new("/proc/self/numa_maps").exists() {
        policy("MPOL_BIND", "0", static_nodes).fails(&["setting the memory policy"]);
        return e2e::cannot("the kernel knows no nodes of memory");
    }
    let told = policy("MPOL_BIND", "0", static_nodes).ok().stdout;
    assert_eq!(told.split(' ').nth(1), Some("bind=static:0"), "{told}");
    let told = policy("MPOL_INTERLEAVE", "0", json!([])).ok().stdout;
    assert_eq!(told.split(' ').nth(1), Some("interleave:0"), "{told}");
    policy("MPOL_BIND", "0-", json!([])).code(125).fails(&["linux.memoryPolicy", "0-"]);
    policy("MPOL_BIND", "1023", json!([])).fails(&["setting the memory policy"]);
    // Further processes, too.
    bundle.set("sleep 1000", |config| {
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    });
    bundle.create();
    bundle.run(&["start", &bundle.id]).ok();
    let busybox = ["/bin/busybox"].into_iter().chain(line.split(' '));
    let words: Vec<&str> = ["exec", &bundle.id].into_iter().chain(busybox).collect();
    let told = bundle.run(&words).ok().stdout;
    assert_eq!(told.split(' ').nth(1), Some("bind:0"), "{told}");
    bundle.run(&["delete", "--force", &bundle.id]).ok();
}

#[test]
fn a_further_process_runs_on_the_cpus_that_it_names() {
    if !root() {
        return;
    }
    let bundle = Bundle::new("cpus");
    bundle.set("sleep 1000", |_| {});
    bundle.create();
    bundle.run(&["start", &bundle.id]).ok();
    let process = |cpus: &str| {
        let process = json!({
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/busybox", "grep", "Cpus_allowed_list", "/proc/self/status"],
            "execCPUAffinity": {"initial": "0", "final": cpus},
        });
        let file = bundle.bench.write("process.json", process.to_string());
        bundle.run(&["exec", "--process", &file.display().to_string(), &bundle.id])
    };
    assert_eq!(process("0").ok().stdout, "Cpus_allowed_list:\t0\n");
    process("x").fails(&["execCPUAffinity"]);
    process("99999").fails(&["execCPUAffinity", "99999"]);
    bundle.run(&["delete", "--force", &bundle.id]).ok();
}

#[test]
fn podman_runs_containers_with_it() {
    let Some(podman) = peer("podman").filter(|_| root()) else { return };
    let bundle = Bundle::new("podman");
    let at = |name: &str| bundle.bench.path().join(name);
    let podman = |words: &[&str]| {
        let mut command = Command::new(&podman);
        command.arg("--root").arg(at("podman-root")).arg("--runroot").arg(at("podman-run"));
        command.arg("--tmpdir").arg(at("podman-tmp")).arg("--runtime").arg(&bundle.program);
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command.args(["--storage-driver", "vfs"]);
        command.args(words);
        run(&mut command)
    };
    let rootfs = bundle.rootfs().display().to_string();
    // Podman's own limits are above what a test machine may have.
    let limits = ["--ulimit", "nofile=512:1024", "--ulimit", "nproc=4096:4096"];
    let place = [&limits[..], &["--network", "none", "--rootfs", &rootfs]].concat();
    let line = [&["run", "--rm"], &place[..], &["sh", "-c", "echo hello; exit 6"]].concat();
    assert_eq!(podman(&line).code(6).stdout, "hello\n");
    let name = format!("box-{}", std::process::id());
    let line = [&["run", "-d", "--name", &name], &place[..], &["sleep", "1000"]].concat();
    podman(&line).ok();
    let ran = podman(&["exec", &name, "sh", "-c", "echo inside; exit 3"]);
    assert_eq!(ran.code(3).stdout, "inside\n");
    podman(&["pause", &name]).ok();
    podman(&["unpause", &name]).ok();
    podman(&["stop", "-t", "0", &name]).ok();
    podman(&["rm", &name]).ok();
}

/// A containerd of this test alone.
struct Containerd {
    process: Child,
    socket: PathBuf,
}

impl Containerd {
    fn start(program: &Path, bench: &Bench) -> Containerd {
        let at = |name: &str| bench.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n",
            at("containerd-root"),
            at("containerd-state"),
            at("containerd.sock")
        );
        let config = bench.write("containerd.toml", config);
        let log = std::fs::File::create(bench.path().join("containerd.log")).expect("a file");
        let mut command = Command::new(program);
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().expect("containerd starts");
        let socket = bench.path().join("containerd.sock");
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Containerd { process, socket }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn containerd_runs_containers_with_it() {
    let (Some(program), Some(ctr), true) = (peer("containerd"), peer("ctr"), root()) else {
        return;
    };
    let bundle = Bundle::new("ctr");
    let containerd = Containerd::start(&program, &bundle.bench);
    let ctr = |words: &[&str]| {
        let mut command = Command::new(&ctr);
        command.arg("--address").arg(&containerd.socket).args(words);
        run(&mut command)
    };
    let (binary, rootfs) =
        (bundle.program.display().to_string(), bundle.rootfs().display().to_string());
    let line = ["run", "--rm", "--runc-binary", &binary, "--rootfs", &rootfs];
    let ran = ctr(&[&line[..], &["one", "sh", "-c", "echo hello; exit 5"]].concat());
    assert_eq!(ran.code(5).stdout, "hello\n");
    let line = ["run", "-d", "--runc-binary", &binary, "--rootfs", &rootfs];
    ctr(&[&line[..], &["two", "sleep", "1000"]].concat()).ok();
    let ran = ctr(&["tasks", "exec", "--exec-id", "x", "two", "echo", "inside"]);
    assert_eq!(ran.ok().stdout, "inside\n");
    ctr(&["tasks", "pause", "two"]).ok();
    ctr(&["tasks", "resume", "two"]).ok();
    ctr(&["tasks", "kill", "--signal", "KILL", "two"]).ok();
    let mut deleted = ctr(&["tasks", "delete", "two"]);
    while deleted.stderr.contains("must be stopped") {
        deleted = ctr(&["tasks", "delete", "two"]);
    }
    ctr(&["containers", "delete", "two"]).ok();
}
