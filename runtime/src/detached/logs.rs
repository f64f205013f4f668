//! Reading what a container printed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use task::Task;

use super::record::{LOG, log_name};
use super::{Status, client, state};
use crate::{Error, Result};

/// One piece of output as the log keeps it: a line, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Seconds since 1970.
    pub t: f64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text, with its line end if it had one.
    pub line: String,
    /// The bytes, if they are not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
}

impl LogLine {
    /// What was printed.
    pub fn content(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.line.as_bytes())
    }

    fn ends(&self) -> bool {
        self.content().ends_with(b"\n")
    }
}

/// What to read from a log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LogOptions {
    /// Whether to go on until the container ends.
    pub follow: bool,
    /// Nothing older than this, in seconds since 1970.
    pub since: Option<f64>,
    /// Nothing younger than this, in seconds since 1970.
    pub until: Option<f64>,
    /// Only this many of the last lines.
    pub tail: Option<usize>,
}

/// How long to sleep between two looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(100);

/// What ends a piece that ends a line, as the log writes it.
const LINE_END: &[u8] = b"\\n\"}\n";

/// More lines than asked for that are looked back, for those whose beginning is missed.
const SPARE: usize = 64;

/// Reads the container's log, oldest first. Pieces that cannot be read are passed over.
///
/// # Errors
/// [`Error::NoContainer`], [`Error::Cancelled`].
pub fn logs(
    dir: &Path,
    options: &LogOptions,
    task: &Task,
    each: &mut dyn FnMut(LogLine),
) -> Result<()> {
    let missing = |source| Error::NoContainer { path: dir.to_owned(), source };
    let mut tail = options.tail.map(Tail::new);
    let mut file = File::open(dir.join(LOG)).map_err(missing)?;
    let start = match (options.tail, options.since) {
        (Some(lines), None) => beginning(&mut file, lines).map_err(missing)?,
        _ => None,
    };
    let mut take = |line: LogLine, tail: &mut Option<Tail>| match tail {
        Some(tail) => tail.push(line),
        None => each(line),
    };
    let wanted = |line: &LogLine| {
        options.since.is_none_or(|since| line.t >= since)
            && options.until.is_none_or(|until| line.t <= until)
    };
    for older in older_files(dir).into_iter().filter(|_| start.is_none()) {
        let mut reader = Pieces::new(older);
        while let Some(line) = reader.next().map_err(missing)? {
            task.check()?;
            if wanted(&line) {
                take(line, &mut tail);
            }
        }
    }
    file.seek(SeekFrom::Start(start.unwrap_or(0))).map_err(missing)?;
    let mut reader = Pieces::new(file);
    loop {
        // Looked at before reading, so that nothing is written after the last read.
        let over =
            !options.follow || !matches!(state(dir)?.status, Status::Created | Status::Running);
        let next = reader.replaced(dir);
        while let Some(line) = reader.next().map_err(missing)? {
            task.check()?;
            if wanted(&line) {
                take(line, &mut tail);
            }
        }
        if let Some(next) = next {
            reader = Pieces::new(next);
            continue;
        }
        for line in tail.take().into_iter().flat_map(Tail::lines) {
            take(line, &mut None);
        }
        if over {
            return Ok(());
        }
        task.check()?;
        // Returns at once when the container ends.
        match client::wait(dir, Some(PAUSE), task) {
            Ok(_) | Err(Error::Lost { .. } | Error::NotRunning { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The full files of a log, oldest first.
fn older_files(dir: &Path) -> Vec<File> {
    let files = (1..).map_while(|number| File::open(dir.join(log_name(number))).ok());
    let mut files: Vec<File> = files.collect();
    files.reverse();
    files
}

/// Where to begin in order to see this many whole last lines; nothing where the file has fewer.
fn beginning(file: &mut File, lines: usize) -> std::io::Result<Option<u64>> {
    const BLOCK: u64 = 64 << 10;
    let wanted = lines.saturating_add(SPARE);
    let mut end = file.metadata()?.len();
    let (mut found, mut carried) = (0, Vec::new());
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        // A mark may lie across the border of two blocks.
        block.extend_from_slice(&carried);
        let mut at = block.len();
        while let Some(mark) = rfind(&block[..at], LINE_END) {
            found += 1;
            if found > wanted {
                return Ok(Some(start + (mark + LINE_END.len()) as u64));
            }
            at = mark;
        }
        carried = block[..block.len().min(LINE_END.len() - 1)].to_vec();
        end = start;
    }
    Ok(None)
}

fn rfind(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).rposition(|window| window == mark)
}

/// The pieces of one file.
struct Pieces {
    file: BufReader<File>,
    partial: Vec<u8>,
}

impl Pieces {
    fn new(file: File) -> Pieces {
        Pieces { file: BufReader::new(file), partial: Vec::new() }
    }

    /// The next piece; nothing at the end, for now.
    fn next(&mut self) -> std::io::Result<Option<LogLine>> {
        while self.file.read_until(b'\n', &mut self.partial)? > 0 {
            if self.partial.last() != Some(&b'\n') {
                break;
            }
            let line = serde_json::from_slice(&self.partial);
            self.partial.clear();
            if let Ok(line) = line {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// The file that follows this one, if it is not the newest: the next newer, or, where this one
    /// was dropped, the oldest there is.
    fn replaced(&self, dir: &Path) -> Option<File> {
        let own = self.file.get_ref().metadata().ok()?.ino();
        let mut newer = None;
        for number in 0.. {
            let Ok(file) = File::open(dir.join(log_name(number))) else { break };
            if file.metadata().is_ok_and(|file| file.ino() == own) {
                return newer;
            }
            newer = Some(file);
        }
        newer
    }
}

/// The last lines, each of all its pieces, in the order in which they began.
struct Tail {
    limit: usize,
    lines: VecDeque<(u64, VecDeque<LogLine>)>,
    /// The line that is not ended yet, for output and errors.
    open: [Option<u64>; 2],
    count: u64,
}

impl Tail {
    fn new(limit: usize) -> Tail {
        Tail { limit, lines: VecDeque::new(), open: [None, None], count: 0 }
    }

    fn push(&mut self, piece: LogLine) {
        let open = &mut self.open[usize::from(piece.stream == "stderr")];
        let number = open.unwrap_or(self.count);
        let ends = piece.ends();
        match self.lines.iter_mut().find(|(own, _)| open.is_some() && *own == number) {
            Some((_, pieces)) => pieces.push_back(piece),
            // Its beginning is among what is not wanted.
            None if open.is_some() => {}
            None => {
                self.count += 1;
                self.lines.push_back((number, VecDeque::from([piece])));
            }
        }
        *open = (!ends).then_some(number);
        while self.lines.len() > self.limit {
            self.lines.pop_front();
        }
    }

    fn lines(self) -> impl Iterator<Item = LogLine> {
        self.lines.into_iter().flat_map(|(_, pieces)| pieces)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn piece(stream: &str, line: &str) -> LogLine {
        LogLine { t: 1.0, stream: stream.to_owned(), line: line.to_owned(), bytes: None }
    }

    fn last(pieces: &[(&str, &str)], limit: usize) -> String {
        let mut tail = Tail::new(limit);
        for (stream, line) in pieces {
            tail.push(piece(stream, line));
        }
        tail.lines().map(|piece| piece.line).collect()
    }

    #[test]
    fn a_line_of_many_pieces_is_one_line() {
        let out = "stdout";
        let pieces = [(out, "a\n"), (out, "b1"), (out, "b2"), (out, "b3\n"), (out, "c")];
        assert_eq!(last(&pieces, 1), "c");
        assert_eq!(last(&pieces, 2), "b1b2b3\nc");
        assert_eq!(last(&pieces, 9), "a\nb1b2b3\nc");
        assert_eq!(last(&pieces, 0), "");
        let mixed = [(out, "x1"), ("stderr", "e\n"), (out, "x2\n")];
        assert_eq!(last(&mixed, 2), "x1x2\ne\n");
        assert_eq!(last(&mixed, 1), "e\n");
    }

    #[test]
    fn the_end_of_a_long_log_is_found_from_behind() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(beginning(&mut file, 1).unwrap(), None);
        for number in 0..10_000 {
            serde_json::to_writer(&file, &piece("stdout", &format!("line {number}\n"))).unwrap();
            file.write_all(b"\n").unwrap();
        }
        for wanted in [0, 1, 10, 3_000] {
            let start = beginning(&mut file, wanted).unwrap().unwrap();
            file.seek(SeekFrom::Start(start)).unwrap();
            let mut pieces = Pieces::new(file.try_clone().unwrap());
            let mut count = 0;
            while pieces.next().unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, wanted + SPARE, "{wanted}");
        }
        assert_eq!(beginning(&mut file, 10_000).unwrap(), None);
    }
}
