//! Files of Quadlet in directories, and units written for systemd.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Error, Result, Unit};

/// The files in directories, sorted; of two of one name the first counts.
///
/// # Errors
/// [`Error::File`]: a directory cannot be read.
pub fn quadlet_files(directories: &[&Path]) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).map_err(Error::file("reading", *directory))?;
        let mut own: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        own.retain(|path| {
            path.is_file() && !files.iter().any(|known| known.file_name() == path.file_name())
        });
        own.sort();
        files.extend(own);
    }
    Ok(files)
}

impl Unit {
    /// Writes the unit into a directory, with the links of what wants and requires it.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn install(&self, directory: &Path) -> Result<()> {
        let target = directory.join(&self.name);
        std::fs::write(&target, &self.text).map_err(Error::file("writing", &target))?;
        let wanted = self.wanted_by.iter().map(|by| format!("{by}.wants"));
        for by in wanted.chain(self.required_by.iter().map(|by| format!("{by}.requires"))) {
            let place = directory.join(by);
            std::fs::create_dir_all(&place).map_err(Error::file("making", &place))?;
            let link = place.join(&self.name);
            match std::os::unix::fs::symlink(Path::new("..").join(&self.name), &link) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                linked => linked.map_err(Error::file("writing", &link))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_written_with_their_links() {
        let directory = tempfile::tempdir().unwrap();
        let unit = Unit {
            name: "app.service".to_owned(),
            text: "[Unit]\n".to_owned(),
            wanted_by: vec!["default.target".to_owned()],
            required_by: Vec::new(),
        };
        unit.install(directory.path()).unwrap();
        unit.install(directory.path()).unwrap();
        let link = directory.path().join("default.target.wants/app.service");
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("../app.service"));
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "[Unit]\n");
    }

    #[test]
    fn the_first_file_of_a_name_counts() {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for (directory, name) in [(&one, "b"), (&two, "a"), (&two, "b")] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let files = quadlet_files(&[one.path(), two.path()]).unwrap();
        assert_eq!(files, [one.path().join("b"), two.path().join("a")]);
    }
}
