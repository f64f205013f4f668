use std::time::Duration;

/// A size as people read it, in decimal units as Docker prints them: `812B`, `1.5kB`, `37.2MB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{size}B"),
        _ if value < 10.0 => format!("{value:.2}{}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1}{}", UNITS[unit]),
        _ => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// A duration as people read it: `8ms`, `3.2s`, `2m05s`.
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{:.1}s", duration.as_secs_f64()),
        _ => format!("{}m{:02}s", millis / 60_000, millis / 1_000 % 60),
    }
}

/// How fast it goes and how long it will take: `12.1MB/s, 8s left`; empty before that is known.
pub(crate) fn pace(position: u64, total: u64, took: Duration) -> String {
    if position == 0 || took < Duration::from_secs(1) {
        return String::new();
    }
    let speed = position as f64 / took.as_secs_f64();
    let left = (total.saturating_sub(position) as f64 / speed).min(359_999.0) as u64;
    let left = match left {
        0..60 => format!("{left}s"),
        60..3600 => format!("{}m{:02}s", left / 60, left % 60),
        _ => format!("{}h{:02}m", left / 3600, left / 60 % 60),
    };
    format!("{}/s, {left} left", bytes(speed as u64))
}

/// A name that may be a command over several lines, on one: runs of blanks are one blank, line
/// continuations vanish.
pub(crate) fn on_one_line(name: &str) -> String {
    let words = name.split_whitespace().filter(|word| *word != "\\");
    words.collect::<Vec<_>>().join(" ")
}

/// A line of a log, all of it: like [`clean`], but tabs stay.
pub(crate) fn whole(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            c if c.is_control() && c != '\t' => {}
            c => out.push(c),
        }
    }
    out
}

/// Cuts a line to `width` characters and takes control characters out of it, so that no output
/// of a command can move the cursor or recolour the screen.
pub(crate) fn clean(line: &str, width: usize) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    let mut length = 0;
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => out.push(' '),
            c if c.is_control() => continue,
            c => out.push(c),
        }
        length += 1;
        if length >= width && chars.as_str().chars().any(|c| !c.is_control()) {
            out.pop();
            out.push('…');
            break;
        }
    }
    out
}

fn skip_escape(chars: &mut std::str::Chars<'_>) {
    if chars.clone().next() == Some('[') {
        chars.next();
        for c in chars.by_ref() {
            if ('@'..='~').contains(&c) {
                return;
            }
        }
    } else {
        chars.next();
    }
}

/// Splits what a command writes into lines; a part of a line waits for its end. A carriage return
/// starts the line again, as it does on a terminal.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

/// A line longer than this many bytes is shown in pieces.
const LONGEST: usize = 1 << 20;

impl Lines {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => lines.push(self.take()),
                byte => self.partial.push(byte),
            }
            // What never ends is shown in pieces, each of whole characters.
            if self.partial.len() >= LONGEST && std::str::from_utf8(&self.partial).is_ok()
                || self.partial.len() >= LONGEST + 4
            {
                lines.push(self.take());
            }
        }
        lines
    }

    pub(crate) fn rest(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\r');
        text.rsplit('\r').next().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_well() {
        let sizes = [(0, "0B"), (812, "812B"), (1_500, "1.50kB"), (37_200_000, "37.2MB")];
        for (size, text) in sizes {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(bytes(999_600_000), "1.00GB");
        assert_eq!(duration(Duration::from_millis(8)), "8ms");
        assert_eq!(duration(Duration::from_millis(3_240)), "3.2s");
        assert_eq!(duration(Duration::from_secs(125)), "2m05s");
    }

    #[test]
    fn a_pace_says_speed_and_time_left() {
        let seconds = Duration::from_secs;
        assert_eq!(pace(20_000_000, 100_000_000, seconds(2)), "10.0MB/s, 8s left");
        assert_eq!(pace(1000, 126_000, seconds(1)), "1.00kB/s, 2m05s left");
        assert_eq!(pace(1, 7200, seconds(1)), "1B/s, 1h59m left");
        assert_eq!(pace(5, 3, seconds(1)), "5B/s, 0s left");
        assert_eq!(pace(0, 3, seconds(1)) + &pace(1, 3, Duration::from_millis(900)), "");
    }

    #[test]
    fn output_cannot_touch_the_screen() {
        assert_eq!(clean("a\u{1b}[31mb\u{1b}[0m\tc\u{7}", 80), "ab c");
        assert_eq!(clean("abcdef", 4), "abc…");
        assert_eq!(clean("abcd", 4), "abcd");
    }

    #[test]
    fn lines_of_a_log_are_whole_and_keep_their_tabs() {
        let long = format!("a\tb{}", "é".repeat(10_000));
        assert_eq!(whole(&format!("\u{1b}[1m{long}\u{7}")), long);
        let mut lines = Lines::default();
        let endless = "é".repeat(LONGEST);
        let pieces = lines.feed(endless.as_bytes());
        assert_eq!(pieces.concat() + &lines.rest().unwrap_or_default(), endless);
        assert!(pieces.len() >= 2, "{}", pieces.len());
    }

    #[test]
    fn lines_wait_for_their_end() {
        let mut lines = Lines::default();
        assert!(lines.feed(b"one").is_empty());
        assert_eq!(lines.feed(b" line\r\n50%\r100%\nrest"), ["one line", "100%"]);
        assert_eq!(lines.rest().as_deref(), Some("rest"));
        assert_eq!(lines.rest(), None);
    }
}
