//! Expansion of variables.
#![no_main]
use dockerfile::InstructionKind;
libfuzzer_sys::fuzz_target!(|text: &str| {
    let source = format!("FROM a\nLABEL k={text}\nWORKDIR {text}\nENV a={text}\n");
    let (file, _) = dockerfile::parse(&source);
    let value = |name: &str| (name.len() % 2 == 0).then(|| "value".to_owned());
    for stage in &file.stages {
        for instruction in &stage.instructions {
            if let InstructionKind::Workdir(word) = &instruction.kind {
                let _ = dockerfile::expand(word, &value);
            }
        }
    }
});
