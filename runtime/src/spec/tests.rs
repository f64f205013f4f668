use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:100::/home/app:/bin/sh\n";

fn config() -> image::ContainerConfig {
    image::ContainerConfig {
        env: vec!["PATH=/bin".into(), "A=1".into()],
        entrypoint: Some(vec!["/enter".into()]),
        cmd: Some(vec!["cmd".into()]),
        ..image::ContainerConfig::default()
    }
}

fn made(config: &image::ContainerConfig, wanted: &ContainerSpec) -> Result<Spec> {
    spec(config, wanted, &|file| Ok((file == UserFile::Passwd).then(|| PASSWD.to_owned())))
}

fn process_of(config: &image::ContainerConfig, spec: &ContainerSpec) -> Process {
    made(config, spec).unwrap().process().clone().unwrap()
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn entrypoint_and_command_follow_docker() {
    let check = |entrypoint: Option<&[&str]>, command: &[&str], expected: Option<&[&str]>| {
        let spec = ContainerSpec {
            process: ProcessSpec {
                entrypoint: entrypoint.map(list),
                command: list(command),
                ..ProcessSpec::default()
            },
            ..ContainerSpec::default()
        };
        let args = made(&config(), &spec)
            .ok()
            .and_then(|spec| spec.process().clone())
            .and_then(|process| process.args().clone());
        assert_eq!(args, expected.map(list), "{entrypoint:?} {command:?}");
    };
    check(None, &[], Some(&["/enter", "cmd"]));
    check(None, &["a", "b"], Some(&["/enter", "a", "b"]));
    check(Some(&["/own"]), &[], Some(&["/own"]));
    check(Some(&["/own"]), &["a"], Some(&["/own", "a"]));
    check(Some(&[]), &["a"], Some(&["a"]));
    check(Some(&[]), &[], None);
}

#[test]
fn an_entrypoint_that_is_one_empty_text_is_none() {
    let config = image::ContainerConfig { entrypoint: Some(list(&[""])), ..config() };
    let args = process_of(&config, &ContainerSpec::default()).args().clone();
    assert_eq!(args, Some(list(&["cmd"])));
}

#[test]
fn what_no_container_can_have_is_found_before_one_starts() {
    let limit = |name: &str| Ulimit { name: name.to_owned(), soft: 1, hard: 1 };
    let mut spec = ContainerSpec::default();
    spec.limits.ulimits = vec![limit("nofile")];
    spec.isolation.cap_add = list(&["NET_ADMIN"]);
    assert!(spec.check().is_ok());
    spec.limits.ulimits = vec![limit("nope")];
    assert!(spec.check().unwrap_err().to_string().contains("nope"));
    spec.limits.ulimits.clear();
    spec.isolation.cap_add = list(&["NOPE"]);
    assert!(spec.check().is_err());
}

#[test]
fn environment_is_the_images_with_the_users_on_top() {
    let spec = ContainerSpec {
        process: ProcessSpec {
            env: list(&["A=2", "B=3", "HOME=/tmp"]),
            unset_env: list(&["HOSTNAME"]),
            terminal: true,
            ..ProcessSpec::default()
        },
        ..ContainerSpec::default()
    };
    let process = process_of(&config(), &spec);
    let expected = list(&["PATH=/bin", "TERM=xterm", "A=2", "B=3", "HOME=/tmp"]);
    assert_eq!(process.env().as_ref().unwrap(), &expected);
    let process = process_of(
        &config(),
        &ContainerSpec {
            process: ProcessSpec { user: Some("app".into()), ..ProcessSpec::default() },
            ..ContainerSpec::default()
        },
    );
    let expected = list(&["PATH=/bin", "HOSTNAME=localhost", "A=1", "HOME=/home/app"]);
    assert_eq!(process.env().as_ref().unwrap(), &expected);
    for bad in ["novalue", "=x", "A=\0"] {
        assert!(
            made(
                &config(),
                &ContainerSpec {
                    process: ProcessSpec { env: list(&[bad]), ..ProcessSpec::default() },
                    ..ContainerSpec::default()
                }
            )
            .is_err()
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let sysctl = |key: &str| [(key.to_owned(), "1".to_owned())].into();
    let ulimit = |name: &str, soft, hard| vec![Ulimit { name: name.into(), soft, hard }];
    let bind = |source: &str, target: &str| {
        vec![Mount::Bind {
            source: source.into(),
            target: target.into(),
            read_only: false,
            recursive: true,
            propagation: Propagation::Private,
            options: Vec::new(),
        }]
    };
    type Change = Box<dyn Fn(&mut ContainerSpec)>;
    let cases: [(&str, Change); 14] = [
        ("user", Box::new(|spec| spec.process.user = Some("4294967295".into()))),
        ("cwd", Box::new(|spec| spec.process.working_dir = Some("relative".into()))),
        ("sysctl", Box::new(move |spec| spec.isolation.sysctls = sysctl("kernel.core_pattern"))),
        (
            "path in sysctl",
            Box::new(move |spec| {
                spec.isolation.sysctls = sysctl("net.ipv4/../../kernel/core_pattern");
            }),
        ),
        (
            "host net",
            Box::new(move |spec| {
                spec.isolation.sysctls = sysctl("net.a");
                spec.network.mode = Some(Network::Host);
            }),
        ),
        ("ulimit", Box::new(move |spec| spec.limits.ulimits = ulimit("nothing", 1, 1))),
        ("soft", Box::new(move |spec| spec.limits.ulimits = ulimit("nofile", 2, 1))),
        ("cpus", Box::new(|spec| spec.limits.cpus = Some(f64::NAN))),
        (
            "cpus and quota",
            Box::new(|spec| (spec.limits.cpus, spec.limits.cpu_quota) = (Some(1.0), Some(1))),
        ),
        ("score", Box::new(|spec| spec.limits.oom_score_adj = Some(1001))),
        ("relative bind", Box::new(move |spec| spec.files.mounts = bind("a", "/b"))),
        ("climbing bind", Box::new(move |spec| spec.files.mounts = bind("/a", "/b/../c"))),
        ("root bind", Box::new(move |spec| spec.files.mounts = bind("/a", "/"))),
        ("memory", Box::new(|spec| spec.limits.memory = Some(u64::MAX))),
    ];
    for (refused, change) in cases {
        let mut spec = ContainerSpec::default();
        change(&mut spec);
        assert!(made(&config(), &spec).is_err(), "{refused}");
    }
    let mut fine = ContainerSpec::default();
    fine.isolation.sysctls = sysctl("net.ipv4.ip_forward");
    assert!(made(&config(), &fine).is_ok());
}

#[test]
fn privileged_hides_and_filters_nothing() {
    let linux = |privileged| {
        let spec = ContainerSpec {
            isolation: Isolation { privileged, ..Isolation::default() },
            ..ContainerSpec::default()
        };
        made(&config(), &spec).unwrap().linux().clone().unwrap()
    };
    let (plain, privileged) = (linux(false), linux(true));
    assert!(plain.seccomp().is_some() && privileged.seccomp().is_none());
    assert!(plain.masked_paths().is_some() && privileged.masked_paths().is_none());
    assert!(plain.readonly_paths().is_some() && privileged.readonly_paths().is_none());
}

#[test]
fn limits_are_those_asked_for() {
    let spec = ContainerSpec {
        limits: Limits {
            memory: Some(1 << 20),
            cpus: Some(1.5),
            pids_limit: Some(0),
            ..Limits::default()
        },
        ..ContainerSpec::default()
    };
    let spec = made(&config(), &spec).unwrap();
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(resources.memory().unwrap().limit(), Some(1 << 20));
    assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(150_000));
    assert_eq!(resources.pids().unwrap().limit(), -1);
}

fn binds(pairs: &[(&str, &str)]) -> Vec<Mount> {
    let bind = |(source, target): &(&str, &str)| Mount::Bind {
        source: source.into(),
        target: target.into(),
        read_only: false,
        recursive: true,
        propagation: Propagation::Private,
        options: Vec::new(),
    };
    pairs.iter().map(bind).collect()
}

fn with_mounts(mounts: Vec<Mount>) -> ContainerSpec {
    let files = Files { mounts, ..Files::default() };
    ContainerSpec { files, ..ContainerSpec::default() }
}

fn targets(spec: &ContainerSpec) -> Vec<(String, String)> {
    let text = |path: &std::path::Path| path.display().to_string();
    let spec = made(&config(), spec).unwrap();
    let mounts = spec.mounts().clone().unwrap();
    let pair = |mount: &oci_spec::runtime::Mount| {
        (text(mount.destination()), mount.source().as_deref().map(text).unwrap_or_default())
    };
    mounts.iter().map(pair).collect()
}

#[test]
fn mounts_come_after_their_parents() {
    let given = [("/1", "/m/f/deep"), ("/2", "/m//f/"), ("/3", "/m"), ("/4", "/a"), ("/5", "/m/f")];
    let mut mounts = binds(&given);
    mounts.push(Mount::Tmpfs { target: "/a/b".into(), options: Vec::new() });
    mounts.extend(binds(&[("/6", "/a/b/c")]));
    let all = targets(&with_mounts(mounts));
    for (index, (target, _)) in all.iter().enumerate() {
        let covers = |(earlier, _): &&(String, String)| {
            let (earlier, target) = (std::path::Path::new(earlier), std::path::Path::new(target));
            earlier.starts_with(target) && earlier != target
        };
        assert_eq!(all[..index].iter().find(covers), None, "{target} covers it");
    }
    let sources: Vec<_> = all.iter().map(|(_, source)| source.as_str()).collect();
    let place = |source: &str| sources.iter().position(|known| *known == source).unwrap();
    // What is equally deep stays in the order given: the later covers the earlier.
    assert!(place("/3") < place("/4") && place("/2") < place("/5") && place("/5") < place("/1"));
}

#[test]
fn a_mount_of_the_user_replaces_the_standard_ones_there_and_below() {
    let standard = targets(&ContainerSpec::default());
    assert!(standard.iter().any(|(target, _)| target == "/dev/shm"));
    for (own, gone) in
        [("/dev/shm", &["/dev/shm"][..]), ("/dev", &["/dev", "/dev/pts", "/dev/shm"])]
    {
        let all = targets(&with_mounts(binds(&[("/mine", own)])));
        for (target, source) in &all {
            assert!(source == "/mine" || !gone.contains(&target.as_str()), "{own}: {target}");
        }
        assert_eq!(all.iter().filter(|(target, _)| target == own).count(), 1);
    }
}

#[test]
fn a_container_that_shares_the_host_name_sets_none() {
    let shared = Isolation { uts: Some(Namespace::Host), ..Isolation::default() };
    let names = |isolation| {
        let document = made(&config(), &ContainerSpec { isolation, ..ContainerSpec::default() });
        let document = document.unwrap();
        (document.hostname().clone(), document.domainname().clone())
    };
    assert_eq!(names(shared), (None, None));
    assert_eq!(names(Isolation::default()), (Some("localhost".to_owned()), None));
}
