//! What `docs/docker.md` says of docker's and podman's lines and flags is so.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use e2e::registry::DockerRegistry;
use e2e::{Bench, Ran, binary, ran, repository, root};

/// The cells of the tables below a heading, without code marks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(repository().join("docs/docker.md")).unwrap();
    let section = text.split(heading).nth(1).expect("the heading");
    let section = section.split("\n## ").next().expect("a section");
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = |row: &str| {
        let row = row.trim_matches(['|', ' ']).replace("\\|", "\0");
        let cells = row.split('|').map(|cell| cell.trim().trim_matches('`').replace('\0', "|"));
        cells.collect::<Vec<_>>()
    };
    rows.map(cells).collect()
}

/// Lines that go on until somebody ends them.
fn is_endless(line: &str) -> bool {
    ["rbuild logs -f web", "rbuild stats", "rbuild attach --no-stdin web"].contains(&line)
}

/// A scene in which every line of the table means something.
struct Scene {
    bench: Bench,
    registry: DockerRegistry,
    port: u16,
}

impl Scene {
    fn new() -> Option<Scene> {
        let registry = DockerRegistry::start()?;
        let bench = Bench::new();
        bench.busybox();
        let port = e2e::free_port();
        std::os::unix::fs::symlink(binary("rbuild"), bench.path().join("rbuild")).unwrap();
        let serve = "RUN mkdir -p /www\nVOLUME /cache\nEXPOSE 80\n\
                     CMD trap '' HUP; httpd -p 80 -h /www; while :; do echo tick; sleep 0.2; done\n";
        bench.build("nginx", &format!("FROM busybox\n{serve}"), &[]).ok();
        for (own, name) in
            [("nginx", "docker.io/library/nginx"), ("busybox", "docker.io/library/alpine")]
        {
            bench.rbuild(["tag", own, name]).ok();
        }
        bench.rbuild(["rmi", "localhost/nginx"]).ok();
        let file = "FROM localhost/busybox AS base\nARG VERSION=1\nRUN echo $VERSION > /version\n\
                    FROM base\nRUN --mount=type=secret,id=token,required=false test -e /version\n";
        bench.write("Dockerfile", file);
        bench.write("Dockerfile.dev", "FROM localhost/busybox\nRUN echo dev > /dev-image\n");
        bench.write("token.txt", "secret\n");
        bench.write("env", "B=2\n");
        bench.rbuild(["run", "--name=old", "busybox", "true"]).ok();
        Some(Scene { bench, registry, port })
    }

    fn command(&self, line: &str) -> Command {
        let line = line
            .replace("registry.example", &self.registry.address)
            .replace("8080:", &format!("{}:", self.port));
        let own = self.bench.command("rbuild");
        let mut command = Command::new("sh");
        let path = format!("{}:{}", self.bench.path().display(), std::env::var("PATH").unwrap());
        command.env_clear().env("PATH", path).current_dir(self.bench.path());
        for (name, value) in own.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        if line.contains(" -it ") {
            // A terminal, in which somebody leaves the shell at once.
            command.args(["-c", "printf 'exit\\n' | script -qec \"$0\" /dev/null", &line]);
        } else {
            // No line hangs a test.
            command.args(["-c", "exec timeout -k 1 60 sh -c \"$0\"", &line]);
        }
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    fn run(&self, line: &str) -> Ran {
        let mut command = self.command(line);
        if !is_endless(line) {
            let output = command.output().unwrap();
            return ran(line.to_owned(), &output);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0];
        let count = child.stdout.take().unwrap().read(&mut first).unwrap();
        let group = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        let mut output = child.wait_with_output().unwrap();
        if count > 0 {
            output.status = std::process::ExitStatus::default();
        }
        ran(line.to_owned(), &output)
    }
}

#[test]
fn the_lines_of_docker_and_podman_work() {
    let rows = table("## Lines");
    assert!(rows.len() >= 100, "{} lines", rows.len());
    if !root() {
        return;
    }
    let Some(scene) = Scene::new() else { return };
    let mut failed = Vec::new();
    for row in &rows {
        let ran = scene.run(&row[1]);
        if ran.code != 0 {
            failed.push(format!("{}\n{}", row[0], ran.told()));
        }
    }
    scene.bench.rbuild(["rm", "-fa"]).ok();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), rows.len(), failed.join("\n"));
}

#[test]
fn every_flag_of_docker_run_and_podman_run_works_or_is_refused_with_its_reason() {
    let bench = Bench::new();
    let is_known = |flag: &str| {
        let ran = bench.rbuild(["run", flag]);
        !["there is no flag", "is not supported"].iter().any(|words| ran.stderr.contains(words))
    };
    let rows = table("## Flags of `run`");
    assert!(rows.len() >= 146, "{} flags", rows.len());
    for row in &rows {
        let (flag, what) = (row[0].as_str(), row[2].as_str());
        match what.strip_prefix("refused: ") {
            None => assert!(what.starts_with("works") && is_known(flag), "{flag} is not known"),
            Some(why) => {
                assert!(!is_known(flag), "{flag} is known");
                bench.rbuild(["run", flag, "x"]).fails(&[flag, "is not supported", why]);
            }
        }
    }
}
