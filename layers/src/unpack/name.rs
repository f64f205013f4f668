//! Names of entries, made relative to the root.

/// An entry's name as the directory it lies in and its last component, both relative to the root
/// and without `.`; the name is empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryName {
    pub(crate) path: Vec<u8>,
    split: usize,
}

impl EntryName {
    /// Takes a name apart. Slashes at the start are dropped, as every reader does.
    pub(crate) fn new(raw: &[u8]) -> Result<EntryName, &'static str> {
        let mut path = Vec::with_capacity(raw.len());
        let mut split = 0;
        for part in raw.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err("its name has a `..` in it"),
                part => {
                    split = path.len();
                    if split > 0 {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        Ok(EntryName { path, split })
    }

    pub(crate) fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    pub(crate) fn parent(&self) -> &[u8] {
        &self.path[..self.split]
    }

    pub(crate) fn last(&self) -> &[u8] {
        let from = if self.split > 0 { self.split + 1 } else { 0 };
        &self.path[from..]
    }

    /// Whether a directory on the way has a whiteout's name.
    pub(crate) fn leads_through_whiteout(&self) -> bool {
        self.parent().split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_and_plain() {
        let cases: [(&str, Option<(&str, &str)>); 15] = [
            ("a", Some(("", "a"))),
            ("a/b/c", Some(("a/b", "c"))),
            ("./a/", Some(("", "a"))),
            ("//a//./b/.", Some(("a", "b"))),
            ("/", Some(("", ""))),
            ("./", Some(("", ""))),
            ("..", None),
            ("../a", None),
            ("a/..", None),
            ("a/../b", None),
            ("/../a", None),
            ("./../a", None),
            ("a/b/../../../c", None),
            ("...", Some(("", "..."))),
            ("a/..b", Some(("a", "..b"))),
        ];
        for (raw, expected) in cases {
            let name = EntryName::new(raw.as_bytes()).ok();
            let name = name.as_ref().map(|name| (name.parent(), name.last()));
            let expected = expected.map(|(parent, last)| (parent.as_bytes(), last.as_bytes()));
            assert_eq!(name, expected, "{raw}");
        }
    }
}
