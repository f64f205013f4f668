//! The command line of oras.

use super::Flag::{
    Anyway, AnywayValue, Global, GlobalValue, Own, OwnValue, Platform, Refused, Value, Words,
};
use super::{FlagRow, Language, Verb, Wording, as_it_is, bare};

/// What oras calls an artifact of which nobody says what it is, and a file of an artifact.
const UNKNOWN: &str = "application/vnd.unknown.artifact.v1";
const FILE: &str = "application/vnd.oci.image.layer.v1.tar";

const FORMAT: FlagRow = (&["--format"], OwnValue);
const TEMPLATE: FlagRow = (&["--template"], Refused("the output is text or JSON: use jq"));
const PLATFORM: FlagRow = (&["--platform"], Platform("--platform"));
const DELETE_WORD: &[&str] = &["delete", "remove", "rm"];
const FORCE: FlagRow = (&["-f", "--force"], Anyway);
const DESCRIPTOR: FlagRow = (&["--descriptor"], Own);
const PRETTY: FlagRow = (&["--pretty"], Words(&["--pretty"]));

const FILES: &[FlagRow] = &[
    FORMAT,
    TEMPLATE,
    (&["--artifact-type"], OwnValue),
    (&["-a", "--annotation"], Value("--annotation")),
    (&["--config"], OwnValue),
    (&["--disable-path-validation", "--force"], Anyway),
    (&["--image-spec"], AnywayValue),
    (&["--platform"], Platform("--platform")),
    (&["--annotation-file"], Refused("give each annotation with --annotation KEY=VALUE")),
    (&["--export-manifest"], Refused("`rcopy manifest NAME` prints it")),
    (&["--artifact-platform"], Refused("an artifact has no platform here")),
];

pub(super) const ORAS: Language = Language {
    name: "oras",
    verbs: VERBS,
    flags: &[
        (&["-d", "--debug"], Global("--debug")),
        (&["--no-tty"], Anyway),
        (&["--plain-http", "--insecure"], Global("--tls-verify=false")),
        (&["-u", "--username"], Value("--username")),
        (&["-p", "--password"], Value("--password")),
        (&["--registry-config"], GlobalValue("--authfile")),
        (&["--concurrency"], AnywayValue),
        (&["--oci-layout"], Own),
        (&["--oci-layout-path"], Refused("name the layout: --oci-layout PATH:TAG")),
        (
            &["--ca-file", "--cert-file", "--key-file"],
            Refused("`rcopy --cert-dir DIR` reads *.crt, *.cert and *.key"),
        ),
        (
            &["--identity-token", "--identity-token-stdin"],
            Refused("`rcopy --registry-token TOKEN` takes a bearer token"),
        ),
        (&["--password-stdin"], Refused("log in first")),
        (&["-H", "--header"], Refused("requests have the headers of the protocol")),
        (
            &["--resolve", "--from-resolve", "--to-resolve"],
            Refused("registries.conf says where a registry is"),
        ),
        (&["--distribution-spec"], Refused("a registry without the referrers API is recognised")),
    ],
    refused: &[("completion", "`rcopy completion SHELL`")],
    name_here: str::to_owned,
};

const VERBS: &[Verb] = &[
    Verb { words: &[&["push"]], here: &["artifact", "push"], flags: FILES, arrange: push },
    Verb { words: &[&["attach"]], here: &["artifact", "attach"], flags: FILES, arrange: attach },
    Verb {
        words: &[&["pull"]],
        here: &["artifact", "pull"],
        flags: &[
            FORMAT,
            TEMPLATE,
            (&["-o", "--output"], Value("--output")),
            (&["-k", "--keep-old-files"], Own),
            (&["--config"], Refused("`rcopy config NAME` prints the config")),
            (&["--include-subject"], Refused("pull the subject by its own name")),
            (&["--platform"], Refused("`rcopy digest --platform` gives the digest to pull")),
            (
                &["-T", "--allow-path-traversal", "--path-traversal"],
                Refused("files stay in the output directory"),
            ),
        ],
        arrange: |line| {
            if !line.has("-k") {
                line.flags.push("--overwrite".to_owned());
            }
            one(line)
        },
    },
    Verb {
        words: &[&["discover"]],
        here: &["artifact", "discover"],
        flags: &[
            (&["-o", "--output", "--format"], Value("--format")),
            TEMPLATE,
            PLATFORM,
            (&["--artifact-type"], Value("--artifact-type")),
            (&["-v", "--verbose"], Words(&["--verbose"])),
            (&["--depth"], Refused("everything that is attached is shown")),
        ],
        arrange: one,
    },
    Verb { words: &[&["cp", "copy"]], here: &["copy"], flags: COPY, arrange: copy },
    Verb {
        words: &[&["tag"]],
        here: &["tag"],
        flags: &[],
        arrange: |line| line.words(2, usize::MAX).and_then(|()| target(line)),
    },
    Verb {
        words: &[&["resolve", "digest"]],
        here: &["digest"],
        flags: &[PLATFORM, (&["-l", "--full-reference"], Words(&["--full-ref"]))],
        arrange: one,
    },
    Verb {
        words: &[&["repo", "repository"], &["ls", "list"]],
        here: &["catalog"],
        flags: &[FORMAT, TEMPLATE, (&["--last"], Refused("all repositories are listed"))],
        arrange: one,
    },
    Verb {
        words: &[&["repo", "repository"], &["tags", "show-tags"]],
        here: &["ls"],
        flags: &[
            FORMAT,
            TEMPLATE,
            (&["--exclude-digest-tags"], Words(&["--omit-digest-tags"])),
            (&["--last"], Refused("all tags are listed")),
        ],
        arrange: one,
    },
    Verb {
        words: &[&["manifest"], &["fetch", "get"]],
        here: &["manifest", "get"],
        flags: &[
            FORMAT,
            TEMPLATE,
            PLATFORM,
            DESCRIPTOR,
            PRETTY,
            (&["-o", "--output"], Value("--output")),
            (&["--media-type"], Refused("every type of manifest is accepted")),
        ],
        arrange: |line| {
            if line.has("--descriptor") {
                line.call(&["manifest", "head"]);
            }
            one(line)
        },
    },
    Verb {
        words: &[&["manifest"], &["fetch-config"]],
        here: &["config"],
        flags: &[
            PLATFORM,
            (
                &["--pretty", "--descriptor", "-o", "--output"],
                Refused("the config is printed as it is"),
            ),
        ],
        arrange: one,
    },
    Verb {
        words: &[&["manifest"], &["push", "put"]],
        here: &["manifest", "put"],
        flags: &[
            (&["--media-type"], Value("--media-type")),
            FORCE,
            (&["--descriptor", "--pretty"], Refused("the name with the digest is printed")),
        ],
        arrange: |line| line.words(2, 2).and_then(|()| target(line)),
    },
    Verb {
        words: &[&["manifest"], DELETE_WORD],
        here: &["delete", "--yes"],
        flags: &[
            FORCE,
            (&["--descriptor"], Refused("`rcopy manifest head` prints the descriptor")),
        ],
        arrange: one,
    },
    Verb {
        words: &[&["manifest"], &["index"], &["create"]],
        here: &["index", "append"],
        flags: INDEX,
        arrange: |line| {
            line.words(2, usize::MAX)?;
            let index = line.words.remove(0);
            let members = std::mem::take(&mut line.words);
            members.iter().for_each(|member| line.push("--manifest", beside(&index, member)));
            // An index comes in as it is.
            line.flags.push("--no-flatten".to_owned());
            layout(line, &index)
        },
    },
    Verb {
        words: &[&["manifest"], &["index"], &["update"]],
        here: &["index", "append"],
        flags: INDEX,
        arrange: index_update,
    },
    Verb {
        words: &[&["blob"], &["fetch", "get"]],
        here: &["blob", "get"],
        flags: &[DESCRIPTOR, (&["-o", "--output"], OwnValue), (&["--pretty"], Anyway)],
        arrange: |line| {
            registry_only(line)?;
            match line.own("-o").map(str::to_owned) {
                _ if line.has("--descriptor") => line.call(&["blob", "head"]),
                Some(file) if file != "-" => line.push("--output", file),
                _ => {}
            }
            one(line)
        },
    },
    Verb {
        words: &[&["blob"], &["push", "put"]],
        here: &["blob", "put"],
        flags: &[
            (&["--media-type", "--size"], AnywayValue),
            (&["--descriptor", "--pretty"], Anyway),
        ],
        arrange: |line| {
            registry_only(line)?;
            line.words(2, 2)?;
            if let Some((name, digest)) = line.words[0].clone().split_once('@') {
                line.push("--digest", digest);
                line.words[0] = name.to_owned();
            }
            Ok(())
        },
    },
    Verb {
        words: &[&["blob"], DELETE_WORD],
        here: &["blob", "delete"],
        flags: &[
            FORCE,
            (&["--descriptor", "--pretty"], Refused("`rcopy blob head` prints the descriptor")),
        ],
        arrange: |line| registry_only(line).and_then(|()| one(line)),
    },
    Verb {
        words: &[&["backup"]],
        here: &["copy", "--all"],
        flags: &[(&["-o", "--output"], OwnValue), (&["--include-referrers"], Own)],
        arrange: |line| {
            let place = line.own("-o").ok_or("--output is missing")?.to_owned();
            kept(line, "--include-referrers")?;
            let to = place_of(&place, tag_of(&line.words[0]));
            line.words.push(to);
            Ok(())
        },
    },
    Verb {
        words: &[&["restore"]],
        here: &["copy", "--all"],
        flags: &[
            (&["--input"], OwnValue),
            (&["--exclude-referrers"], Words(&["--referrers=false", "--digest-tags=false"])),
            (&["--dry-run"], Words(&["--dry-run"])),
        ],
        arrange: |line| {
            let place = line.own("--input").ok_or("--input is missing")?.to_owned();
            line.words(1, 1)?;
            let from = place_of(&place, one_tag(&line.words[0])?);
            line.words.insert(0, from);
            Ok(())
        },
    },
    Verb {
        words: &[&["login"]],
        here: &["login"],
        flags: &[(&["--password-stdin"], Words(&["--password-stdin"]))],
        arrange: |line| line.words(1, 1),
    },
    Verb { words: &[&["logout"]], here: &["logout"], flags: &[], arrange: |line| line.words(1, 1) },
    Verb { words: &[&["version"]], here: &["version"], flags: &[FORMAT], arrange: as_it_is },
];

const COPY: &[FlagRow] = &[
    (&["--platform"], OwnValue),
    (&["-r", "--recursive"], Own),
    (&["--force"], Anyway),
    (&["--from-plain-http", "--from-insecure"], Words(&["--src-tls-verify=false"])),
    (&["--to-plain-http", "--to-insecure"], Words(&["--dest-tls-verify=false"])),
    (&["--from-username"], Value("--src-username")),
    (&["--from-password"], Value("--src-password")),
    (&["--to-username"], Value("--dest-username")),
    (&["--to-password"], Value("--dest-password")),
    (&["--from-registry-config"], Value("--src-authfile")),
    (&["--to-registry-config"], Value("--dest-authfile")),
    (&["--from-oci-layout"], Own),
    (&["--to-oci-layout"], Own),
    (
        &["--from-oci-layout-path", "--to-oci-layout-path"],
        Refused("name the layout: --to-oci-layout PATH:TAG"),
    ),
    (
        &["--from-ca-file", "--from-cert-file", "--from-key-file"],
        Refused("`rcopy copy --src-cert-dir DIR`"),
    ),
    (
        &["--to-ca-file", "--to-cert-file", "--to-key-file"],
        Refused("`rcopy copy --dest-cert-dir DIR`"),
    ),
    (
        &["--from-identity-token", "--to-identity-token"],
        Refused("`--src-registry-token` takes a bearer token"),
    ),
    (&["--from-header", "--to-header"], Refused("requests have the headers of the protocol")),
    (
        &["--from-distribution-spec", "--to-distribution-spec"],
        Refused("a registry without the referrers API is recognised"),
    ),
];

const INDEX: &[FlagRow] = &[
    FORMAT,
    TEMPLATE,
    (&["--add", "--merge"], OwnValue),
    (&["--remove"], OwnValue),
    (&["--tag"], OwnValue),
    (
        &["-a", "--annotation", "--annotation-file", "--artifact-type"],
        Refused("an index gets no annotations here"),
    ),
    (
        &["--subject", "-o", "--output", "--pretty"],
        Refused("`rcopy manifest NAME` prints the index"),
    ),
];

/// Without a template.
fn plain(line: &Wording) -> Result<(), String> {
    match line.own("--format") {
        None | Some("text") => Ok(()),
        Some(format) => Err(format!("--format {format} is not supported: the output is text")),
    }
}

/// The first name is in a layout, if it is asked for.
fn target(line: &mut Wording) -> Result<(), String> {
    if line.has("--oci-layout") {
        line.words[0] = format!("oci:{}", line.words[0]);
    }
    plain(line)
}

fn one(line: &mut Wording) -> Result<(), String> {
    line.words(1, 1)?;
    target(line)
}

fn registry_only(line: &Wording) -> Result<(), String> {
    match line.has("--oci-layout") {
        true => Err("--oci-layout: blobs of a layout are its files blobs/ALGORITHM/HEX".to_owned()),
        false => Ok(()),
    }
}

/// The files of an artifact, each with its type, and what the artifact is.
fn artifact(line: &mut Wording) -> Result<(), String> {
    line.words(1, usize::MAX)?;
    for file in line.words.iter_mut().skip(1) {
        let typed = file
            .rsplit_once(':')
            .is_some_and(|(_, kind)| kind.contains('/') && !kind.starts_with('/'));
        if !typed {
            *file = format!("{file}:{FILE}");
        }
    }
    let config = line.own("--config").map(str::to_owned);
    match (line.own("--artifact-type").map(str::to_owned), &config) {
        (Some(kind), _) => line.push("--artifact-type", kind),
        (None, None) => line.push("--artifact-type", UNKNOWN),
        (None, Some(_)) => {}
    }
    if let Some(config) = config {
        line.push("--config", config);
    }
    target(line)
}

fn push(line: &mut Wording) -> Result<(), String> {
    artifact(line)?;
    one_tag(&line.words[0]).map(drop)
}

fn attach(line: &mut Wording) -> Result<(), String> {
    match line.has("--artifact-type") {
        true => artifact(line),
        false => Err("--artifact-type is missing".to_owned()),
    }
}

fn copy(line: &mut Wording) -> Result<(), String> {
    match line.own("--platform").map(str::to_owned) {
        None => line.flags.push("--all".to_owned()),
        Some(platform) => line.push("--platform", platform),
    }
    line.words(2, 2)?;
    let mut tags = line.words[1].split(',').map(str::to_owned).collect::<Vec<_>>();
    let first = tags.remove(0);
    tags.into_iter().for_each(|tag| line.push("--additional-tag", tag));
    line.words[1] = first;
    for (at, flag) in ["--from-oci-layout", "--to-oci-layout"].into_iter().enumerate() {
        if line.has(flag) {
            line.words[at] = format!("oci:{}", line.words[at]);
        }
    }
    attached(line, "-r");
    Ok(())
}

/// What is attached goes along only if it is asked for.
fn attached(line: &mut Wording, flag: &str) {
    if !line.has(flag) {
        line.flags.extend(["--referrers=false", "--digest-tags=false"].map(str::to_owned));
    }
}

fn kept(line: &mut Wording, flag: &str) -> Result<(), String> {
    line.words(1, 1)?;
    one_tag(&line.words[0])?;
    attached(line, flag);
    Ok(())
}

/// The tag of a name, and that there is one and no more.
fn one_tag(name: &str) -> Result<&str, String> {
    let tag = tag_of(name);
    match tag {
        "" => Err(format!("{name}: name a tag; `rcopy copy --all-tags` and `rcopy sync` take all")),
        tag if tag.contains(',') => Err(format!("{name}: name one tag; `tag` gives it others")),
        tag => Ok(tag),
    }
}

fn tag_of(name: &str) -> &str {
    match name.strip_prefix(bare(name)) {
        Some(rest) => rest.trim_start_matches([':', '@']),
        None => "",
    }
}

/// An archive by its name, else a layout.
fn place_of(path: &str, tag: &str) -> String {
    match path.ends_with(".tar") {
        true => format!("oci-archive:{path}:{tag}"),
        false => format!("oci:{path}:{tag}"),
    }
}

/// A tag or digest of the repository of another name.
fn beside(name: &str, member: &str) -> String {
    let separator = if member.contains(':') { '@' } else { ':' };
    format!("{}{separator}{member}", bare(name))
}

/// The index of a line, in a layout if it is asked for.
fn layout(line: &mut Wording, index: &str) -> Result<(), String> {
    if line.has("--oci-layout") {
        return Err("--oci-layout: `rcopy index append` takes oci:PATH:NAME".to_owned());
    }
    line.push("--tag", index);
    plain(line)
}

fn index_update(line: &mut Wording) -> Result<(), String> {
    line.words(1, 1)?;
    let index = line.words[0].clone();
    let added: Vec<_> = line.all("--add").map(|name| beside(&index, name)).collect();
    let removed: Vec<_> = line.all("--remove").map(str::to_owned).collect();
    let to = line.own("--tag").map_or(index.clone(), |tag| format!("{}:{tag}", bare(&index)));
    match (added.is_empty(), removed.is_empty()) {
        (false, true) => {
            added.into_iter().for_each(|name| line.push("--manifest", name));
            line.flags.push("--no-flatten".to_owned());
        }
        (true, false) => {
            line.call(&["index", "remove"]);
            removed.into_iter().for_each(|digest| line.push("--digest", digest));
        }
        _ => return Err("either --add or --remove: do it in two steps".to_owned()),
    }
    layout(line, &to)
}

#[cfg(test)]
pub(super) const LINES: &[(&str, &str)] = &[
    (
        "oras push --plain-http r/a:1 f.txt g.json:application/json",
        "rcopy --tls-verify=false artifact push --artifact-type application/vnd.unknown.artifact.v1 r/a:1 f.txt:application/vnd.oci.image.layer.v1.tar g.json:application/json",
    ),
    (
        "oras attach --artifact-type text/x -a k=v r/a:1 s.txt:text/plain",
        "rcopy artifact attach --annotation k=v --artifact-type text/x r/a:1 s.txt:text/plain",
    ),
    ("oras pull -o dir r/a:1", "rcopy artifact pull --output dir --overwrite r/a:1"),
    ("oras pull -k --oci-layout l:1", "rcopy artifact pull oci:l:1"),
    ("oras discover --format json r/a:1", "rcopy artifact discover --format json r/a:1"),
    (
        "oras cp r/a:1 --to-oci-layout l:1,2",
        "rcopy copy --all --additional-tag 2 --referrers=false --digest-tags=false r/a:1 oci:l:1",
    ),
    (
        "oras copy -r --from-plain-http --platform linux/arm64 r/a:1 s/a:1",
        "rcopy copy --src-tls-verify=false --platform linux/arm64 r/a:1 s/a:1",
    ),
    ("oras tag r/a:1 x y", "rcopy tag r/a:1 x y"),
    ("oras resolve -l r/a:1", "rcopy digest --full-ref r/a:1"),
    ("oras repo ls r.example", "rcopy catalog r.example"),
    ("oras repo tags --exclude-digest-tags r/a", "rcopy ls --omit-digest-tags r/a"),
    ("oras manifest fetch --pretty r/a:1", "rcopy manifest get --pretty r/a:1"),
    ("oras manifest fetch --descriptor r/a:1", "rcopy manifest head r/a:1"),
    ("oras manifest fetch-config r/a:1", "rcopy config r/a:1"),
    ("oras manifest push r/a:1 f", "rcopy manifest put r/a:1 f"),
    ("oras manifest delete -f r/a:1", "rcopy delete --yes r/a:1"),
    (
        "oras manifest index create r/a:all amd64 sha256:0",
        "rcopy index append --manifest r/a:amd64 --manifest r/a@sha256:0 --no-flatten --tag r/a:all",
    ),
    (
        "oras manifest index update r/a:all --remove sha256:0",
        "rcopy index remove --digest sha256:0 --tag r/a:all r/a:all",
    ),
    ("oras blob fetch -o f r/a@sha256:0", "rcopy blob get --output f r/a@sha256:0"),
    ("oras blob push r/a@sha256:0 f", "rcopy blob put --digest sha256:0 r/a f"),
    (
        "oras backup --output b.tar --include-referrers r/a:1",
        "rcopy copy --all r/a:1 oci-archive:b.tar:1",
    ),
    ("oras restore --input b r/a:1", "rcopy copy --all oci:b:1 r/a:1"),
    ("oras login -u me --password-stdin r", "rcopy login --username me --password-stdin r"),
    ("oras manifest fetch --help", "rcopy manifest get --help"),
];

#[cfg(test)]
pub(super) const REFUSED_LINES: &[(&str, &str)] = &[
    ("oras push r/a f", "name a tag"),
    ("oras push r/a:1,2 f", "name one tag"),
    ("oras attach r/a:1 f", "--artifact-type is missing"),
    ("oras push --format json r/a:1 f", "--format json"),
    ("oras pull --password-stdin r/a:1", "log in first"),
    ("oras cp -H a=b r/a:1 r/b", "headers"),
    ("oras blob fetch --oci-layout l@sha256:0", "blobs/ALGORITHM"),
    ("oras backup r/a:1", "--output is missing"),
];
