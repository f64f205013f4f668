use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variables and the current directory of a process, as values.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    directory: PathBuf,
}

impl Environment {
    /// These variables in this current directory.
    pub fn new(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        directory: impl Into<PathBuf>,
    ) -> Environment {
        Environment { variables: variables.into_iter().collect(), directory: directory.into() }
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(Path::new(name).as_os_str()).filter(|value| !value.is_empty())
    }

    /// A variable that holds a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from)
    }

    /// A path made absolute against the current directory.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        let joined = self.directory.join(path);
        if joined.is_absolute() { std::path::absolute(&joined).unwrap_or(joined) } else { joined }
    }
}
