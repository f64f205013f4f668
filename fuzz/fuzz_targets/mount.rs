//! RUN flags: mounts of every kind.
#![no_main]
use dockerfile::InstructionKind;
libfuzzer_sys::fuzz_target!(|flags: &str| {
    let text = format!("FROM a\nRUN --mount={flags} true\nRUN --device={flags} true\n");
    let (file, _) = dockerfile::parse(&text);
    for stage in &file.stages {
        for instruction in &stage.instructions {
            let InstructionKind::Run(run) = &instruction.kind else { continue };
            for mount in &run.mounts {
                let _ = dockerfile::Mount::from_stage(mount);
                let _ = dockerfile::Mount::parse(mount, &|_| None);
            }
        }
    }
});
