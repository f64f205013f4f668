//! Platforms.

use image::Platform;

use super::SyntaxError;

/// The platforms of a list such as `linux/amd64,linux/arm64`, in order, each once; `local` is that
/// of this machine.
///
/// # Errors
/// One is malformed.
pub fn platforms<'a>(
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Platform>, SyntaxError> {
    let mut platforms: Vec<Platform> = Vec::new();
    let texts = texts.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    for text in texts.filter(|text| !text.is_empty()) {
        let platform = match text {
            "local" => Platform::host(),
            text => {
                text.parse().map_err(|error: image::Error| SyntaxError::new(error.to_string()))?
            }
        };
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}
