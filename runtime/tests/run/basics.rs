//! Programs, users, files and rights.

use std::os::unix::fs::symlink;

use runtime::{
    ContainerSpec, Error, ExitStatus, Files, Isolation, Limits, Mount, Network, NetworkSpec,
    ProcessSpec, Propagation, Seccomp, Ulimit,
};

use crate::support::*;

pub(crate) const CASES: &[crate::Case] = &[
    ("hello", hello),
    ("exit_codes_and_signals", exit_codes_and_signals),
    ("programs_that_cannot_run", programs_that_cannot_run),
    ("environment_and_directory", environment_and_directory),
    ("users_and_groups", users_and_groups),
    ("capabilities", capabilities),
    ("seccomp_is_on", seccomp_is_on),
    ("no_new_privileges", no_new_privileges),
    ("no_descriptor_leaks", no_descriptor_leaks),
    ("own_namespaces", own_namespaces),
    ("nothing_of_the_host_is_mounted", nothing_of_the_host_is_mounted),
    ("masked_and_read_only_paths", masked_and_read_only_paths),
    ("devices", devices),
    ("made_devices_do_not_open", made_devices_do_not_open),
    ("links_in_the_image_stay_inside", links_in_the_image_stay_inside),
    ("working_directory_tricks", working_directory_tricks),
    ("read_only_root", read_only_root),
    ("tmpfs_and_binds", tmpfs_and_binds),
    ("bind_on_a_link", bind_on_a_link),
    ("limits_of_the_process", limits_of_the_process),
    ("networks", networks),
    ("sysctls", sysctls),
    ("own_program_is_not_writable", own_program_is_not_writable),
    ("cancel_kills", cancel_kills),
    ("init_reaps_and_forwards", init_reaps_and_forwards),
    ("many_at_once_from_threads", many_at_once_from_threads),
    ("privileged", privileged),
];

fn plain() -> ContainerSpec {
    ContainerSpec::default()
}

fn hello() {
    let root = Rootfs::new();
    assert_eq!(
        root.shell("echo hello; echo error >&2; id -u", &plain()).len(),
        "hello\nerror\n0\n".len()
    );
}

fn exit_codes_and_signals() {
    let root = Rootfs::new();
    let end = |line: &str| root.try_run(&with_shell(line, &plain())).unwrap().0;
    assert_eq!(end("exit 0"), ExitStatus::Code(0));
    assert_eq!(end("exit 7"), ExitStatus::Code(7));
    assert_eq!(end("exit 255"), ExitStatus::Code(255));
    // Pid 1 is immune against its own signals, as everywhere; a child is not.
    assert_eq!(end("sh -c 'kill -9 $$'; exit $?"), ExitStatus::Code(137));
    let task = task::Task::silent();
    let options = runtime::StartOptions { id: id(), ..runtime::StartOptions::default() };
    let bundle = root
        .bundle(&ContainerSpec {
            process: ProcessSpec { command: command(&["sleep", "100"]), ..ProcessSpec::default() },
            ..plain()
        })
        .unwrap();
    let container = runtime::Container::start(bundle, runtime::Stdio::Null, &options).unwrap();
    assert!(container.pid() > 1);
    container.kill(runtime::Signal::KILL).unwrap();
    assert_eq!(container.wait(&task).unwrap(), ExitStatus::Signal(9));
}

fn programs_that_cannot_run() {
    let root = Rootfs::new();
    root.write("bin/script", "no program\n");
    std::fs::create_dir(root.path("bin/directory")).unwrap();
    let code = |program: &str| {
        let spec = ContainerSpec {
            process: ProcessSpec { command: command(&[program]), ..ProcessSpec::default() },
            ..plain()
        };
        root.try_run(&spec).map(|_| 0).unwrap_or_else(|error| error.exit_code())
    };
    assert_eq!(code("/bin/missing"), 127);
    assert_eq!(code("missing"), 127);
    assert_eq!(code(""), 127);
    assert_eq!(code("/bin/script"), 126);
    assert_eq!(code("/bin/directory"), 126);
    let spec = ContainerSpec {
        process: ProcessSpec {
            command: command(&["true"]),
            working_dir: Some("/bin/sh".into()),
            ..ProcessSpec::default()
        },
        ..plain()
    };
    let error = root.try_run(&spec).unwrap_err();
    assert_eq!(error.exit_code(), 125, "{error}");
    assert!(error.to_string().contains("/bin/sh"), "{error}");
}

fn environment_and_directory() {
    let root = Rootfs::new();
    let spec = ContainerSpec {
        process: ProcessSpec {
            env: command(&["A=1", "B=two words"]),
            working_dir: Some("/new/place".into()),
            umask: Some(0o77),
            ..ProcessSpec::default()
        },
        network: NetworkSpec { hostname: Some("box".into()), ..NetworkSpec::default() },
        ..plain()
    };
    let text =
        root.shell("echo $A $B; pwd; hostname; echo $HOSTNAME $HOME; umask; env | wc -l", &spec);
    // PATH HOSTNAME A B HOME, and what the shell adds itself: PWD and SHLVL.
    assert_eq!(text, "1 two words\n/new/place\nbox\nbox /root\n0077\n7\n");
}

fn users_and_groups() {
    let root = Rootfs::new();
    let id = |user: &str| {
        root.shell(
            "id -u; id -g; id -G; echo $HOME",
            &ContainerSpec {
                process: ProcessSpec { user: Some(user.into()), ..ProcessSpec::default() },
                ..plain()
            },
        )
    };
    if !runtime::single_id() {
        assert_eq!(id("app"), "7\n8\n8 9\n/home/app\n");
        assert_eq!(id("app:extra"), "7\n9\n9\n/home/app\n");
        assert_eq!(id("42:43"), "42\n43\n43\n/\n");
    }
    assert_eq!(id("0"), "0\n0\n0\n/root\n");
    let wrong = {
        let mut spec = with_shell("id", &plain());
        spec.process.user = Some("4294967295".into());
        spec
    };
    assert!(matches!(root.try_run(&wrong), Err(Error::User { .. })));
}

fn status(root: &Rootfs, name: &str, spec: &ContainerSpec) -> String {
    let text = root.shell(&format!("grep ^{name}: /proc/self/status"), spec);
    text.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

fn capabilities() {
    let root = Rootfs::new();
    let default = "00000000a80425fb";
    for (name, expected) in [
        ("CapEff", default),
        ("CapPrm", default),
        ("CapBnd", default),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(status(&root, name, &plain()), expected, "{name}");
    }
    let none = ContainerSpec {
        isolation: Isolation { cap_drop: command(&["ALL"]), ..Isolation::default() },
        ..plain()
    };
    assert_eq!(status(&root, "CapEff", &none), "0000000000000000");
    let one = {
        let mut spec = none;
        spec.isolation.cap_add = command(&["NET_ADMIN"]);
        spec
    };
    assert_eq!(status(&root, "CapBnd", &one), "0000000000001000");
    if !runtime::single_id() {
        let user = ContainerSpec {
            process: ProcessSpec { user: Some("app".into()), ..ProcessSpec::default() },
            ..plain()
        };
        assert_eq!(status(&root, "CapEff", &user), "0000000000000000");
    }
}

fn seccomp_is_on() {
    let root = Rootfs::new();
    assert_eq!(status(&root, "Seccomp", &plain()), "2");
    let off = ContainerSpec {
        isolation: Isolation { seccomp: Some(Seccomp::Unconfined), ..Isolation::default() },
        ..plain()
    };
    assert_eq!(status(&root, "Seccomp", &off), "0");
    let (code, _) = root.try_run(&with_shell("mount -t tmpfs x /tmp", &plain())).unwrap();
    assert!(!code.success());
}

fn no_new_privileges() {
    let root = Rootfs::new();
    assert_eq!(status(&root, "NoNewPrivs", &plain()), "0");
    let on = ContainerSpec {
        isolation: Isolation { no_new_privileges: Some(true), ..Isolation::default() },
        ..plain()
    };
    assert_eq!(status(&root, "NoNewPrivs", &on), "1");
    assert_eq!(status(&root, "Seccomp", &on), "2");
}

fn no_descriptor_leaks() {
    let root = Rootfs::new();
    let leak = std::fs::File::open("/").unwrap();
    let text = root.shell("ls /proc/self/fd | tr '\\n' ' '", &plain());
    // Three streams, and the one ls itself reads the directory with.
    assert_eq!(text.trim(), "0 1 2 3");
    let init =
        ContainerSpec { process: ProcessSpec { init: true, ..ProcessSpec::default() }, ..plain() };
    assert_eq!(root.shell("ls /proc/1/fd | wc -l", &init).trim(), "0");
    drop(leak);
}

fn own_namespaces() {
    let root = Rootfs::new();
    let line = "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; echo $$; ps | wc -l";
    let text = root.shell(line, &plain());
    let mut lines = text.lines();
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(lines.next().unwrap(), ours.to_str().unwrap(), "{name}");
    }
    assert_eq!(lines.next(), Some("1"));
}

fn nothing_of_the_host_is_mounted() {
    let root = Rootfs::new();
    root.write("marker", "");
    for spec in [
        plain(),
        ContainerSpec {
            isolation: Isolation { privileged: true, ..Isolation::default() },
            ..plain()
        },
    ] {
        let line = "ls -d /../marker /../../marker /proc/self/root/../marker; cd /etc/..; ls -d marker; cut -d' ' -f5 /proc/self/mountinfo";
        let text = root.shell(line, &spec);
        let mut lines = text.lines();
        assert_eq!(
            lines.by_ref().take(4).filter(|line| line.ends_with("marker")).count(),
            4,
            "{text}"
        );
        let mut roots = 0;
        for point in lines {
            let known = ["/proc", "/dev", "/sys"].iter().any(|known| point.starts_with(known));
            roots += u32::from(point == "/");
            assert!(known || point == "/", "{point}");
        }
        assert_eq!(roots, 1);
    }
}

fn masked_and_read_only_paths() {
    let root = Rootfs::new();
    let text = root.shell(
        "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | wc -w; \
         for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/profiling /proc/irq/x; do \
           (echo x > $f) 2>/dev/null && echo wrote $f; done; \
         touch /sys/fs/cgroup/x 2>/dev/null && echo made; mkdir /sys/fs/cgroup/d 2>/dev/null && echo made; true",
        &plain(),
    );
    assert_eq!(text, "0\n0\n");
}

fn devices() {
    let root = Rootfs::new();
    let text = root.shell(
        "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %F %t %T %a' $d; done; \
         head -c 4 zero | wc -c; echo x > null; for l in ptmx fd stdin; do readlink $l; done; ls -d shm mqueue pts",
        &plain(),
    );
    for line in ["null character special file 1 3 666", "tty character special file 5 0 666"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(
        text.ends_with("4\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0\nmqueue\npts\nshm\n"),
        "{text}"
    );
}

fn made_devices_do_not_open() {
    let root = Rootfs::new();
    for place in ["/tmp", "/dev", "/dev/shm", "/mnt"] {
        let bind = tempfile::tempdir().unwrap();
        let spec = ContainerSpec {
            files: Files { mounts: vec![rw_bind(bind.path(), "/mnt")], ..Files::default() },
            ..plain()
        };
        let line = format!(
            "mknod {place}/z c 1 5 2>/dev/null; head -c 1 {place}/z 2>/dev/null | wc -c; head -c 1 /dev/zero | wc -c"
        );
        assert_eq!(root.shell(&line, &spec), "0\n1\n", "{place}");
    }
}

fn rw_bind(source: &std::path::Path, target: &str) -> Mount {
    Mount::Bind {
        source: source.into(),
        target: target.into(),
        read_only: false,
        recursive: true,
        propagation: Propagation::Private,
        options: Vec::new(),
    }
}

fn links_in_the_image_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    for (name, parent) in [
        ("proc", ""),
        ("dev", ""),
        ("sys", ""),
        ("dev/null", "dev"),
        ("dev/pts", "dev"),
        ("etc/passwd", ""),
    ] {
        for target in
            [outside.path().to_str().unwrap(), "/etc", "../../../../../../tmp", "/proc/self/cwd"]
        {
            let root = Rootfs::new();
            let place = root.path(name);
            if place.is_dir() {
                std::fs::remove_dir(&place).unwrap();
            } else {
                let _ = std::fs::remove_file(&place);
            }
            let _ = parent;
            symlink(target, &place).unwrap();
            // Running contained or refusing are both fine; touching the outside is not.
            let spec = ContainerSpec {
                files: Files {
                    mounts: vec![rw_bind(&root.path("tmp"), "/etc/passwd2")],
                    ..Files::default()
                },
                ..plain()
            };
            let result =
                root.try_run(&with_shell("cat /proc/mounts >/dev/null; touch /dev/made", &spec));
            if matches!(name, "proc" | "dev" | "sys") {
                let error =
                    result.expect_err("a link as a mount point of the kernel's file systems");
                assert_eq!(error.exit_code(), 125, "{error}");
            }
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{name} -> {target}");
        }
    }
}

fn working_directory_tricks() {
    let root = Rootfs::new();
    symlink("/proc/self/fd/7", root.path("link")).unwrap();
    for number in 0..12 {
        for cwd in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/../../.."),
            "/link".into(),
        ] {
            let spec = {
                let mut spec = with_shell("ls -d bin", &plain());
                spec.process.working_dir = Some(cwd.clone());
                spec
            };
            // Refused, or run somewhere inside: then the container's root is what is found above.
            if let Ok((status, text)) = root.try_run(&spec) {
                assert!(!text.contains("work"), "{cwd}: {status:?} {text}");
                let there = ContainerSpec {
                    process: ProcessSpec {
                        working_dir: Some(cwd.clone()),
                        ..ProcessSpec::default()
                    },
                    ..plain()
                };
                assert!(
                    !root
                        .shell("cat ../../../../../etc/passwd 2>/dev/null || true", &there)
                        .contains("daemon"),
                    "{cwd}"
                );
            }
        }
    }
}

fn read_only_root() {
    let root = Rootfs::new();
    let spec = ContainerSpec { files: Files { read_only: true, ..Files::default() }, ..plain() };
    let line = "touch /x 2>/dev/null && echo wrote; touch /tmp/x 2>/dev/null && echo wrote; touch /dev/shm/x && echo shm";
    assert_eq!(root.shell(line, &spec), "shm\n");
    assert!(!exists(&root.path("x")));
}

fn tmpfs_and_binds() {
    let root = Rootfs::new();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("file"), "content\n").unwrap();
    let spec = ContainerSpec {
        files: Files {
            mounts: vec![
                Mount::Tmpfs {
                    target: "/scratch/deep".into(),
                    options: command(&["size=64k", "mode=700"]),
                },
                rw_bind(source.path(), "/rw"),
                Mount::Bind {
                    source: source.path().into(),
                    target: "/ro".into(),
                    read_only: true,
                    recursive: true,
                    propagation: Propagation::Private,
                    options: Vec::new(),
                },
                rw_bind(&source.path().join("file"), "/etc/file"),
            ],
            ..Files::default()
        },
        limits: Limits { shm_size: Some(1 << 20), ..Limits::default() },
        ..plain()
    };
    let line = "cat /rw/file /ro/file /etc/file; touch /rw/made; touch /ro/made2 2>/dev/null || echo refused; \
        dd if=/dev/zero of=/scratch/deep/x bs=1k count=100 2>/dev/null || echo full; stat -c %a /scratch/deep; \
        grep -c 'shm .*size=1024k' /proc/mounts";
    assert_eq!(root.shell(line, &spec), "content\ncontent\ncontent\nrefused\nfull\n700\n1\n");
    assert!(exists(&source.path().join("made")));
    assert!(!exists(&source.path().join("made2")));
    assert!(!exists(&root.path("scratch/deep/x")));
    let missing = {
        let mut spec = with_shell("true", &plain());
        spec.files.mounts = vec![rw_bind(std::path::Path::new("/nowhere/at/all"), "/x")];
        spec
    };
    let error = root.try_run(&missing).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

fn bind_on_a_link() {
    let root = Rootfs::new();
    symlink("../run/resolv/stub.conf", root.path("etc/resolv.conf")).unwrap();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("r"), "nameserver\n").unwrap();
    let spec = ContainerSpec {
        files: Files {
            mounts: vec![rw_bind(&source.path().join("r"), "/etc/resolv.conf")],
            ..Files::default()
        },
        ..plain()
    };
    assert_eq!(
        root.shell("cat /etc/resolv.conf /run/resolv/stub.conf", &spec),
        "nameserver\nnameserver\n"
    );
}

fn limits_of_the_process() {
    let root = Rootfs::new();
    let spec = ContainerSpec {
        limits: Limits {
            ulimits: vec![
                Ulimit { name: "nofile".into(), soft: 100, hard: 200 },
                Ulimit { name: "core".into(), soft: 0, hard: 0 },
            ],
            oom_score_adj: Some(500),
            ..Limits::default()
        },
        ..plain()
    };
    let text = root.shell("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj", &spec);
    assert_eq!(text, "100\n200\n0\n500\n");
}

fn networks() {
    let root = Rootfs::new();
    let line = "grep -c : /proc/net/dev; ip addr show lo | grep -c 'UP'";
    assert_eq!(root.shell(line, &plain()), "1\n1\n");
    let host = ContainerSpec {
        network: NetworkSpec { mode: Some(Network::Host), ..NetworkSpec::default() },
        ..plain()
    };
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(root.shell("readlink /proc/self/ns/net", &host).trim(), ours.to_str().unwrap());
    assert_eq!(
        root.shell(
            "touch /sys/x 2>/dev/null && echo wrote; ls /sys/class | wc -l | grep -c 0 ; true",
            &host
        )
        .matches("wrote")
        .count(),
        0
    );
}

fn sysctls() {
    let root = Rootfs::new();
    let spec = ContainerSpec {
        isolation: Isolation {
            sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "99".to_owned())].into(),
            ..Isolation::default()
        },
        ..plain()
    };
    assert_eq!(root.shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", &spec), "99\n");
}

fn own_program_is_not_writable() {
    let root = Rootfs::new();
    let before = std::fs::metadata("/proc/self/exe").unwrap();
    let line = "(echo x >> /proc/1/exe) 2>/dev/null && echo wrote; \
        (exec 9</proc/1/exe; echo x >> /proc/self/fd/9) 2>/dev/null && echo wrote; chmod 777 /proc/1/exe 2>/dev/null && echo changed; true";
    let spec =
        ContainerSpec { process: ProcessSpec { init: true, ..ProcessSpec::default() }, ..plain() };
    assert_eq!(root.shell(line, &spec), "");
    let privileged = {
        let mut spec = spec;
        spec.isolation.privileged = true;
        spec
    };
    assert_eq!(root.shell(line, &privileged), "");
    let after = std::fs::metadata("/proc/self/exe").unwrap();
    assert_eq!(
        (before.len(), before.modified().unwrap()),
        (after.len(), after.modified().unwrap())
    );
    // As entrypoint it is nothing but a program that is not there.
    let trick = ContainerSpec {
        process: ProcessSpec { command: command(&["/proc/self/exe"]), ..ProcessSpec::default() },
        ..plain()
    };
    assert!(root.try_run(&trick).is_err());
}

fn cancel_kills() {
    let root = Rootfs::new();
    let task = task::Task::silent();
    let options =
        runtime::StartOptions { id: id(), init: true, ..runtime::StartOptions::default() };
    let bundle = root.bundle(&with_shell("trap '' TERM INT; sleep 1000", &plain())).unwrap();
    let container = runtime::Container::start(bundle, runtime::Stdio::Capture, &options).unwrap();
    let pid = container.pid();
    let canceller = task.canceller();
    std::thread::scope(|scope| {
        scope.spawn(move || canceller.cancel());
        assert!(matches!(container.wait(&task), Err(Error::Cancelled(_))));
    });
    assert!(!exists(&std::path::PathBuf::from(format!("/proc/{pid}"))));
}

fn init_reaps_and_forwards() {
    let root = Rootfs::new();
    let spec =
        ContainerSpec { process: ProcessSpec { init: true, ..ProcessSpec::default() }, ..plain() };
    // The orphan is adopted by pid 1 and must not stay a zombie.
    let line = "(sleep 0.01 & echo $! > /tmp/pid; :); sleep 0.1; test -e /proc/$(cat /tmp/pid) && echo zombie; echo $$";
    assert_ne!(root.shell(line, &spec).trim(), "1");
    assert!(!root.shell(line, &spec).contains("zombie"));
    let (status, _) = root.try_run(&with_shell("kill -TERM $$", &spec)).unwrap();
    assert_eq!(status, ExitStatus::Code(143));
    let (status, _) = root.try_run(&with_shell("exit 9", &spec)).unwrap();
    assert_eq!(status, ExitStatus::Code(9));
    let line = "trap 'echo got; exit 3' TERM; kill -TERM 1; while :; do sleep 0.01; done";
    let (status, text) = root.try_run(&with_shell(line, &spec)).unwrap();
    assert_eq!((status, text.as_str()), (ExitStatus::Code(3), "got\n"));
}

fn many_at_once_from_threads() {
    let root = Rootfs::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let root = &root;
            scope.spawn(move || {
                for round in 0..3 {
                    let line = format!("echo {thread} {round}");
                    assert_eq!(root.shell(&line, &plain()), format!("{thread} {round}\n"));
                }
            });
        }
    });
}

fn privileged() {
    let root = Rootfs::new();
    let spec = ContainerSpec {
        isolation: Isolation { privileged: true, ..Isolation::default() },
        ..plain()
    };
    assert_eq!(status(&root, "Seccomp", &spec), "0");
    root.shell("mount -t tmpfs x /tmp && touch /tmp/x", &spec);
}
