//! `RUN`.

use task::{Fault, Kind};

use crate::Case;
use crate::support::{Place, ready};

pub(crate) const CASES: &[Case] = &[
    ("a_command_runs_and_its_changes_are_the_layer", simple),
    ("a_failing_command_tells_where", failing),
    ("environment_user_and_directory", environment),
    ("here_documents_run", heredocs),
    ("mounts_are_seen_and_leave_no_trace", mounts),
    ("caches_survive", caches),
    ("secrets_leave_no_trace", secrets),
    ("agents_are_reached", agents),
    ("networks", networks),
    ("more_is_given_only_where_it_is_allowed", allowed),
    ("memory_starts_with_what_it_covers", copied_up),
    ("commands_without_namespaces", chroot),
    ("cancelling_ends_a_command", cancelling),
    ("a_warm_build_runs_nothing", warm),
    ("deleted_files_are_gone", deleted),
    ("links_of_the_image_lead_nowhere_else", hostile),
    ("a_failure_stops_the_others", parallel),
    ("an_empty_image_can_be_filled_and_run", from_nothing),
    ("layers_are_fetched_when_needed", lazy),
];

fn simple() {
    let Some(place) = ready() else { return };
    let look = place.build_text("FROM base\nRUN echo hello > /out && echo told\n");
    assert_eq!(look.text("/out"), "hello\n");
    assert_eq!(place.ear.output(), "told\n");
    assert_eq!(look.top_layer(&place), ["out"]);
    let last = look.history().pop().unwrap();
    assert_eq!(last, "RUN /bin/sh -c echo hello > /out && echo told # buildkit");
}

fn failing() {
    let Some(place) = ready() else { return };
    let error = place.fails("FROM base\n\nRUN echo before; exit 7\n");
    assert_eq!(error.kind(), Kind::Command);
    assert_eq!(error.exit_code(), Some(7));
    assert_eq!(
        error.to_string(),
        "Dockerfile:3: /bin/sh -c echo before; exit 7 exited with code 7"
    );
    assert_eq!(place.ear.output(), "before\n");
    let error = place.fails("FROM base\nRUN [\"/nothere\"]\n");
    assert!(task::chain(&error).join(": ").contains("/nothere"), "{error}");
}

fn environment() {
    let Some(place) = ready() else { return };
    let mut request = place.request(
        "FROM base\nARG A=1\nARG B\nENV C=3 A=env\nUSER app\nWORKDIR /work\nRUN echo $A $B $C $http_proxy $(id -u) $(id -g) $(pwd) > out\n",
    );
    request.build_args.insert("B".to_owned(), "2".to_owned());
    request.build_args.insert("http_proxy".to_owned(), "http://proxy".to_owned());
    let look = place.build(request.clone());
    assert_eq!(look.text("/work/out"), "env 2 3 http://proxy 1000 1001 /work\n");
    let config = serde_json::to_string(&**look.image.config()).unwrap();
    assert!(!config.contains("http:"), "{config}");
    request.build_args.insert("http_proxy".to_owned(), "http://other".to_owned());
    let again = place.build(request);
    assert_eq!(again.built.cached, again.built.steps, "proxies are in no key");
}

fn heredocs() {
    let Some(place) = ready() else { return };
    let look = place.build_text(
        "FROM base\nRUN <<EOF\nset -e\necho one > /one\necho two > /two\nEOF\nRUN <<E\n#!/bin/cat\ntext\nE\nRUN cat <<X > /three\nthree\nX\n",
    );
    assert_eq!(look.text("/two"), "two\n");
    assert_eq!(look.text("/three"), "three\n");
    assert!(place.ear.output().contains("#!/bin/cat\ntext\n"), "{}", place.ear.output());
}

fn mounts() {
    let Some(place) = ready() else { return };
    place
        .write("src/file", "content")
        .write("src/hidden", "no")
        .write(".dockerignore", "**/hidden\n");
    let look = place.build_text(
        "FROM base AS other\nRUN echo o > /o\nFROM base\nRUN --mount=type=bind,source=src,target=/mnt/src --mount=type=bind,from=other,source=/o,target=/deep/er/o --mount=type=tmpfs,target=/scratch,size=1m cat /mnt/src/file /deep/er/o && test ! -e /mnt/src/hidden && touch /scratch/x && ! touch /mnt/src/new 2>/dev/null && echo done > /out\n",
    );
    assert_eq!(look.top_layer(&place), ["out"], "mount points leave no trace");
    assert!(place.ear.output().contains("content"), "{}", place.ear.output());
    let look = place.build_text(
        "FROM base\nRUN --mount=type=bind,source=src,target=/mnt,rw echo changed > /mnt/file && cat /mnt/file > /out\n",
    );
    assert_eq!(look.text("/out"), "changed\n");
    let look = place.build_text(
        "FROM base AS other\nRUN mkdir /o && echo o > /o/f && ln -s f /o/l\nFROM base\nRUN --mount=type=bind,from=other,source=/o/l,target=/ro --mount=type=bind,from=other,source=/o,target=/rw,rw cat /ro > /out && ! touch /ro 2>/dev/null && echo more >> /rw/f && cat /rw/f >> /out\nCOPY --from=other /o/f /o\n",
    );
    assert_eq!((look.text("/out").as_str(), look.text("/o").as_str()), ("o\no\nmore\n", "o\n"));
    let error =
        place.fails("FROM base\nRUN --mount=type=bind,from=base,source=/no,target=/x true\n");
    assert!(task::chain(&error)[1].ends_with("\"no\" is not in image base"), "{error}");
    let file = std::fs::read_to_string(place.context.join("src/file")).unwrap();
    assert_eq!(file, "content");
}

fn caches() {
    let Some(place) = ready() else { return };
    let run = |n: u32| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/cache,mode=0700,uid=3 echo {n} >> /cache/log && cat /cache/log > /out && stat -c '%a %u' /cache >> /out\n"
        )
    };
    assert_eq!(place.build_text(&run(1)).text("/out"), "1\n700 3\n");
    let look = place.build_text(&run(2));
    assert_eq!(look.text("/out"), "1\n2\n700 3\n");
    assert_eq!(look.top_layer(&place), ["out"]);
}

fn secrets() {
    let Some(place) = ready() else { return };
    let text = "FROM base\nRUN --mount=type=secret,id=s --mount=type=secret,id=e,env=TOKEN cat /run/secrets/s && echo $TOKEN && stat -c %a /run/secrets/s && touch /out\n";
    let mut request = place.request(text);
    request.secrets.insert("s".to_owned(), builder::Secret::Value(b"hush\n".to_vec()));
    request.secrets.insert("e".to_owned(), builder::Secret::Value(b"token".to_vec()));
    let look = place.build(request);
    assert_eq!(place.ear.output(), "hush\ntoken\n400\n");
    assert_eq!(look.top_layer(&place), ["out"]);
    let config = serde_json::to_string(&**look.image.config()).unwrap();
    assert!(!config.contains("hush") && !config.contains("=token"), "{config}");
    let error = place.fails("FROM base\nRUN --mount=type=secret,id=s,required true\n");
    assert!(task::chain(&error)[1].contains("secret \"s\" is required"), "{error}");
    place.build_text(
        "FROM base\nRUN --mount=type=secret,id=missing test ! -e /run/secrets/missing\n",
    );
}

fn networks() {
    let Some(place) = ready() else { return };
    let text = "FROM base\nRUN --network=none ip link > /none\nRUN cat /etc/hosts > /hosts && hostname > /name\n";
    let mut request = place.request(text);
    request.run.base.network.hosts = vec![("there".to_owned(), "10.1.2.3".parse().unwrap())];
    let look = place.build(request.clone());
    let links = look.text("/none");
    assert_eq!(links.lines().filter(|line| !line.starts_with(' ')).count(), 1, "{links}");
    assert!(look.text("/hosts").contains("10.1.2.3\tthere"));
    assert!(!look.exists("/etc/hosts"), "nothing is left in the image");
    assert!(!look.exists("/etc/resolv.conf"));
    assert!(!look.exists("/proc"));
    request.run.base.network.hosts = vec![("there".to_owned(), "10.1.2.4".parse().unwrap())];
    assert!(
        place.build(request).text("/hosts").contains("10.1.2.4\tthere"),
        "hosts are in the key"
    );
}

fn warm() {
    let Some(place) = ready() else { return };
    let text = "FROM base\nRUN echo ran\nRUN echo more > /f\n";
    let first = place.build_text(text);
    let second = place.build_text(text);
    assert_eq!(place.ear.output(), "");
    assert_eq!(first.image.id(), second.image.id());
}

fn deleted() {
    let Some(place) = ready() else { return };
    let look =
        place.build_text("FROM base\nRUN rm /etc/group && mkdir /d && touch /d/x\nRUN rm -r /d\n");
    assert!(!look.exists("/etc/group"));
    assert!(!look.exists("/d"));
    assert_eq!(look.top_layer(&place), [".wh.d"]);
}

fn hostile() {
    let Some(place) = ready() else { return };
    place.write("src/file", "content");
    let out = place.root.join("outside");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("passwd"), "app:x:7:7::/:\n").unwrap();
    let out = out.to_str().unwrap();
    let look = place.build_text(&format!(
        "FROM base\nRUN ln -s {out} /abs && ln -s ../../../../../../../..{out} /rel && ln -s /abs/new /dangling\nRUN --mount=type=bind,source=src,target=/abs/mount --mount=type=tmpfs,target=/rel/tmp cat /abs/mount/file\nCOPY src/file /abs/copied\nCOPY src /rel/dir/\nWORKDIR /abs/work\nWORKDIR /dangling/x\nRUN --mount=type=secret,id=no,target=/abs/secret --mount=type=cache,target=/abs/cache touch /abs/touched\n"
    ));
    let left: Vec<_> = std::fs::read_dir(out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["passwd"], "nothing may be written outside the image");
    assert_eq!(look.text(&format!("{out}/copied")), "content");
    assert!(look.exists(&format!("{out}/dir/file")) && look.exists(&format!("{out}/new/x")));
    assert!(!look.exists(&format!("{out}/mount")) && !look.exists(&format!("{out}/cache")));
    let error = place.fails(&format!(
        "FROM base\nRUN rm /etc/passwd && ln -s {out}/passwd /etc/passwd\nCOPY --chown=app src /y\n"
    ));
    assert!(task::chain(&error)[1].contains("app"), "{error}");
    let error = place
        .fails("FROM base\nRUN rm /etc/passwd && mkfifo /etc/passwd\nCOPY --chown=app src /y\n");
    assert!(task::chain(&error).join(" ").contains("/etc/passwd"), "{error}");
}

fn parallel() {
    let Some(place) = ready() else { return };
    let error = place.fails("FROM base AS slow\nRUN sleep 1000\nFROM base AS bad\nRUN sleep 0.3; exit 3\nFROM base\nCOPY --from=slow / /\nCOPY --from=bad / /\n");
    assert_eq!(error.exit_code(), Some(3), "{error}");
    let cancelled = place.ear.ended(task::Outcome::Cancelled);
    assert!(cancelled.iter().any(|name| name.contains("sleep 1000")), "{cancelled:?}");
}

fn from_nothing() {
    let Some(place) = ready() else { return };
    let look = place.build_text(
        "FROM scratch\nCOPY --from=base /bin/ /bin/\nRUN [\"/bin/sh\", \"-c\", \"ls / > /list\"]\n",
    );
    assert_eq!(look.top_layer(&place), ["list"]);
    let names = look.tree("/");
    assert!(
        !names.iter().any(|name| name.starts_with("proc") || name.starts_with("dev")),
        "{names:?}"
    );
}

fn lazy() {
    let Some(place) = ready() else { return };
    let layout = place.root.join("layout");
    let mut request = place.request("FROM base\n");
    request.outputs = vec![builder::Output::Image(format!("oci:{}:app", layout.display()))];
    place.build(request);
    let other = Place::empty();
    let mut request =
        other.request(&format!("FROM oci:{}:app\nRUN echo x > /x\n", layout.display()));
    let look = other.build(request.clone());
    assert_eq!(look.text("/x"), "x\n");
    let done = other.ear.ended(task::Outcome::Done);
    assert!(done.iter().any(|name| name.starts_with("pulling")), "{done:?}");
    other.build(request.clone());
    let done = other.ear.ended(task::Outcome::Done);
    assert!(!done.iter().any(|name| name.starts_with("pulling")), "{done:?}");
    request.dockerfile.text = "FROM base\n".to_owned();
    request.pull = builder::Pull::Never;
    let error = other.try_build(request).unwrap_err();
    let said = task::chain(&error).join(": ");
    assert!(said.contains("must not be pulled"), "{said}");
    let third = Place::empty();
    let mut request = third.request(&format!(
        "FROM oci:{}:app AS big\nFROM scratch\nCOPY --from=big /etc/group /\n",
        layout.display()
    ));
    request.target = Some("big".to_owned());
    request.outputs = vec![builder::Output::Image(format!("oci:{}:again", layout.display()))];
    assert!(third.build(request).exists("/bin/sh"));
}

fn agents() {
    let Some(place) = ready() else { return };
    let socket = place.root.join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let text = "FROM base\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK\n";
    let mut request = place.request(text);
    request.ssh.insert("default".to_owned(), builder::Agent::Socket(socket));
    let look = place.build(request.clone());
    assert_eq!(place.ear.output(), "/run/buildkit/ssh_agent.0\n");
    assert_eq!(look.top_layer(&place), [""; 0]);
    request.dockerfile.text = "FROM base\nUSER app\nRUN --mount=type=ssh,uid=1000,gid=7,mode=0640,target=/run/a stat -c '%a %u %g' /run/a\n".to_owned();
    place.build(request);
    assert_eq!(place.ear.output(), "640 1000 7\n");
    let error = place.fails("FROM base\nRUN --mount=type=ssh,required true\n");
    assert!(task::chain(&error)[1].contains("ssh agent \"default\" is required"), "{error}");
}

fn cancelling() {
    let Some(place) = ready() else { return };
    place.ear.cancel_on("started");
    let error = place.fails("FROM base\nRUN echo started; sleep 1000\n");
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
    place.ear.cancel_on("");
    place.build_text("FROM base\nRUN echo started\n");
}

fn allowed() {
    let Some(place) = ready() else { return };
    let try_with = |text: &str, change: &dyn Fn(&mut builder::Request)| {
        let mut request = place.request(text);
        change(&mut request);
        place.try_build(request).map_err(|error| task::chain(&error).join(": "))
    };
    let refused = |text: &str, change: &dyn Fn(&mut builder::Request), flag: &str| {
        let mut request = place.request(text);
        change(&mut request);
        let error = place.try_build(request).unwrap_err();
        let (file, diagnostics) = error.excerpts().unwrap();
        let shown = dockerfile::render(&file.text, &file.name, &diagnostics[0]);
        assert!(shown.contains("Dockerfile:2") && shown.contains(flag), "{shown}");
    };
    let insecure = "FROM base\nRUN --security=insecure grep Seccomp: /proc/self/status > /s; grep CapBnd /proc/self/status >> /s; touch /proc/sys/kernel/hostname\n";
    refused(insecure, &|_| {}, "the entitlement security.insecure");
    let mut request = place.request(insecure);
    request.allow.insecure = true;
    let status = place.build(request).text("/s");
    let bound = u64::from_str_radix(status.split_whitespace().last().unwrap(), 16).unwrap();
    assert!(status.contains("Seccomp:\t0") && bound >> 21 & 1 == 1, "{status}");
    let device =
        "FROM base\nRUN --device=/dev/kmsg,required test -c /dev/kmsg && echo seen > /out\n";
    refused(
        device,
        &|request| request.allow.devices.push("/dev/full".to_owned()),
        "the entitlement device=/dev/kmsg",
    );
    refused(
        "FROM base\nRUN --device=vendor.example/gpu=0 true\n",
        &|request| request.allow.all_devices = true,
        "CDI",
    );
    refused(
        "FROM base\nRUN --device=/dev/../etc/passwd true\n",
        &|request| request.allow.all_devices = true,
        "CDI",
    );
    try_with(device, &|request| request.allow.devices.push("/dev/kmsg".to_owned())).unwrap();
    let missing = "FROM base\nRUN --device=/dev/nothere,required true\n";
    let error = try_with(missing, &|request| request.allow.all_devices = true).unwrap_err();
    assert!(error.contains("/dev/nothere is required"), "{error}");
    let missing = "FROM base\nRUN --device=/dev/nothere test ! -e /dev/nothere\n";
    try_with(missing, &|request| request.allow.all_devices = true).unwrap();
    // A build without network keeps its commands from it.
    let none = |request: &mut builder::Request| request.network = builder::Network::None;
    refused("FROM base\nRUN --network=host true\n", &none, "the entitlement network.host");
    // Nor does one have the machine's network that the build does not have.
    refused("FROM base\nRUN --network=host true\n", &|_| {}, "the entitlement network.host");
    let default = "FROM base\nRUN --network=default ip link | grep -c '^[0-9]' > /links\n";
    let mut request = place.request(default);
    none(&mut request);
    assert_eq!(place.build(request).text("/links"), "1\n");
    let mut request = place.request("FROM base\nRUN grep CapBnd /proc/self/status > /s\n");
    request.network = builder::Network::Host;
    let caps = place.build(request).text("/s");
    let caps = u64::from_str_radix(caps.split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(caps >> 13 & 1, 0, "who shares the network of the machine does not listen to it");
    let raw = "FROM base\nRUN --network=none grep CapBnd /proc/self/status > /s\n";
    let caps = place.build_text(raw).text("/s");
    let caps = u64::from_str_radix(caps.split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(caps >> 13 & 1, 1);
}

fn copied_up() {
    let Some(place) = ready() else { return };
    let look = place.build_text(
        "FROM base\nRUN mkdir -m 0711 /d /d/sub && echo kept > /d/f && echo deep > /d/sub/f && ln -s f /d/l && chown 7:8 /d /d/f\nRUN --mount=type=tmpfs,target=/d,tmpcopyup,size=1m cat /d/l /d/sub/f > /out && stat -c '%a %u %g' /d /d/f >> /out && echo new > /d/f && rm /d/l && ! head -c 2000000 /dev/zero > /d/big 2>/dev/null\nRUN --mount=type=tmpfs,target=/no/such,tmpcopyup,mode=1777 stat -c %a /no/such >> /out\nRUN --mount=type=tmpfs,target=/x cp /bin/busybox /x/ && /x/busybox echo runs >> /out\n",
    );
    assert_eq!(look.text("/out"), "kept\ndeep\n711 7 8\n644 7 8\n1777\nruns\n");
    assert_eq!((look.text("/d/f").as_str(), look.exists("/d/l")), ("kept\n", true));
    assert!(!look.exists("/no"));
}

fn chroot() {
    let Some(place) = ready() else { return };
    let mut request = place.request(
        "FROM base\nRUN for n in pid ipc uts; do readlink /proc/self/ns/$n; done > /ns && test -d /sys/class && echo x > /x\n",
    );
    request.run.base.isolation.chroot = true;
    let look = place.build(request);
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let own = ["pid", "ipc", "uts"].map(|name| own(name).display().to_string()).join("\n");
    assert_eq!(look.text("/ns"), format!("{own}\n"));
    assert_eq!(look.top_layer(&place), ["ns", "x"]);
}
