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
            "FROM base\nUSER nobody\nWORKDIR /x\n",
            "Dockerfile:3: WORKDIR /x",
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
