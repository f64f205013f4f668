//! `COPY` and `ADD`: what lands where.

use crate::Case;
use crate::support::Place;

pub(crate) const CASES: &[Case] = &[
    ("copies_land_where_docker_puts_them", semantics),
    ("owners_and_modes", owners),
    ("ignored_files_do_not_exist", ignored),
    ("links_of_the_context_lead_nowhere_else", confined),
    ("here_documents", heredocs),
    ("archives_are_unpacked_by_content", archives),
    ("copies_from_images_and_contexts", sources),
    ("links_in_the_image_are_followed_inside_it", image_links),
    ("files_are_downloaded", downloads),
    ("checksums_are_compared_although_a_server_says_nothing_has_changed", unchanged),
    ("several_files_to_a_name_leave_the_last_and_a_warning", last_wins),
    ("an_empty_source_is_everything", everything),
    ("exclude_sees_paths_below_the_pivot", pivots),
    ("copies_make_the_same_layer_every_time", same_layer),
];

fn place() -> Place {
    let place = Place::new();
    place.write("a.txt", "a").write("b.txt", "b").write("d/x.txt", "x").write("d/y.md", "y");
    place.write("d/sub/z.txt", "z").write("n[1].txt", "odd");
    place
}

fn semantics() {
    let cases: &[(&str, &[&str])] = &[
        ("COPY a.txt /out", &["out"]),
        ("COPY a.txt /out/", &["out", "out/a.txt"]),
        ("COPY a.txt b.txt /out/", &["out", "out/a.txt", "out/b.txt"]),
        ("COPY *.txt /out/", &["out", "out/a.txt", "out/b.txt", "out/n[1].txt"]),
        ("COPY ?.txt /out/", &["out", "out/a.txt", "out/b.txt"]),
        ("COPY n[[]1].txt /out/", &["out", "out/n[1].txt"]),
        ("COPY d /out", &["out", "out/sub", "out/sub/z.txt", "out/x.txt", "out/y.md"]),
        ("COPY d/ /out/", &["out", "out/sub", "out/sub/z.txt", "out/x.txt", "out/y.md"]),
        (
            "COPY **/*.txt /out/",
            &["out", "out/a.txt", "out/b.txt", "out/n[1].txt", "out/x.txt", "out/z.txt"],
        ),
        ("COPY nothing* /out/", &["out"]),
        ("COPY ../../a.txt /out/", &["out", "out/a.txt"]),
        ("COPY --exclude=*.md --exclude=sub d /out", &["out", "out/x.txt"]),
        ("COPY --exclude=**/z.txt d /out", &["out", "out/sub", "out/x.txt", "out/y.md"]),
        (
            "COPY --parents d/sub/z.txt a.txt /out/",
            &["out", "out/a.txt", "out/d", "out/d/sub", "out/d/sub/z.txt"],
        ),
        ("COPY --parents d/./sub/z.txt /out/", &["out", "out/sub", "out/sub/z.txt"]),
        ("COPY --parents **/*.md /out/", &["out", "out/d", "out/d/y.md"]),
        ("COPY [\"a.txt\", \"/out/with blank\"]", &["out", "out/with blank"]),
        // JSON takes one backslash of two, and the expansion of variables another.
        ("COPY [\"a\\\\.txt\", \"/out/\"]", &["out", "out/a.txt"]),
        ("COPY [\"back\\\\\\\\slash/f\", \"/out/\"]", &["out", "out/f"]),
        ("COPY [\"back\\\\\\\\slash/*\", \"/out/\"]", &["out", "out/f"]),
        ("COPY --link d/sub /out/", &["out", "out/z.txt"]),
        ("WORKDIR /out\nCOPY a.txt .", &["out", "out/a.txt"]),
        ("WORKDIR /out\nCOPY a.txt b", &["out", "out/b"]),
        ("WORKDIR /out/in\nCOPY a.txt ../", &["out", "out/a.txt", "out/in"]),
    ];
    let place = place();
    place.write("back\\slash/f", "back");
    for (text, expected) in cases {
        let look = place.build_text(&format!("FROM scratch\n{text}\n"));
        assert_eq!(look.tree("/"), *expected, "{text}");
    }
    let look = place.build_text("FROM scratch\nCOPY d /out\nCOPY a.txt b.txt /out\n");
    assert!(look.exists("/out/b.txt"));
    let look = place.build_text("FROM scratch\nCOPY a.txt /f\nCOPY b.txt /f\n");
    assert_eq!(look.text("/f"), "b");
}

fn owners() {
    let place = place();
    place.write("script", "#!").mode("script", 0o750);
    let cases = [
        ("COPY script /f", "f 750 0:0"),
        ("COPY --chown=app script /f", "f 750 1000:1001"),
        ("COPY --chown=app:staff script /f", "f 750 1000:50"),
        ("COPY --chown=7 script /f", "f 750 7:7"),
        ("COPY --chown=7:8 script /f", "f 750 7:8"),
        ("COPY --chmod=600 script /f", "f 600 0:0"),
        ("COPY --chmod=go=u script /f", "f 777 0:0"),
        ("COPY --chmod=u=rwX,go=rX a.txt /f", "f 644 0:0"),
        ("ARG M=711\nCOPY --chmod=$M a.txt /f", "f 711 0:0"),
    ];
    for (text, expected) in cases {
        let look = place.build_text(&format!("FROM base\n{text}\n"));
        assert_eq!(look.stat("/f"), expected, "{text}");
    }
    let look = place.build_text("FROM base\nCOPY --chown=app d /new/dir/\n");
    assert_eq!(look.stat("/new/dir/sub/z.txt"), "f 644 1000:1001");
    assert_eq!(look.stat("/new/dir"), "d 755 1000:1001");
    let text = "FROM base AS s\nCOPY --chown=app a.txt /f\nFROM base\nCOPY --from=s /f /f\n";
    assert_eq!(place.build_text(text).stat("/f"), "f 644 1000:1001", "stages keep owners");
    let error = place.fails("FROM base\nCOPY --chown=nobody a.txt /f\n");
    assert!(task::chain(&error)[1].contains("nobody"), "{error}");
}

fn ignored() {
    let place = place();
    place.write(".dockerignore", "*.txt\n!b.txt\nd\n!d/sub\n");
    let look = place.build_text("FROM scratch\nCOPY . /\n");
    assert_eq!(look.tree("/"), [".dockerignore", "b.txt", "d", "d/sub", "d/sub/z.txt"]);
    let error = place.fails("FROM scratch\nCOPY a.txt /\n");
    assert!(task::chain(&error)[1].contains("line 1 of .dockerignore excludes it"), "{error}");
    place.link("sly", "a.txt");
    let error = place.fails("FROM scratch\nCOPY sly /out\n");
    assert!(task::chain(&error)[1].contains("line 1 of .dockerignore excludes it"), "{error}");
    let error = place.fails("FROM scratch\nRUN --mount=target=/m,source=a.txt true\n");
    assert!(task::chain(&error)[1].contains("line 1 of .dockerignore excludes it"), "{error}");
    place.build_text("FROM scratch\nCOPY *.nothing b.txt /out/\n");
    let warned = "\"*.nothing\" matches nothing in the build context";
    assert!(place.ear.warnings().iter().any(|line| line == warned), "{:?}", place.ear.warnings());
    let look = place.build_text("FROM scratch\nCOPY *.txt /out/\n");
    assert_eq!(look.tree("/"), ["out", "out/b.txt"]);
    place.write(".containerignore", "d\n");
    let look = place.build_text("FROM scratch\nCOPY a.txt /\n");
    assert_eq!(look.tree("/"), ["a.txt"]);
}

fn confined() {
    let place = place();
    std::fs::write(place.root.join("secret"), "secret").unwrap();
    place.link("out", "../secret").link("abs", place.root.join("secret").to_str().unwrap());
    place.link("dir", "..").link("in", "d/x.txt");
    for text in ["COPY out /", "COPY abs /", "COPY dir/secret /", "ADD out /"] {
        let error = place.fails(&format!("FROM scratch\n{text}\n"));
        assert!(task::chain(&error)[1].contains("is not in the build context"), "{text}: {error}");
    }
    let look = place.build_text("FROM scratch\nCOPY in /\n");
    assert_eq!((look.stat("/in").as_str(), look.text("/in").as_str()), ("f 644 0:0", "x"));
    let look = place.build_text("FROM scratch\nCOPY . /all/\n");
    assert_eq!(&look.stat("/all/out")[..1], "l", "links inside a directory stay links");
}

fn heredocs() {
    let place = place();
    let look = place.build_text(
        "FROM scratch\nENV V=value\nCOPY <<one <<-\"two\" /out/\nx $V\none\n\ty $V\ntwo\nCOPY --chmod=755 <<EOF /script\nz\nEOF\n",
    );
    assert_eq!(look.text("/out/one"), "x value\n");
    assert_eq!(look.text("/out/two"), "y $V\n");
    assert_eq!(look.stat("/script"), "f 755 0:0");
    assert_eq!(look.stat("/out/one"), "f 644 0:0");
}

fn archives() {
    let place = place();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    header.set_uid(3);
    header.set_gid(4);
    tar.append_data(&mut header, "dir/in.txt", &b"hello"[..]).unwrap();
    let plain = tar.into_inner().unwrap();
    std::fs::write(place.context.join("plain"), &plain).unwrap();
    std::fs::write(place.context.join("renamed.jpg"), gzip(&plain)).unwrap();
    std::fs::write(place.context.join("text.gz"), gzip(b"no tar at all")).unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("ADD plain /out/", &["out", "out/dir", "out/dir/in.txt"]),
        ("ADD renamed.jpg /out", &["out", "out/dir", "out/dir/in.txt"]),
        ("ADD text.gz /out/", &["out", "out/text.gz"]),
        ("ADD --unpack=false plain /out/", &["out", "out/plain"]),
        ("COPY plain /out/", &["out", "out/plain"]),
        ("ADD a.txt /out/", &["out", "out/a.txt"]),
    ];
    for (text, expected) in cases {
        let look = place.build_text(&format!("FROM scratch\n{text}\n"));
        assert_eq!(look.tree("/"), *expected, "{text}");
    }
    let mut nameless = tar::Builder::new(Vec::new());
    for kind in [tar::EntryType::Directory, tar::EntryType::Regular] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o700);
        header.set_size(0);
        header.set_cksum();
        nameless.append(&header, &b""[..]).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    nameless.append_data(&mut header, "named", &b"x"[..]).unwrap();
    std::fs::write(place.context.join("nameless"), nameless.into_inner().unwrap()).unwrap();
    let look = place.build_text("FROM scratch\nADD nameless /out/\n");
    assert_eq!(look.tree("/"), ["out", "out/named"]);
    assert_eq!(look.stat("/out"), "d 755 0:0");
    let look = place.build_text("FROM base\nADD plain /out/\nADD --chown=app plain /own/\n");
    assert_eq!(look.stat("/out/dir/in.txt"), "f 640 3:4");
    assert_eq!(look.stat("/own/dir/in.txt"), "f 640 1000:1001");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let compression = layers::Compression { encoding: image::Encoding::Gzip, level: None };
    let mut writer = layers::LayerWriter::new(Vec::new(), compression, 1);
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    writer.finish().unwrap().0
}

fn sources() {
    let place = place();
    let other = place.root.join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("file"), "other").unwrap();
    let mut request = place.request(
        "FROM scratch\nCOPY --from=base /etc/group /group\nCOPY --from=extra file /\nCOPY --from=docker.io/library/base etc/passwd /\n",
    );
    request.contexts.insert("extra".to_owned(), builder::Context::Directory(other));
    let look = place.build(request);
    assert_eq!(look.tree("/"), ["file", "group", "passwd"]);
    let mut request = place.request("FROM alias\nLABEL a=b\n");
    request.contexts.insert("alias".to_owned(), builder::Context::Image("base".to_owned()));
    assert!(place.build(request).exists("/etc/passwd"));
    let text = "FROM scratch AS zero\nCOPY a.txt /a\nFROM scratch\nCOPY --from=0 /a /b\n";
    assert_eq!(place.build_text(text).tree("/"), ["b"]);
}

fn image_links() {
    let place = place();
    place.link("evil", "/etc");
    let text = "FROM base\nCOPY . /ctx/\nCOPY a.txt /ctx/evil/a.txt\n";
    let look = place.build_text(text);
    assert_eq!(look.text("/etc/a.txt"), "a");
    assert!(!std::path::Path::new("/etc/a.txt").exists());
    let look = place.build_text("FROM scratch\nCOPY evil2* /x/\n");
    assert!(look.exists("/x"));
    // A new directory behind a link that leads to nothing yet.
    place.link("dangling", "/made/deep");
    let look = place.build_text(
        "FROM base\nCOPY . /ctx/\nCOPY --chown=app d /ctx/dangling/\nCOPY --chown=app d /new\nCOPY d /etc\n",
    );
    assert_eq!(look.stat("/made/deep/sub/z.txt"), "f 644 1000:1001");
    assert_eq!(look.stat("/made/deep"), "d 755 1000:1001");
    assert_eq!(
        (look.stat("/new/x.txt"), look.stat("/new")),
        ("f 644 1000:1001".to_owned(), "d 755 1000:1001".to_owned())
    );
    assert!(look.exists("/etc/passwd") && look.exists("/etc/x.txt"));
}

/// Answers `count` requests for a file, and says what was asked.
fn serve(count: usize) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> = lines.map(Result::unwrap).take_while(|l| !l.is_empty()).collect();
            let head = head.join("\n").to_lowercase();
            let answer = if head.contains("if-none-match: \"v1\"") {
                "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned()
            } else if head.contains("/file") {
                "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello".to_owned()
            } else {
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    .to_owned()
            };
            stream.write_all(answer.as_bytes()).unwrap();
            asked.push(head);
        }
        asked
    });
    (port, server)
}

fn downloads() {
    let place = place();
    let (port, server) = serve(6);
    let url = format!("http://user:hush@127.0.0.1:{port}/dir/file.txt?x=y");
    let text = format!("FROM scratch\nADD {url} /out/\n");
    let look = place.build_text(&text);
    assert_eq!(look.text("/out/file.txt"), "hello");
    assert_eq!(look.stat("/out/file.txt"), "f 600 0:0");
    assert_eq!(look.mtime("/out/file.txt"), 1_445_412_480);
    assert!(!look.history().join("").contains("hush"), "{:?}", look.history());
    let again = place.build_text(&text);
    assert_eq!(again.built.cached, again.built.steps);
    let sum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let text = format!("FROM scratch\nADD --chmod=644 --checksum={sum} {url} /named\n");
    assert_eq!(place.build_text(&text).stat("/named"), "f 644 0:0", "known by digest: not asked");
    let wrong = sum.replace("2cf", "3cf");
    let error = place.fails(&format!("FROM scratch\nADD --checksum={wrong} {url}&z /named\n"));
    assert!(task::chain(&error).join(" ").contains("does not match"), "{error}");
    let error = place.fails(&format!("FROM scratch\nADD http://127.0.0.1:{port}/gone /x\n"));
    assert!(task::chain(&error).join(" ").contains("404"), "{error}");
    place.fails(&format!("FROM scratch\nADD http://127.0.0.1:{port}/gone /x\n"));
    let mut request = place.request(&format!("FROM scratch\nADD {url}&big /x\n"));
    request.sources.download_limit = 4;
    let error = place.try_build(request).unwrap_err();
    assert!(task::chain(&error).join(" ").contains("is larger than"), "{error}");
    let asked = server.join().unwrap();
    assert!(asked[0].contains("authorization: basic"), "{asked:?}");
    let catalog = std::fs::read_dir(place.root.join("store")).unwrap().flatten();
    for file in catalog.filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(4).any(|four| four == b"hush"), "{:?}", file.path());
    }
}

fn unchanged() {
    let place = place();
    let (port, server) = serve(4);
    let url = format!("http://127.0.0.1:{port}/file");
    place.build_text(&format!("FROM scratch\nADD {url} /f\n"));
    // The file is known, and it is not the one that is asked for.
    let wrong = format!("sha256:{}", "3".repeat(64));
    let error = place.fails(&format!("FROM scratch\nADD --checksum={wrong} {url} /f\n"));
    let told = task::chain(&error).join(" ");
    assert!(told.contains("does not match"), "{told}");
    // Known by one digest and asked for by another kind: what is here is compared.
    let mut long = image::Digester::new(image::Algorithm::Sha512);
    long.update(b"hello");
    let long = long.finish();
    place.build_text(&format!("FROM scratch\nADD --checksum={long} {url} /g\n"));
    // A policy wants a second digest besides.
    let rules = format!(
        r#"{{"rules":[{{"action":"CONVERT","selector":{{"identifier":"{url}"}},"updates":{{"attrs":{{"http.checksum":"{wrong}"}}}}}}]}}"#
    );
    let policy = builder::PolicyRules::read("p", &rules).unwrap();
    let mut request = place.request(&format!("FROM scratch\nADD --checksum={long} {url} /h\n"));
    request.inputs.policies = vec![policy];
    let told = task::chain(&place.try_build(request).unwrap_err()).join(" ");
    assert!(told.contains("does not match"), "{told}");
    // A lock pins it to something else.
    let mut lock = builder::Lock::default();
    lock.pin(&url, &wrong).unwrap();
    let mut request = place.request(&format!("FROM scratch\nADD {url} /i\n"));
    request.inputs.lock =
        Some(builder::EnforcedLock { lock, file: "rbuild.lock".to_owned(), partial: false });
    let told = task::chain(&place.try_build(request).unwrap_err()).join(" ");
    assert!(told.contains("does not match"), "{told}");
    assert_eq!(server.join().unwrap().len(), 4);
}

fn last_wins() {
    let place = place();
    for line in ["COPY a.txt b.txt /out", "COPY ?.txt /out"] {
        let look = place.build_text(&format!("FROM scratch\n{line}\n"));
        assert_eq!(look.text("/out"), "b", "{line}");
        let warnings = place.ear.warnings().join("; ");
        assert!(warnings.contains("\"/out/\""), "{line}: {warnings}");
    }
    let look = place.build_text("FROM scratch\nCOPY d a.txt /out\n");
    assert!(look.exists("/out/x.txt") && look.exists("/out/a.txt"));
    let look = place.build_text("FROM base\nCOPY ?.txt /tmp\n");
    assert_eq!(look.tree("/tmp"), ["tmp/a.txt", "tmp/b.txt"]);
}

fn everything() {
    let place = place();
    let look = place.build_text("FROM scratch\nARG NONE\nCOPY $NONE /all/\n");
    assert!(look.exists("/all/a.txt") && look.exists("/all/d/sub/z.txt"));
    let warnings = place.ear.warnings().join("; ");
    assert!(warnings.contains("COPY $NONE /all/"), "{warnings}");
}

fn pivots() {
    let place = place();
    for (line, expected) in [
        (
            "COPY --parents --exclude=d/sub d /out/",
            &["out", "out/d", "out/d/x.txt", "out/d/y.md"][..],
        ),
        (
            "COPY --parents --exclude=sub d /out/",
            &["out", "out/d", "out/d/sub", "out/d/sub/z.txt", "out/d/x.txt", "out/d/y.md"],
        ),
        ("COPY --parents --exclude=sub ./d/./sub d/./x.txt /out/", &["out", "out/x.txt"]),
        ("COPY --parents --exclude=d/x.txt d/x.txt d/y.md /out/", &["out", "out/d", "out/d/y.md"]),
        ("COPY --exclude=sub d /out", &["out", "out/x.txt", "out/y.md"]),
    ] {
        let look = place.build_text(&format!("FROM scratch\n{line}\n"));
        assert_eq!(look.tree("/"), expected, "{line}");
    }
}

fn same_layer() {
    let place = place();
    let lines = [
        "COPY --link a.txt b.txt /dd/",
        "COPY --link --chown=5 a.txt /deep/down/f",
        "COPY a.txt b.txt /dd/",
        "COPY d /new/deep/",
        "COPY --parents d/sub/z.txt /p/",
        "ADD a.txt /deep/down/f",
    ];
    for line in lines {
        let built = || {
            let mut request = place.request(&format!("FROM base\n{line}\n"));
            request.no_cache = true;
            place.build(request).image.manifest().layers.last().unwrap().digest
        };
        let first = built();
        // The clock of the file system is coarse.
        let marker = place.root.join("marker");
        let now = || {
            std::fs::write(&marker, "x").unwrap();
            std::fs::metadata(&marker).unwrap().modified().unwrap()
        };
        let start = now();
        while now() == start {
            std::thread::yield_now();
        }
        assert_eq!(built(), first, "{line}");
    }
}
