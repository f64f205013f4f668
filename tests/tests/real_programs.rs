//! nginx, redis and PostgreSQL of Debian in containers, with networks, volumes, health and restarts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::netns::Netns;
use e2e::user::User;
use e2e::{Bench, Ran, eventually, peer, root, run};

/// Where Debian has the programs of PostgreSQL, which are not in the path, below their version.
const POSTGRES: &str = "/usr/lib/postgresql";

/// Where they are in the image.
const PROGRAMS: &str = "/bin:/usr/bin:/usr/sbin:/usr/lib/postgresql/VERSION/bin";

/// The image of all three; each keeps its data in `/data`.
const DOCKERFILE: &str = "FROM busybox\nARG PROGRAMS\nENV PATH=$PROGRAMS\nCOPY . /\n\
    RUN chmod 1777 /tmp && mkdir -p /data /var/log/nginx /var/lib/nginx && chown 70:70 /data\nVOLUME /data\n";

/// Starts PostgreSQL, whose files are made first if there are none.
const DATABASE: &str = "test -d /data/db || initdb -D /data/db -A trust --no-locale -E UTF8 >/dev/null; \
    grep -q all.all.all /data/db/pg_hba.conf || echo host all all all trust >> /data/db/pg_hba.conf; \
    exec postgres -D /data/db -c listen_addresses=* -c unix_socket_directories=/tmp";

/// Does the same as root and as an ordinary user, if the machine has the programs.
fn as_everybody(work: impl Fn(&Bench)) {
    let tools = ["ip", "nginx", "redis-server", "redis-cli", "pg_lsclusters"];
    if !root() || tools.iter().any(|tool| peer(tool).is_none()) {
        return;
    }
    let _netns = Netns::enter();
    let user = User::get();
    let of = |user: &std::sync::Arc<User>| Bench::of(user.uid, user.gid);
    for bench in user.iter().map(of).chain([Bench::new()]) {
        bench.busybox();
        build(&bench);
        work(&bench);
        bench.rbuild(["rm", "-f", "-a"]).ok();
    }
}

/// Copies files of the machine to the context, each to its place.
fn copy(context: &Path, files: &[PathBuf]) {
    let mut command = Command::new("cp");
    command.args(["-RL", "--parents"]).args(files).arg(context);
    run(&mut command).ok();
}

/// The shared libraries of a program.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let told = run(Command::new("ldd").arg(program)).ok().stdout;
    let words = told.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

/// The version of PostgreSQL of this machine.
fn version() -> String {
    let found = std::fs::read_dir(POSTGRES).unwrap().next().unwrap().unwrap();
    found.file_name().into_string().unwrap()
}

fn build(bench: &Bench) {
    let version = version();
    let context = bench.path().join("programs");
    std::fs::create_dir_all(context.join("tmp")).unwrap();
    let mut files: Vec<PathBuf> =
        ["/usr/sbin/nginx", "/usr/bin/redis-server", "/usr/bin/redis-cli"].map(Into::into).to_vec();
    let programs = ["initdb", "postgres", "psql", "pg_isready"];
    let place = Path::new(POSTGRES).join(&version);
    files.extend(programs.map(|name| place.join("bin").join(name)));
    let needed: Vec<PathBuf> = files.iter().flat_map(|program| libraries(program)).collect();
    files.extend(needed);
    files.extend([place.join("lib"), Path::new("/usr/share/postgresql").join(&version)]);
    copy(&context, &files);
    bench.write(
        "programs/etc/passwd",
        "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\npostgres:x:70:70::/data:/bin/sh\n",
    );
    bench.write("programs/etc/group", "root:x:0:\nnogroup:x:65534:\npostgres:x:70:\n");
    bench.write("Containerfile", DOCKERFILE);
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&context)).ok();
    let path = PROGRAMS.replace("VERSION", &version);
    let path = format!("--build-arg=PROGRAMS={path}");
    bench.rbuild(["bud", "-q", "-t", "debian", &path, "-f", "Containerfile", "programs"]).ok();
    bench.rbuild(["network", "create", "app"]).ok();
}

/// Runs a command beside the services, in a container that is removed again.
fn once(bench: &Bench, command: &[&str]) -> Ran {
    bench.rbuild([&["run", "--rm", "--network=app", "debian"], command].concat())
}

fn told(bench: &Bench, name: &str, template: &str) -> String {
    let format = format!("--format={template}");
    bench.rbuild(["inspect", "--type=container", &format, name]).ok().text().to_owned()
}

fn start_database(bench: &Bench) {
    let words = ["run", "-d", "--name=db", "--network=app", "--user=postgres", "--restart=always"];
    let more = ["-v", "database:/data", "--health-cmd=pg_isready -h /tmp"];
    let rest = ["--health-interval=200ms", "--shm-size=64m", "debian", "sh", "-c", DATABASE];
    bench.rbuild([&words[..], &more, &rest].concat()).ok();
}

fn healthy(bench: &Bench) -> bool {
    told(bench, "db", "{{.State.Health.Status}}") == "healthy"
}

fn query(bench: &Bench, text: &str) -> String {
    let command = ["psql", "-h", "db", "-U", "postgres", "-At", "-c", text];
    once(bench, &command).ok().text().to_owned()
}

/// A database keeps its rows over its death and its container.
fn database(bench: &Bench) {
    start_database(bench);
    eventually("the database is ready", || healthy(bench));
    query(bench, "create table numbers(n int); insert into numbers values (41), (1)");
    // It dies, and its monitor starts it again.
    let before = told(bench, "db", "{{.State.Pid}}");
    let pid = rustix::process::Pid::from_raw(before.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("it was started again", || {
        let now = told(bench, "db", "{{.State.Running}} {{.State.Pid}}");
        now.starts_with("true ") && now != format!("true {before}") && healthy(bench)
    });
    assert_eq!(query(bench, "select sum(n) from numbers"), "42");
    // Its processes are another user's, for an ordinary user too.
    let listed = bench.rbuild(["top", "db"]).ok().stdout;
    assert!(listed.contains("postgres: checkpointer"), "{listed}");
    assert_eq!(told(bench, "db", "{{.RestartCount}}"), "1");
    // Its volume outlives it; a stop is a clean end.
    bench.rbuild(["stop", "--time=60", "db"]).ok();
    assert_eq!(told(bench, "db", "{{.State.ExitCode}}"), "0");
    bench.rbuild(["rm", "db"]).ok();
    start_database(bench);
    eventually("the second one is ready", || healthy(bench));
    assert_eq!(query(bench, "select count(*) from numbers"), "2");
}

/// A cache writes its keys to a volume.
fn cache(bench: &Bench) {
    let words = ["run", "-d", "--name=cache", "--network=app", "-v", "cache:/data", "--read-only"];
    let command = ["debian", "redis-server", "--appendonly", "yes", "--dir", "/data"];
    let rest = ["--protected-mode", "no", "--save", ""];
    bench.rbuild([&words[..], &command, &rest].concat()).ok();
    let ask = |words: &[&str]| once(bench, &[&["redis-cli", "-h", "cache"], words].concat());
    eventually("the cache answers", || ask(&["ping"]).text() == "PONG");
    assert_eq!(ask(&["set", "key", "value"]).ok().text(), "OK");
    bench.rbuild(["restart", "cache"]).ok();
    eventually("it answers again", || ask(&["get", "key"]).text() == "value");
    assert!(bench.rbuild(["logs", "cache"]).ok().stdout.contains("Ready to accept connections"));
}

/// The answer of a web server of this machine.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: here\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A web server serves a volume and what is behind it.
fn web(bench: &Bench) {
    let server = "server { listen 80; location / { root /site; } \
        location /behind/ { proxy_pass http://web2:8080/; } }";
    let http = "access_log /dev/stdout; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; \
        fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;";
    let config = format!(
        "user nobody nogroup; daemon off; pid /tmp/pid; error_log /dev/stderr; events {{}} http {{ {http} {server} }}"
    );
    let config = bench.write("nginx.conf", config);
    let site =
        bench.write("site/index.html", "from the host").parent().unwrap().display().to_string();
    run(Command::new("chmod").args(["-R", "a+rX", &site, &config.display().to_string()])).ok();
    let behind = [
        "run",
        "-d",
        "--name=web2",
        "--network=app",
        "busybox",
        "sh",
        "-c",
        "echo from behind > /tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp",
    ];
    bench.rbuild(behind).ok();
    let config = format!("{}:/etc/nginx/nginx.conf:ro", config.display());
    let words = ["run", "-d", "--name=web", "--network=app", "-p", "127.0.0.1:8099:80"];
    let site = format!("{site}:/site:ro");
    let mounts = ["-v", &config, "-v", &site, "--stop-signal=QUIT"];
    let command = ["debian", "nginx", "-c", "/etc/nginx/nginx.conf"];
    bench.rbuild([&words[..], &mounts, &command].concat()).ok();
    let serves = |path: &str, what: &str| {
        eventually(what, || get(8099, path).is_some_and(|text| text.ends_with(what)));
    };
    serves("/", "from the host");
    serves("/behind/", "from behind\n");
    let logs = bench.rbuild(["logs", "web"]).ok().stdout;
    assert!(logs.contains("GET /behind/ HTTP/1.0\" 200"), "{logs}");
    let listed = bench.rbuild(["top", "web"]).ok().stdout;
    assert!(listed.contains("nginx: worker process"), "{listed}");
    // A reload, and a stop that lets requests end.
    bench.rbuild(["kill", "--signal=HUP", "web"]).ok();
    serves("/", "from the host");
    bench.rbuild(["stop", "--time=60", "web"]).ok();
    assert_eq!(told(bench, "web", "{{.State.ExitCode}}"), "0");
    assert_eq!(get(8099, "/"), None);
}

#[test]
fn programs_of_debian_serve_keep_their_data_and_are_started_again() {
    as_everybody(|bench| {
        database(bench);
        cache(bench);
        web(bench);
    });
}
