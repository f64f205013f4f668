//! Contents of plain files: reading, comparing and copying them in large pieces.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ioctl_ficlone, openat};
use rustix::io::Errno;

use crate::{Error, Result};

/// Bytes read at once.
pub(crate) const BUFFER: usize = 256 * 1024;

/// Opens a file for reading without following a link, and without waiting for a pipe.
pub(crate) fn open(dir: BorrowedFd<'_>, name: &OsStr) -> Result<File, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty()).map(File::from)
}

/// Passes exactly `size` bytes on; of a sparse file, what is not stored is not read.
pub(crate) fn read(
    mut file: &File,
    path: &Path,
    size: u64,
    sparse: bool,
    buffer: &mut [u8],
    pass: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let failed = |error: io::Error| Error::file("reading", path, error);
    let mut position = 0;
    while position < size {
        let data = if sparse { next_data(file, position, size).map_err(failed)? } else { position };
        if data > position {
            buffer.fill(0);
            while position < data {
                let length =
                    buffer.len().min(usize::try_from(data - position).unwrap_or(usize::MAX));
                pass(&buffer[..length])?;
                position += length as u64;
            }
            if position < size {
                file.seek(SeekFrom::Start(position)).map_err(failed)?;
            }
            continue;
        }
        let wanted = buffer.len().min(usize::try_from(size - position).unwrap_or(usize::MAX));
        match file.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(Error::Changed { path: path.to_owned() }),
            Ok(n) => {
                pass(&buffer[..n])?;
                position += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Where stored bytes go on, at or behind `position`; leaves the file there.
fn next_data(file: &File, position: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(position)) {
        Ok(data) => Ok(data.min(size)),
        // Nothing more is stored.
        Err(Errno::NXIO) => Ok(size),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(position),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether two files of one length hold the same.
pub(crate) fn same(one: &File, other: &File) -> io::Result<bool> {
    let (mut a, mut b) = (vec![0; BUFFER / 2], vec![0; BUFFER / 2]);
    let mut position = 0;
    loop {
        let n = one.read_at(&mut a, position)?;
        if n == 0 {
            return Ok(other.read_at(&mut b[..1], position)? == 0);
        }
        match other.read_exact_at(&mut b[..n], position) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if a[..n] != b[..n] {
            return Ok(false);
        }
        position += n as u64;
    }
}

/// Copies a whole file into an empty one: shares the blocks where the file system can, lets the
/// kernel copy where it can, keeps holes. `step` hears of each piece, and may stop the copying.
/// Gives the number of bytes.
pub(crate) fn copy(
    from: &File,
    to: &File,
    size: u64,
    sparse: bool,
    step: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    if size > 0 && ioctl_ficlone(to, from).is_ok() {
        step(size)?;
        return Ok(size);
    }
    let mut position = 0;
    let mut copier = Copier { from, to, kernel: true, buffer: Vec::new() };
    loop {
        let mut end = u64::MAX;
        if sparse {
            position = next_data(from, position, size)?;
            if position >= size {
                break;
            }
            let hole = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(position));
            end = hole.unwrap_or(u64::MAX);
        }
        let n = copier.piece(position, end - position)?;
        if n == 0 {
            break;
        }
        step(n)?;
        position += n;
    }
    if sparse {
        to.set_len(position)?;
    }
    Ok(position)
}

struct Copier<'a> {
    from: &'a File,
    to: &'a File,
    /// Whether the kernel can copy between the two.
    kernel: bool,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    fn piece(&mut self, position: u64, length: u64) -> io::Result<u64> {
        while self.kernel {
            let (mut read, mut write) = (position, position);
            let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(64 << 20);
            let (read, write) = (Some(&mut read), Some(&mut write));
            match rustix::fs::copy_file_range(self.from, read, self.to, write, wanted) {
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                    self.kernel = false;
                }
                // Some file systems say this of files they make up on reading.
                Ok(0) if position == 0 => self.kernel = false,
                Err(Errno::INTR) => {}
                other => return Ok(other.map(|n| n as u64)?),
            }
        }
        self.buffer.resize(BUFFER, 0);
        let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(BUFFER);
        let n = self.from.read_at(&mut self.buffer[..wanted], position)?;
        self.to.write_all_at(&self.buffer[..n], position)?;
        Ok(n as u64)
    }
}
