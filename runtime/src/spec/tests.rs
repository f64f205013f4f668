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

fn made(config: &image::ContainerConfig, overrides: &Overrides) -> Result<Spec> {
    spec(config, overrides, &|file| Ok((file == UserFile::Passwd).then(|| PASSWD.to_owned())))
}

fn process_of(config: &image::ContainerConfig, overrides: &Overrides) -> Process {
    made(config, overrides).unwrap().process().clone().unwrap()
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn entrypoint_and_command_follow_docker() {
    let check = |entrypoint: Option<&[&str]>, command: &[&str], expected: Option<&[&str]>| {
        let overrides = Overrides {
            entrypoint: entrypoint.map(list),
            command: list(command),
            ..Overrides::default()
        };
        let args = made(&config(), &overrides)
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
fn environment_is_the_images_with_the_users_on_top() {
    let overrides = Overrides {
        env: list(&["A=2", "B=3", "HOME=/tmp"]),
        unset_env: list(&["HOSTNAME"]),
        terminal: true,
        ..Overrides::default()
    };
    let process = process_of(&config(), &overrides);
    let expected = list(&["PATH=/bin", "TERM=xterm", "A=2", "B=3", "HOME=/tmp"]);
    assert_eq!(process.env().as_ref().unwrap(), &expected);
    let process =
        process_of(&config(), &Overrides { user: Some("app".into()), ..Overrides::default() });
    let expected = list(&["PATH=/bin", "HOSTNAME=localhost", "A=1", "HOME=/home/app"]);
    assert_eq!(process.env().as_ref().unwrap(), &expected);
    for bad in ["novalue", "=x", "A=\0"] {
        assert!(made(&config(), &Overrides { env: list(&[bad]), ..Overrides::default() }).is_err());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let base = Overrides::default;
    let sysctl = |key: &str| [(key.to_owned(), "1".to_owned())].into();
    let ulimit = |name: &str, soft, hard| vec![Ulimit { name: name.into(), soft, hard }];
    let bind = |source: &str, target: &str| {
        vec![Mount::Bind {
            source: source.into(),
            target: target.into(),
            read_only: false,
            recursive: true,
            propagation: Propagation::Private,
        }]
    };
    for (refused, overrides) in [
        ("user", Overrides { user: Some("4294967295".into()), ..base() }),
        ("cwd", Overrides { working_dir: Some("relative".into()), ..base() }),
        ("sysctl", Overrides { sysctls: sysctl("kernel.core_pattern"), ..base() }),
        (
            "path in sysctl",
            Overrides { sysctls: sysctl("net.ipv4/../../kernel/core_pattern"), ..base() },
        ),
        ("host net", Overrides { sysctls: sysctl("net.a"), network: Network::Host, ..base() }),
        ("ulimit", Overrides { ulimits: ulimit("nothing", 1, 1), ..base() }),
        ("soft", Overrides { ulimits: ulimit("nofile", 2, 1), ..base() }),
        ("cpus", Overrides { cpus: Some(f64::NAN), ..base() }),
        ("cpus and quota", Overrides { cpus: Some(1.0), cpu_quota: Some(1), ..base() }),
        ("score", Overrides { oom_score_adj: Some(1001), ..base() }),
        ("relative bind", Overrides { mounts: bind("a", "/b"), ..base() }),
        ("climbing bind", Overrides { mounts: bind("/a", "/b/../c"), ..base() }),
        ("root bind", Overrides { mounts: bind("/a", "/"), ..base() }),
        ("memory", Overrides { memory: Some(u64::MAX), ..base() }),
    ] {
        assert!(made(&config(), &overrides).is_err(), "{refused}");
    }
    let fine = Overrides { sysctls: sysctl("net.ipv4.ip_forward"), ..base() };
    assert!(made(&config(), &fine).is_ok());
}

#[test]
fn privileged_hides_and_filters_nothing() {
    let linux = |privileged| {
        let overrides = Overrides { privileged, ..Overrides::default() };
        made(&config(), &overrides).unwrap().linux().clone().unwrap()
    };
    let (plain, privileged) = (linux(false), linux(true));
    assert!(plain.seccomp().is_some() && privileged.seccomp().is_none());
    assert!(plain.masked_paths().is_some() && privileged.masked_paths().is_none());
    assert!(plain.readonly_paths().is_some() && privileged.readonly_paths().is_none());
}

#[test]
fn limits_are_those_asked_for() {
    let overrides = Overrides {
        memory: Some(1 << 20),
        cpus: Some(1.5),
        pids_limit: Some(0),
        ..Overrides::default()
    };
    let spec = made(&config(), &overrides).unwrap();
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(resources.memory().unwrap().limit(), Some(1 << 20));
    assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(150_000));
    assert_eq!(resources.pids().unwrap().limit(), -1);
}
