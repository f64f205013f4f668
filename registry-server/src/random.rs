/// 128 random bits, in hexadecimal.
pub(crate) fn random() -> String {
    let mut bytes = [0; 16];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    // The kernel's generator does not fail once it works at all.
    filled.expect("the kernel gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
