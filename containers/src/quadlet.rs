//! Quadlet files (`.container`, `.volume`, `.network`) as systemd units. Pure: text in, text out.

use std::fmt::Write as _;

use crate::{Error, Result};

/// Unit files written for one Quadlet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The name of the unit, such as `web.service`.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The targets whose `.wants` directory names it.
    pub wanted_by: Vec<String>,
    /// The targets whose `.requires` directory names it.
    pub required_by: Vec<String>,
}

/// Keys of `[Container]` and the option of `run` that takes the value.
const OPTIONS: &[(&str, &str)] = &[
    ("AddCapability", "--cap-add"),
    ("AddDevice", "--device"),
    ("AddHost", "--add-host"),
    ("Annotation", "--annotation"),
    ("DNS", "--dns"),
    ("DNSOption", "--dns-option"),
    ("DNSSearch", "--dns-search"),
    ("DropCapability", "--cap-drop"),
    ("Entrypoint", "--entrypoint"),
    ("Environment", "--env"),
    ("EnvironmentFile", "--env-file"),
    ("ExposeHostPort", "--expose"),
    ("GroupAdd", "--group-add"),
    ("HealthCmd", "--health-cmd"),
    ("HealthInterval", "--health-interval"),
    ("HealthOnFailure", "--health-on-failure"),
    ("HealthRetries", "--health-retries"),
    ("HealthStartPeriod", "--health-start-period"),
    ("HealthTimeout", "--health-timeout"),
    ("HostName", "--hostname"),
    ("IP", "--ip"),
    ("IP6", "--ip6"),
    ("Label", "--label"),
    ("LogDriver", "--log-driver"),
    ("LogOpt", "--log-opt"),
    ("Mask", "--security-opt=mask="),
    ("Memory", "--memory"),
    ("Mount", "--mount"),
    ("NetworkAlias", "--network-alias"),
    ("PidsLimit", "--pids-limit"),
    ("PublishPort", "--publish"),
    ("Pull", "--pull"),
    ("SeccompProfile", "--security-opt=seccomp="),
    ("ShmSize", "--shm-size"),
    ("StopSignal", "--stop-signal"),
    ("StopTimeout", "--stop-timeout"),
    ("Sysctl", "--sysctl"),
    ("Timezone", "--tz"),
    ("Tmpfs", "--tmpfs"),
    ("Ulimit", "--ulimit"),
    ("Unmask", "--security-opt=unmask="),
    ("UserNS", "--userns"),
    ("Volume", "--volume"),
    ("WorkingDir", "--workdir"),
];

/// Keys that are true or false, and the option that is given for true.
const SWITCHES: &[(&str, &str)] = &[
    ("EnvironmentHost", "--env-host"),
    ("NoNewPrivileges", "--security-opt=no-new-privileges"),
    ("ReadOnly", "--read-only"),
    ("ReadOnlyTmpfs", "--read-only-tmpfs"),
    ("RunInit", "--init"),
];

/// A section, key and value of a unit file.
type Entry<'a> = (&'a str, &'a str, String);

/// The unit of a Quadlet file, run by `program` with the store's options.
///
/// # Errors
/// [`Error::Invalid`]: a kind of file or a key that there is not, a line that is none.
pub fn unit(file: &str, text: &str, program: &str) -> Result<Unit> {
    let invalid = |reason: String| Error::Invalid { name: file.to_owned(), reason };
    let entries = read(text).map_err(invalid)?;
    let (stem, kind) = file.rsplit_once('.').unwrap_or((file, ""));
    let (own, name) = match kind {
        "container" => ("Container", format!("{stem}.service")),
        "volume" => ("Volume", format!("{stem}-volume.service")),
        "network" => ("Network", format!("{stem}-network.service")),
        "" | "kube" | "pod" | "image" | "build" => {
            return Err(invalid(format!("files of kind {kind:?} are not supported")));
        }
        other => return Err(invalid(format!("{other:?} is no kind of Quadlet file"))),
    };
    let made = match kind {
        "container" => container(stem, &entries, program),
        "network" => network(stem, &entries, program),
        _ => volume(stem, &entries, program),
    };
    let Sections { unit, service } = made.map_err(invalid)?;
    let wanted = |key: &str| {
        let all =
            entries.iter().filter(|(section, known, _)| *section == "Install" && *known == key);
        all.flat_map(|(_, _, value)| value.split_whitespace().map(str::to_owned)).collect()
    };
    let mut out = format!("# Made of {file} by rbuild.\n[Unit]\n{unit}");
    let mut copy = |section: &str, ours: &str| {
        let _ = write!(out, "{ours}");
        for (_, key, value) in entries.iter().filter(|(known, ..)| *known == section) {
            let _ = writeln!(out, "{key}={value}");
        }
    };
    copy("Unit", "");
    copy("Service", &format!("\n[Service]\n{service}"));
    copy("Install", "\n[Install]\n");
    let known = ["Unit", "Service", "Install", own];
    if let Some((section, ..)) = entries.iter().find(|(section, ..)| !known.contains(section)) {
        return Err(invalid(format!("section [{section}] is not supported")));
    }
    Ok(Unit { name, text: out, wanted_by: wanted("WantedBy"), required_by: wanted("RequiredBy") })
}

/// What is added to two sections.
struct Sections {
    unit: String,
    service: String,
}

/// A service that runs one command and counts as running from then on.
fn once(words: &[String], program: &str) -> Sections {
    let service = format!(
        "Type=oneshot\nRemainAfterExit=yes\nExecStart={program} {}\n",
        line(words.iter().map(String::as_str))
    );
    Sections { unit: String::new(), service }
}

fn volume(stem: &str, entries: &[Entry<'_>], program: &str) -> Result<Sections, String> {
    let mut words = vec!["volume".to_owned(), "create".to_owned()];
    let mut name = format!("systemd-{stem}");
    for (_, key, value) in entries.iter().filter(|(section, ..)| *section == "Volume") {
        match *key {
            "VolumeName" => name.clone_from(value),
            "Label" => words.extend(["--label".to_owned(), value.clone()]),
            other => return Err(format!("{other}= is not supported")),
        }
    }
    words.push(name);
    Ok(once(&words, program))
}

fn network(stem: &str, entries: &[Entry<'_>], program: &str) -> Result<Sections, String> {
    let mut words = vec!["network".to_owned(), "create".to_owned(), "--ignore".to_owned()];
    let mut name = format!("systemd-{stem}");
    for (_, key, value) in entries.iter().filter(|(section, ..)| *section == "Network") {
        match *key {
            "NetworkName" => name.clone_from(value),
            "Driver" => words.push(format!("--driver={value}")),
            "Subnet" => words.push(format!("--subnet={value}")),
            "Gateway" => words.push(format!("--gateway={value}")),
            "IPRange" => words.push(format!("--ip-range={value}")),
            "IPv6" => words.extend(is_true(value)?.then(|| "--ipv6".to_owned())),
            "Internal" => words.extend(is_true(value)?.then(|| "--internal".to_owned())),
            "Options" => words.extend(split(value)?.iter().map(|pair| format!("--opt={pair}"))),
            "Label" => words.extend(split(value)?.iter().map(|pair| format!("--label={pair}"))),
            other => return Err(format!("{other}= is not supported")),
        }
    }
    words.push(name);
    Ok(once(&words, program))
}

fn container(stem: &str, entries: &[Entry<'_>], program: &str) -> Result<Sections, String> {
    let (mut image, mut name) = (None, format!("systemd-{stem}"));
    let (mut options, mut exec, mut more) = (Vec::new(), String::new(), String::new());
    let (mut user, mut group, mut notify) = (None, None, "conmon");
    let mut needs = String::new();
    for (_, key, value) in entries.iter().filter(|(section, ..)| *section == "Container") {
        let option = OPTIONS.iter().find(|(known, _)| known == key);
        let switch = SWITCHES.iter().find(|(known, _)| known == key);
        match (*key, option, switch) {
            ("Image", ..) => image = Some(value.clone()),
            ("ContainerName", ..) => name.clone_from(value),
            ("Exec", ..) => exec = format!(" {value}"),
            ("PodmanArgs", ..) => more = format!("{more} {value}"),
            ("User", ..) => user = Some(value.clone()),
            ("Group", ..) => group = Some(value.clone()),
            ("Notify", ..) if value == "healthy" => notify = "healthy",
            ("Notify", ..) if is_true(value)? => notify = "container",
            ("Notify", ..) => {}
            ("Volume", ..) => {
                let (volume, unit) = named(value, "volume");
                needs.extend(unit.map(|unit| format!("Requires={unit}\nAfter={unit}\n")));
                options.push(format!("--volume={volume}"));
            }
            ("Network", ..) => {
                let (network, unit) = named(value, "network");
                needs.extend(unit.map(|unit| format!("Requires={unit}\nAfter={unit}\n")));
                options.push(format!("--network={network}"));
            }
            ("Environment" | "Label" | "Annotation", Some((_, option)), _) => {
                let pairs = split(value)?;
                options.extend(pairs.into_iter().map(|pair| format!("{option}={pair}")));
            }
            (_, Some((_, option)), _) if option.ends_with('=') => {
                options.push(format!("{option}{value}"));
            }
            (_, Some((_, option)), _) => options.push(format!("{option}={value}")),
            (_, _, Some((_, switch))) => {
                options.extend(is_true(value)?.then(|| (*switch).to_owned()));
            }
            (other, ..) => return Err(format!("{other}= is not supported")),
        }
    }
    if let Some(user) = user {
        options.push(match group {
            Some(group) => format!("--user={user}:{group}"),
            None => format!("--user={user}"),
        });
    }
    let image = image.ok_or("Image= is missing")?;
    let first = [format!("--name={name}"), "--replace".into(), "--rm".into(), "--detach".into()];
    let notified = format!("--sdnotify={notify}");
    let all = first.iter().chain([&notified]).chain(&options).map(String::as_str);
    let service = format!(
        "Type=notify\nNotifyAccess=all\nKillMode=mixed\nDelegate=yes\n\
         ExecStart={program} run {}{more} {}{exec}\n\
         ExecStop={program} rm --force --ignore {name}\n\
         ExecStopPost=-{program} rm --force --ignore {name}\n",
        line(all),
        line([image.as_str()].into_iter()),
        name = line([name.as_str()].into_iter()),
    );
    Ok(Sections { unit: needs, service })
}

/// `NAME.volume:…` and `NAME.network:…` name what a Quadlet file describes, whose unit makes it.
fn named(value: &str, kind: &str) -> (String, Option<String>) {
    let source = value.split(':').next().unwrap_or_default();
    let rest = &value[source.len()..];
    match source.strip_suffix(kind).and_then(|stem| stem.strip_suffix('.')) {
        Some(stem) => (format!("systemd-{stem}{rest}"), Some(format!("{stem}-{kind}.service"))),
        None => (value.to_owned(), None),
    }
}

fn is_true(value: &str) -> Result<bool, String> {
    match value {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// Words as systemd reads them, each in quotes where it needs them.
fn line<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    let word = |word: &str| match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => {
            let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$");
            format!("\"{escaped}\"")
        }
    };
    words.map(word).collect::<Vec<_>>().join(" ")
}

/// Words between blanks, each of which may stand in quotes.
fn split(value: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in value.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
            }
            (_, c) => word.push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("{value:?}: a quote is not closed"));
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    Ok(words)
}

/// The entries of a unit file in their order. A line that ends in a backslash goes on in the next.
fn read(text: &str) -> Result<Vec<Entry<'_>>, String> {
    let (mut entries, mut section) = (Vec::<Entry<'_>>::new(), "");
    let mut goes_on = false;
    for whole in text.lines() {
        let text = whole.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        let (part, more) = match text.strip_suffix('\\') {
            Some(part) => (part.trim_end(), true),
            None => (text, false),
        };
        match (goes_on, entries.last_mut(), part.split_once('=')) {
            (true, Some((.., value)), _) => {
                value.push(' ');
                value.push_str(part);
            }
            _ if part.starts_with('[') && part.ends_with(']') => section = &part[1..part.len() - 1],
            (_, _, Some((key, value))) if !section.is_empty() => {
                entries.push((section, key.trim(), value.trim().to_owned()));
            }
            _ => return Err(format!("{whole:?} is no line of a unit")),
        }
        goes_on = more;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_becomes_a_service_that_tells_when_it_is_ready() {
        let text = "[Unit]\nDescription=web\n[Container]\nImage=nginx\nVolume=data.volume:/d:ro\n\
                    Environment=A=1 \"B=two words\"\nPublishPort=8080:80\nReadOnly=true\n\
                    RunInit=no\nUser=7\nGroup=8\nExec=sleep \\\n  1000\nPodmanArgs=--memory 64m\n\
                    [Service]\nRestart=always\n[Install]\nWantedBy=default.target\n";
        let unit = unit("web.container", text, "/usr/bin/rbuild").unwrap();
        assert_eq!(unit.name, "web.service");
        assert_eq!(unit.wanted_by, ["default.target"]);
        for part in [
            "Requires=data-volume.service\nAfter=data-volume.service\n",
            "Description=web\n",
            "Type=notify\n",
            "ExecStart=/usr/bin/rbuild run --name=systemd-web --replace --rm --detach \
             --sdnotify=conmon --volume=systemd-data:/d:ro --env=A=1 \"--env=B=two words\" \
             --publish=8080:80 --read-only --user=7:8 --memory 64m nginx sleep 1000\n",
            "ExecStop=/usr/bin/rbuild rm --force --ignore systemd-web\n",
            "Restart=always\n",
            "[Install]\nWantedBy=default.target\n",
        ] {
            assert!(unit.text.contains(part), "{part} is missing in\n{}", unit.text);
        }
    }

    #[test]
    fn a_volume_becomes_a_service_that_makes_it() {
        let made = unit("data.volume", "[Volume]\nLabel=a=b\n", "rbuild").unwrap();
        assert_eq!(made.name, "data-volume.service");
        assert!(made.text.contains("ExecStart=rbuild volume create --label a=b systemd-data\n"));
    }

    #[test]
    fn a_network_becomes_a_service_that_containers_need() {
        let text = "[Network]\nSubnet=10.9.0.0/24\nInternal=yes\nLabel=a=b c=d\n";
        let made = unit("web.network", text, "rbuild").unwrap();
        assert_eq!(made.name, "web-network.service");
        let line = "ExecStart=rbuild network create --ignore --subnet=10.9.0.0/24 --internal \
                    --label=a=b --label=c=d systemd-web\n";
        assert!(made.text.contains(line), "{}", made.text);
        let text = "[Container]\nImage=x\nNetwork=web.network:ip=10.9.0.5\nNetwork=other\n";
        let user = unit("a.container", text, "rbuild").unwrap().text;
        assert!(user.contains("Requires=web-network.service\nAfter=web-network.service\n"));
        assert!(user.contains(" --network=systemd-web:ip=10.9.0.5 --network=other "), "{user}");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let refused = |file: &str, text: &str, why: &str| {
            let error = unit(file, text, "rbuild").unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused("a.container", "[Container]\nImage=x\nSecret=s\n", "Secret= is not supported");
        refused("a.container", "[Container]\nExec=x\n", "Image= is missing");
        refused("a.kube", "", "not supported");
        refused("a.txt", "", "no kind of Quadlet file");
        refused("a.volume", "[Volume]\nDriver=nfs\n", "Driver= is not supported");
        refused("a.volume", "[Pod]\nx=1\n", "section [Pod]");
        refused("a.volume", "junk\n", "no line of a unit");
    }
}
