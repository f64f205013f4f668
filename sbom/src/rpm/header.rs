use super::be32;
use crate::package::field;
use crate::{Ecosystem, Package};

const STRING: usize = 6;
const STRING_ARRAY: usize = 8;
const INT32: usize = 4;
const I18N_STRING: usize = 9;

/// More tags than this no header has.
const TAGS: usize = 65_536;

/// The package that a header blob is about; the keys that RPM keeps beside them are none.
pub(super) fn package(blob: &[u8]) -> Option<Package> {
    let (count, length) = (be32(blob, 0)?, be32(blob, 4)?);
    if count > TAGS {
        return None;
    }
    let start = count.checked_mul(16)?.checked_add(8)?;
    let data = blob.get(start..start.checked_add(length)?.min(blob.len()))?;
    let find = |wanted: usize, kinds: &[usize]| {
        (0..count).map(|index| 8 + index * 16).find_map(|at| {
            let (tag, kind, offset) = (be32(blob, at)?, be32(blob, at + 4)?, be32(blob, at + 8)?);
            (tag == wanted && kinds.contains(&kind)).then_some(offset)
        })
    };
    let text = |tag: usize| {
        let bytes = data.get(find(tag, &[STRING, STRING_ARRAY, I18N_STRING])?..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    let name = text(1000)?;
    if name == "gpg-pubkey" {
        return None;
    }
    let version = match text(1002) {
        Some(release) => format!("{}-{release}", text(1001)?),
        None => text(1001)?,
    };
    let mut package = Package::new(Ecosystem::Rpm, &name, &version)?;
    package.epoch = find(1003, &[INT32]).and_then(|offset| be32(data, offset)).and_then(|n| {
        let epoch = u32::try_from(n).ok()?;
        (epoch > 0).then_some(epoch)
    });
    package.architecture = field(text(1022).as_deref());
    package.source = field(text(1044).as_deref());
    package.supplier = field(text(1011).as_deref());
    package.license = field(text(1014).as_deref());
    package.homepage = field(text(1020).as_deref());
    Some(package)
}
