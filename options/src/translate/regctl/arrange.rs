//! The order of words, and flags that stand for other commands.

use super::super::{Wording, bare};

/// `ocidir://PATH:TAG` is `oci:PATH:TAG`.
pub(super) fn name_here(word: &str) -> String {
    match word.strip_prefix("ocidir://") {
        Some(rest) => format!("oci:{rest}"),
        None => word.to_owned(),
    }
}

/// `--host reg=NAME,tls=disabled`: TLS is asked for by a flag for all registries of a line.
pub(super) fn hosts(line: &mut Wording) -> Result<(), String> {
    let mut lax = false;
    for host in line.all("--host") {
        for pair in host.split(',') {
            match pair.split_once('=') {
                Some(("tls", "disabled" | "insecure")) => lax = true,
                Some(("reg", _) | ("tls", "enabled")) => {}
                _ => {
                    return Err(format!(
                        "--host: {pair:?} is not supported: log in with `rcopy login`"
                    ));
                }
            }
        }
    }
    if lax {
        line.globals.push("--tls-verify=false".to_owned());
    }
    Ok(())
}

/// Without a template, or with one that prints all there is.
pub(super) fn plain(line: &mut Wording) -> Result<(), String> {
    let format = line.own("--format");
    if let Some(format) = format
        .filter(|format| !["raw-body", "body", "{{json .}}", "{{printPretty .}}"].contains(format))
    {
        return Err(format!("--format {format:?} is not supported: the output is text or JSON"));
    }
    hosts(line)
}

pub(super) fn one(line: &mut Wording) -> Result<(), String> {
    line.words(1, 1)?;
    plain(line)
}

pub(super) fn blob(line: &mut Wording) -> Result<(), String> {
    line.words(2, 2)?;
    line.pin(0, 1);
    plain(line)
}

pub(super) fn registry(line: &mut Wording) -> Result<(), String> {
    line.words(0, 1)?;
    if line.words.is_empty() {
        line.words.push("docker.io".to_owned());
    }
    hosts(line)
}

/// What is attached goes along only if it is asked for.
pub(super) fn attached(line: &mut Wording) -> Result<(), String> {
    for (flag, off) in
        [("--referrers", "--referrers=false"), ("--digest-tags", "--digest-tags=false")]
    {
        if !line.has(flag) {
            line.flags.push(off.to_owned());
        }
    }
    Ok(())
}

pub(super) fn copy(line: &mut Wording) -> Result<(), String> {
    line.words(2, 2)?;
    match line.own("--platform").or(line.own("-p")).map(str::to_owned) {
        None => line.flags.push("--all".to_owned()),
        Some(platform) if platform == "local" => {}
        Some(platform) => line.push("--platform", platform),
    }
    attached(line)?;
    plain(line)
}

/// A manifest is deleted by its digest; by a tag only with the flag that says so.
pub(super) fn delete(line: &mut Wording) -> Result<(), String> {
    line.words(1, 1)?;
    if !line.words[0].contains('@') && !line.has("--force-tag-dereference") {
        return Err(
            "name the digest, or add --force-tag-dereference; `tag rm` deletes a tag".into()
        );
    }
    plain(line)
}

/// `--ref` and `--digest` are members.
pub(super) fn members(line: &mut Wording, index: &str) -> Result<(), String> {
    let refs = line.all("--ref").map(name_here);
    let digests = line.all("--digest").map(|digest| format!("{}@{digest}", bare(index)));
    let all: Vec<_> = refs.chain(digests).collect();
    if all.is_empty() {
        return Err("name what comes in: --ref NAME, or --digest DIGEST".to_owned());
    }
    all.into_iter().for_each(|name| line.push("--manifest", name));
    // An index comes in as it is.
    line.flags.push("--no-flatten".to_owned());
    Ok(())
}

pub(super) fn index_create(line: &mut Wording) -> Result<(), String> {
    line.words(1, 1)?;
    let index = line.words.remove(0);
    let platforms: Vec<_> = line.all("--platform").map(str::to_owned).collect();
    match line.own("-m") {
        Some("application/vnd.docker.distribution.manifest.list.v2+json") => {
            line.flags.push("--docker-empty-base".to_owned());
        }
        Some("application/vnd.oci.image.index.v1+json") | None => {}
        Some(other) => return Err(format!("--media-type {other} is not supported")),
    }
    if platforms.is_empty() {
        members(line, &index)?;
    } else {
        let refs: Vec<_> = line.all("--ref").map(name_here).collect();
        let [one] = &refs[..] else {
            return Err(
                "--platform is for one --ref: `rcopy index filter`, then `index append`".into()
            );
        };
        line.call(&["index", "filter"]);
        line.words.push(one.clone());
        line.push("--platform", platforms.join(","));
    }
    line.push("--tag", index);
    plain(line)
}

pub(super) fn artifact_put(line: &mut Wording) -> Result<(), String> {
    let kinds: Vec<_> = line.all("-m").map(str::to_owned).collect();
    let files: Vec<_> = line.all("-f").map(str::to_owned).collect();
    let files = if files.is_empty() { vec!["-".to_owned()] } else { files };
    let kind = |at: usize| kinds.get(at).or(kinds.first().filter(|_| kinds.len() == 1));
    let typed = |(at, file): (usize, &String)| match kind(at) {
        Some(kind) => format!("{file}:{kind}"),
        None => file.clone(),
    };
    let files: Vec<_> = files.iter().enumerate().map(typed).collect();
    match (line.own("--config-file").map(str::to_owned), line.own("--config-type")) {
        (Some(file), Some(kind)) => line.push("--config", format!("{file}:{kind}")),
        (Some(file), None) => line.push("--config", file),
        (None, Some(_)) => return Err("--config-type needs --config-file".to_owned()),
        (None, None) => {}
    }
    match line.own("--subject").map(name_here) {
        Some(subject) if line.words.is_empty() || line.words == [subject.clone()] => {
            line.call(&["artifact", "attach"]);
            line.words = vec![subject];
        }
        Some(_) => return Err("an artifact with --subject gets no tag of its own".to_owned()),
        None => line.words(1, 1)?,
    }
    line.words.extend(files);
    plain(line)
}

/// `[platforms]name=value` for some images of an index.
pub(super) fn for_all(flag: &str, text: &str) -> Result<String, String> {
    let text = text.strip_prefix("[*]").unwrap_or(text);
    match text.starts_with('[') {
        true => Err(format!(
            "{flag} {text:?}: a change is for all images; choose one with `rcopy mutate --platform`"
        )),
        false => Ok(text.to_owned()),
    }
}

/// A command as JSON or as a line for the shell, as words with commas between them.
pub(super) fn command(flag: &str, text: &str) -> Result<String, String> {
    let plain = |word: &str| {
        let word = word.trim().strip_prefix('"')?.strip_suffix('"')?;
        (!word.contains(['"', '\\', ','])).then(|| word.to_owned())
    };
    let words = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        _ if text.is_empty() => return Err(format!("{flag}: a command is not taken away")),
        Some(list) => list.split(',').map(plain).collect::<Option<Vec<_>>>(),
        None if text.contains(',') => None,
        None => Some(["/bin/sh", "-c", text].map(str::to_owned).to_vec()),
    };
    let words = words.ok_or_else(|| {
        format!("{flag} {text:?}: words with commas or quotes are for `rcopy mutate`")
    })?;
    Ok(words.join(","))
}

/// `set=TIME,after=TIME` with the same time: nothing is younger.
pub(super) fn time(flag: &str, text: &str) -> Result<String, String> {
    let pairs: Vec<_> = text.split(',').filter_map(|pair| pair.split_once('=')).collect();
    match pairs[..] {
        [("set", time), ("after", after)] | [("after", after), ("set", time)] if time == after => {
            Ok(time.to_owned())
        }
        _ => Err(format!("{flag} {text:?}: the form here is set=TIME,after=TIME, with one time")),
    }
}

pub(super) fn modify(line: &mut Wording) -> Result<(), String> {
    line.words(1, 1)?;
    let image = line.words[0].clone();
    let to = match (line.own("--create").map(name_here), line.has("--replace")) {
        // A tag alone is in the same repository.
        (Some(tag), _) if !tag.contains(['/', ':']) => Some(format!("{}:{tag}", bare(&image))),
        (Some(name), _) => Some(name),
        (None, true) => Some(image),
        (None, false) => None,
    };
    hosts(line)?;
    if let Some(format) = ["--to-oci", "--to-docker"].into_iter().find(|flag| line.has(flag)) {
        return converted(line, format, to);
    }
    changes(line)?;
    if line.has("--rebase") || line.has("--rebase-ref") {
        if !line.flags.is_empty() {
            return Err("--rebase stands alone: change the result in a second step".to_owned());
        }
        line.call(&["rebase"]);
        if let Some(bases) = line.own("--rebase-ref").map(str::to_owned) {
            let (old, new) = bases.split_once(',').ok_or("--rebase-ref has the form OLD,NEW")?;
            line.push("--old-base", old);
            line.push("--new-base", new);
        }
    }
    if let Some(to) = to {
        line.push("--tag", to);
    }
    Ok(())
}

/// Another format is another copy.
pub(super) fn converted(line: &mut Wording, flag: &str, to: Option<String>) -> Result<(), String> {
    let others =
        line.own.iter().any(|(name, _)| ![flag, "--create", "--replace", "--host"].contains(name));
    let Some(to) = to.filter(|_| !others && line.flags.is_empty()) else {
        return Err(format!("{flag} stands alone, with --create or --replace"));
    };
    line.call(&["copy", "--all", "--format", if flag == "--to-oci" { "oci" } else { "v2s2" }]);
    line.words.push(to);
    Ok(())
}

pub(super) fn changes(line: &mut Wording) -> Result<(), String> {
    for (name, value) in std::mem::take(&mut line.own) {
        match name {
            "--annotation" | "--label" | "--env" => {
                let text = for_all(name, &value)?;
                match text.split_once('=') {
                    Some((key, "")) => line.push(&format!("--unset-{}", &name[2..]), key),
                    None => line.push(&format!("--unset-{}", &name[2..]), text),
                    Some(_) => line.push(name, text),
                }
            }
            "--annotation-base" => {
                let (base, digest) =
                    value.split_once(',').ok_or("--annotation-base has the form NAME,DIGEST")?;
                line.push("--annotation", format!("org.opencontainers.image.base.name={base}"));
                line.push("--annotation", format!("org.opencontainers.image.base.digest={digest}"));
            }
            "--config-cmd" => line.push("--cmd", command(name, &value)?),
            "--config-entrypoint" => line.push("--entrypoint", command(name, &value)?),
            "--time" => line.push("--timestamp", time(name, &value)?),
            "--config-time" => {
                let time = value.strip_prefix("set=").unwrap_or(&value).to_owned();
                line.push("--set-created", time);
            }
            "--layer-add" => match value.strip_prefix("tar=") {
                Some(file) if !file.contains(',') => line.push("--append", file),
                _ => return Err(format!("--layer-add {value:?}: the form here is tar=FILE")),
            },
            name => line.own.push((name, value)),
        }
    }
    Ok(())
}
