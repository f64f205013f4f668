//! What instructions do to the configuration, and stages to each other.

use crate::Case;
use crate::support::Place;

pub(crate) const CASES: &[Case] = &[
    ("config_instructions_fold_into_the_configuration", config),
    ("entrypoint_resets_an_inherited_command", entrypoint),
    ("arguments_and_variables", arguments),
    ("only_needed_stages_are_built", stages),
    ("triggers_of_the_base_run", triggers),
    ("errors_have_places", errors),
    ("scratch_and_nothing_else", scratch),
    ("a_later_stage_is_read_and_never_an_image_of_its_name", later),
    ("stages_that_need_each_other_are_told_as_a_circle", circles),
    ("a_working_directory_of_an_unknown_user_is_roots", workdir),
    ("signals_and_platforms_that_do_not_exist_are_refused", bogus),
    ("build_arguments_of_buildkit_work_or_are_named", buildkit),
];

fn config() {
    let place = Place::new();
    let look = place.build_text(
        r#"FROM base
ENV A=1 B="two words"
ENV C=$A-${B}
LABEL x="1" y=$A
EXPOSE 80 90/udp
VOLUME /data ["/more"]
USER app:staff
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-ec"]
CMD echo $A
HEALTHCHECK --interval=30s --retries=3 CMD true
ONBUILD RUN echo triggered
MAINTAINER me
WORKDIR /work
WORKDIR sub
"#,
    );
    let config = look.config();
    assert_eq!(config.env, ["PATH=/bin", "A=1", "B=two words", "C=1-two words"]);
    assert_eq!(config.labels["y"], "1");
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "90/udp"]);
    assert_eq!(config.user, "app:staff");
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.cmd.as_ref().unwrap(), &["/bin/sh", "-ec", "echo $A"]);
    assert_eq!(config.shell, ["/bin/sh", "-ec"]);
    assert_eq!(config.healthcheck.as_ref().unwrap().test, ["CMD-SHELL", "true"]);
    assert_eq!(config.healthcheck.as_ref().unwrap().interval, 30_000_000_000);
    assert_eq!(config.on_build, ["RUN echo triggered"]);
    assert_eq!(config.working_dir, "/work/sub");
    assert_eq!(look.image.config().author.as_deref(), Some("me"));
    assert_eq!(look.stat("/work/sub"), "d 755 1000:50");
    let history = look.history();
    assert!(history.contains(&"ENV A=1 B=two words (empty)".to_owned()), "{history:?}");
    assert!(history.contains(&"WORKDIR /work/sub".to_owned()), "{history:?}");
}

fn entrypoint() {
    let place = Place::new();
    let look = place.build_text("FROM base\nENTRYPOINT [\"x\"]\n");
    assert_eq!(look.config().cmd, None);
    let look = place.build_text("FROM base\nCMD [\"y\"]\nENTRYPOINT [\"x\"]\n");
    assert_eq!(look.config().cmd.as_ref().unwrap(), &["y"]);
}

fn arguments() {
    let place = Place::new();
    let mut request = place.request(
        "ARG NAME=base\nARG G=global\nFROM $NAME\nARG G\nARG D=default\nARG O=default\nENV O=env\nLABEL g=$G d=$D o=$O p=$TARGETPLATFORM\nARG TARGETOS\nLABEL os=$TARGETOS\n",
    );
    request.build_args.insert("D".to_owned(), "given".to_owned());
    request.build_args.insert("O".to_owned(), "given".to_owned());
    let look = place.build(request);
    let labels = &look.config().labels;
    assert_eq!(labels["g"], "global");
    assert_eq!(labels["d"], "given");
    assert_eq!(labels["o"], "env", "ENV beats ARG");
    assert_eq!(labels["p"], "", "platform arguments must be declared");
    assert_eq!(labels["os"], "linux");
}

fn stages() {
    let place = Place::new();
    place.write("a", "from context");
    let text = "FROM base AS one\nCOPY a /one\nFROM nowhere.invalid/x AS never\nCOPY a /never\nFROM base AS two\nCOPY --from=one /one /two\nFROM base\nCOPY --from=two /two /three\n";
    let look = place.build_text(text);
    assert_eq!(look.text("/three"), "from context");
    let mut request = place.request(text);
    request.target = Some("TWO".to_owned());
    let look = place.build(request);
    assert_eq!(look.text("/two"), "from context");
    assert!(!look.exists("/three"));
    let mut request = place.request(text);
    request.target = Some("twoo".to_owned());
    let error = place.try_build(request).unwrap_err();
    assert_eq!(error.excerpts().unwrap().1[0].help.as_deref(), Some("did you mean \"two\"?"));
}

fn triggers() {
    let place = Place::new();
    place.write("a", "x");
    place.base("docker.io/library/trigger:latest", |config| {
        config.config.on_build = vec!["COPY a /triggered".to_owned(), "ENV T=1".to_owned()];
    });
    let look = place.build_text("FROM trigger\nLABEL t=$T\n");
    assert_eq!(look.text("/triggered"), "x");
    assert_eq!(look.config().labels["t"], "1");
    assert!(look.config().on_build.is_empty());
    let look = place.build_text("FROM base AS b\nONBUILD COPY a /on\nFROM b\n");
    assert_eq!(look.text("/on"), "x");
}

fn errors() {
    let place = Place::new();
    let cases = [
        (
            "FROM base\nCOPY missing /\n",
            "Dockerfile:2: COPY missing /",
            "\"missing\" is not in the build context",
        ),
        (
            "FROM base\nCOPY --chown=nobody missing* /x/\n",
            "Dockerfile:2: COPY --chown=nobody missing* /x/",
            "resolving user \"nobody\": the image has no user \"nobody\"",
        ),
    ];
    for (text, first, second) in cases {
        let error = place.fails(text);
        let chain = task::chain(&error);
        assert_eq!(chain[0], first);
        assert_eq!(chain[1], second);
        assert!(error.excerpts().is_some());
    }
    for text in ["FROM base\nRUN --security=insecure x\n", "FROM base\nRUN --device=/dev/fuse x\n"]
    {
        let message = place.fails(text).to_string();
        assert!(message.contains("not allowed"), "{message}");
    }
    let error = place.fails("FROM nothere\n");
    assert!(error.to_string().contains("nothere"), "{error}");
}

fn scratch() {
    let place = Place::new();
    place.write("a", "x");
    let look = place.build_text("FROM scratch\nLABEL a=b\n");
    assert_eq!(look.image.layers().len(), 0);
    let look = place.build_text("FROM scratch\nCOPY a /\n");
    assert_eq!(look.tree("/"), ["a"]);
    assert_eq!(look.top_layer(&place), ["a"]);
}

fn later() {
    let place = Place::new();
    place.write("a", "stage").write("b", "other");
    // An image of the stage's name is in the store, and does not count.
    place.base("docker.io/library/two:latest", |_| {});
    let look = place.build_text(
        "FROM base AS one\nCOPY --from=two /f /f\nFROM scratch AS two\nCOPY a /f\n\
         FROM scratch AS three\nCOPY b /g\nFROM one\nCOPY --from=2 /g /g\n",
    );
    assert_eq!((look.text("/f"), look.text("/g")), ("stage".to_owned(), "other".to_owned()));
    let text = "ARG NAME=two\nFROM base\nARG SUFFIX\nCOPY --from=stage_${NAME}${SUFFIX} /f /f\n\
        FROM scratch AS stage_two\nCOPY a /f\nFROM scratch AS stage_twos\nCOPY b /f\n";
    let built = |suffix: Option<&str>| {
        let mut request = place.request(text);
        request.target = Some("0".to_owned());
        let suffix = suffix.map(|suffix| ("SUFFIX".to_owned(), suffix.to_owned()));
        request.build_args.extend(suffix);
        place.build(request).text("/f")
    };
    assert_eq!((built(None), built(Some("s"))), ("stage".to_owned(), "other".to_owned()));
    let look = place.build_text("FROM scratch\nCOPY a /f\nFROM 0\nCOPY b /g\n");
    assert_eq!(look.tree("/"), ["f", "g"]);
    let error = place.fails("FROM scratch\nCOPY --from=7 /f /f\n").to_string();
    assert!(error.contains("there is no stage 7"), "{error}");
}

fn circles() {
    let place = Place::new();
    let error = place.fails(
        "FROM scratch AS a\nCOPY --from=b /f /\nFROM scratch AS b\nARG X=c\nCOPY --from=$X /f /\n\
         FROM scratch AS c\nCOPY --from=a /f /\nFROM c\n",
    );
    assert!(error.to_string().contains("a -> b -> c -> a"), "{error}");
    for name in ["a", "0"] {
        let error = place.fails(&format!("FROM scratch AS a\nCOPY --from={name} /f /\n"));
        assert!(error.to_string().contains("cannot read itself"), "{error}");
    }
}

fn workdir() {
    let place = Place::new();
    let look = place.build_text("FROM base\nUSER nobody\nWORKDIR /x\n");
    assert_eq!(look.stat("/x"), "d 755 0:0");
    assert_eq!(look.config().user, "nobody");
}

fn bogus() {
    let place = Place::new();
    for (text, word) in [
        ("FROM base\nSTOPSIGNAL SIGBOGUS\n", "SIGBOGUS"),
        ("FROM base\nSTOPSIGNAL 65\n", "65"),
        ("FROM --platform=bogus base\n", "bogus"),
    ] {
        let error = place.fails(text).to_string();
        assert!(error.contains(word), "{error}");
    }
    let mut request = place.request("FROM base\nCOPY missing* /x/\n");
    place.build(request.clone());
    request.run.base.isolation.cap_add = vec!["NOPE".to_owned()];
    let told = task::chain(&place.try_build(request).unwrap_err()).join(": ");
    assert!(told.contains("NOPE"), "{told}");
    for signal in ["SIGRTMIN+3", "term", "9"] {
        let look = place.build_text(&format!("FROM base\nSTOPSIGNAL {signal}\n"));
        assert_eq!(look.config().stop_signal.as_deref(), Some(signal));
    }
}

fn buildkit() {
    let place = Place::new();
    let warned = |name: &str, value: &str| {
        let mut request = place.request("FROM base\n");
        request.build_args.insert(name.to_owned(), value.to_owned());
        place.build(request);
        place.ear.warnings().join("; ")
    };
    assert!(warned("BUILDKIT_BUILD_NAME", "x").contains("no effect"));
    assert!(warned("BUILDKIT_SYNTAX", "other/frontend").contains("other/frontend"));
    for (name, value) in
        [("BUILDKIT_SYNTAX", "docker/dockerfile:1"), ("BUILDKIT_INLINE_CACHE", "1")]
    {
        assert_eq!(warned(name, value), "", "{name}");
    }
}
