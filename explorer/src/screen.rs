//! The browser on a terminal.

use progress::bytes;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, List, ListItem, ListState, Paragraph, Wrap};

use crate::browser::{Browser, Key, Pane, Row, View};
use crate::error::{Error, Result};
use crate::explored_image::{ExploredImage, shortened};
use crate::tree::Change;

const HELP: &str = "\
  Tab          layers or files
  ↑ ↓ k j      up, down       PgUp PgDn  a page      g G  first, last
  → l Enter    open           ← h        close, or go up
  [ ]          the layer below, the layer above
  c            only what this layer changes
  s            largest first
  w            wasted bytes: carried by a layer, hidden by a later one
  /            find a file; Enter keeps it, Esc ends it
  q Esc        quit";

/// Shows an image until the user has seen enough.
///
/// # Errors
/// The terminal fails.
pub fn show(explored: &ExploredImage) -> Result<()> {
    let failed = |source| Error::Terminal { source };
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let mut browser = Browser::new(explored);
    let result = loop {
        if let Err(error) = terminal.draw(|frame| draw(frame, &mut browser)) {
            break Err(failed(error));
        }
        match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
                    break Ok(());
                }
                if let Some(key) = known(key.code)
                    && !browser.press(key)
                {
                    break Ok(());
                }
            }
            Ok(_) => {}
            Err(error) => break Err(failed(error)),
        }
    };
    ratatui::restore();
    result
}

fn known(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Right => Key::Open,
        KeyCode::Left => Key::Close,
        KeyCode::Tab | KeyCode::BackTab => Key::Other,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Char(letter) => Key::Letter(letter),
        _ => return None,
    })
}

fn draw(frame: &mut Frame<'_>, browser: &mut Browser<'_>) {
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(4)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(browser)), top);
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(36), Constraint::Fill(1)]).areas(middle);
    draw_layers(frame, browser, left);
    match browser.view {
        View::Files => draw_files(frame, browser, right),
        View::Waste => draw_waste(frame, browser, right),
        View::Help => {
            let help = Paragraph::new(HELP).block(Block::bordered().title(" Keys "));
            frame.render_widget(help, right);
        }
    }
    let details = Paragraph::new(details(browser)).wrap(Wrap { trim: true });
    frame.render_widget(details.block(Block::bordered()), bottom);
}

fn heading(browser: &Browser<'_>) -> Line<'static> {
    let explored = browser.explored;
    let (carried, wasted) = explored.carried_and_wasted();
    let percent = (wasted * 100).checked_div(carried).unwrap_or(0);
    Line::from(vec![
        Span::styled(explored.name.clone(), Style::new().bold()),
        Span::raw(format!("  {}  ", explored.platform)),
        Span::raw(format!("{} in files, ", bytes(carried))),
        Span::styled(
            format!("{} wasted ({percent}%)", bytes(wasted)),
            Style::new().fg(if percent > 10 { Color::Yellow } else { Color::Green }),
        ),
        Span::styled("   ? keys   q quit", Style::new().dim()),
    ])
}

fn frame_of(title: String, active: bool) -> Block<'static> {
    let style = if active { Style::new().fg(Color::Cyan) } else { Style::new().dim() };
    Block::bordered().title(title).border_style(style)
}

fn list(
    frame: &mut Frame<'_>,
    area: Rect,
    items: Vec<ListItem<'static>>,
    block: Block<'static>,
    chosen: usize,
    active: bool,
) {
    let highlight = match active {
        true => Style::new().add_modifier(Modifier::REVERSED),
        false => Style::new().add_modifier(Modifier::BOLD),
    };
    let list = List::new(items).block(block).highlight_style(highlight);
    let mut state = ListState::default().with_selected(Some(chosen));
    frame.render_stateful_widget(list, area, &mut state);
}

fn draw_layers(frame: &mut Frame<'_>, browser: &Browser<'_>, area: Rect) {
    let layers = browser.explored.layers.iter().enumerate();
    let items = layers.map(|(number, layer)| {
        let step = shortened(&layer.step).split_whitespace().collect::<Vec<_>>().join(" ");
        ListItem::new(Line::from(vec![
            Span::styled(format!("{number:>3} "), Style::new().dim()),
            Span::styled(format!("{:>7} ", bytes(layer.files)), Style::new().fg(Color::Blue)),
            Span::raw(if step.is_empty() { "(no history)".to_owned() } else { step }),
        ]))
    });
    let active = browser.pane == Pane::Layers;
    let block = frame_of(" Layers ".to_owned(), active);
    list(frame, area, items.collect(), block, browser.layer, active);
}

fn draw_files(frame: &mut Frame<'_>, browser: &mut Browser<'_>, area: Rect) {
    browser.page = usize::from(area.height.saturating_sub(3)).max(1);
    let mut title = format!(" Files up to layer {} ", browser.layer);
    if browser.only_changes {
        title = format!(" What layer {} changes ", browser.layer);
    }
    if browser.typing || !browser.search.is_empty() {
        let caret = if browser.typing { "▏" } else { "" };
        title.push_str(&format!("· find: {}{caret} ", browser.search));
    }
    // Only the lines that can be seen are made; an image has many files.
    let height = usize::from(area.height.saturating_sub(2)).max(1);
    let first =
        browser.cursor.saturating_sub(height / 2).min(browser.rows.len().saturating_sub(height));
    let rows = browser.rows.iter().skip(first).take(height);
    let items: Vec<_> = rows.map(|row| ListItem::new(file_line(browser, row))).collect();
    let active = browser.pane == Pane::Files;
    list(frame, area, items, frame_of(title, active), browser.cursor - first, active);
}

fn file_line(browser: &Browser<'_>, row: &Row) -> Line<'static> {
    let tree = &browser.explored.tree;
    let node = tree.node(row.node);
    let (sign, style) = match row.change {
        Change::None => (' ', Style::new()),
        Change::Added => ('+', Style::new().fg(Color::Green)),
        Change::Changed => ('~', Style::new().fg(Color::Yellow)),
        Change::Removed => ('-', Style::new().fg(Color::Red)),
    };
    let name = match browser.search.is_empty() {
        true => format!("{}{}", "  ".repeat(row.depth), printable(&node.name)),
        false => tree.path(row.node),
    };
    let mark = match (browser.is_directory(row.node), browser.is_open(row.node)) {
        (true, true) => "▾ ",
        (true, false) => "▸ ",
        (false, _) => "  ",
    };
    let file = node.at(browser.layer).and_then(|version| version.file.as_ref());
    let link = file.filter(|file| !file.link.is_empty());
    let link = link.map(|file| format!(" → {}", printable(&file.link))).unwrap_or_default();
    Line::from(vec![
        Span::styled(format!("{sign} "), style),
        Span::styled(format!("{:>7} ", bytes(browser.sizes[row.node])), Style::new().dim()),
        Span::styled(format!("{mark}{name}"), style),
        Span::styled(link, Style::new().dim()),
    ])
}

fn draw_waste(frame: &mut Frame<'_>, browser: &mut Browser<'_>, area: Rect) {
    browser.page = usize::from(area.height.saturating_sub(3)).max(1);
    let waste = browser.explored.tree.waste();
    let title = format!(" Wasted: {} files ", waste.len());
    let height = usize::from(area.height.saturating_sub(2)).max(1);
    let first = browser.cursor.saturating_sub(height / 2).min(waste.len().saturating_sub(height));
    let items = waste.iter().skip(first).take(height).map(|one| {
        let verb = if one.removed { "removed" } else { "again" };
        ListItem::new(Line::from(vec![
            Span::styled(format!("{:>7} ", bytes(one.bytes)), Style::new().fg(Color::Yellow)),
            Span::raw(browser.explored.tree.path(one.node)),
            Span::styled(
                format!("  layer {}, {verb} in {}", one.written, one.hidden),
                Style::new().dim(),
            ),
        ]))
    });
    let active = browser.pane == Pane::Files;
    let items = items.collect();
    list(frame, area, items, frame_of(title, active), browser.cursor.saturating_sub(first), active);
}

/// The step of the layer, and of a file what it is and who wrote it.
fn details(browser: &Browser<'_>) -> Vec<Line<'static>> {
    let explored = browser.explored;
    let step = |layer: usize| {
        let layer = explored.layers.get(layer);
        layer.map(|layer| printable(shortened(&layer.step).as_bytes())).unwrap_or_default()
    };
    let row = browser.rows.get(browser.cursor).filter(|_| browser.view == View::Files);
    let version = row.and_then(|row| explored.tree.node(row.node).at(browser.layer));
    let (Some(row), Some(version), Pane::Files) = (row, version, browser.pane) else {
        let layer = explored.layers.get(browser.layer);
        let digest = layer.map(|layer| layer.digest.to_string()).unwrap_or_default();
        return vec![Line::from(digest), Line::from(step(browser.layer))];
    };
    let path = explored.tree.path(row.node);
    let what = match &version.file {
        Some(file) => format!(
            "{} {}:{} {} {path}",
            file.permissions(),
            file.uid,
            file.gid,
            bytes(browser.sizes[row.node])
        ),
        None => format!("removed {path}"),
    };
    vec![
        Line::from(printable(what.as_bytes())),
        Line::from(format!("layer {}: {}", version.layer, step(version.layer))),
    ]
}

/// Without what a terminal would obey.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::sample::sample;

    fn screen(keys: &str) -> String {
        let explored = sample();
        let mut browser = Browser::new(&explored);
        for key in keys.chars() {
            browser.press(Key::Letter(key));
        }
        let mut terminal = Terminal::new(TestBackend::new(100, 16)).unwrap();
        terminal.draw(|frame| draw(frame, &mut browser)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_layers_files_and_waste() {
        let files = screen("jljj");
        for words in [
            "store:sample",
            "COPY . /",
            "RUN rm gone",
            "▾ etc",
            "- ",
            "gone",
            "layer 1: RUN rm gone",
        ] {
            assert!(files.contains(words), "{words}\n{files}");
        }
        let waste = screen("w");
        for words in ["Wasted: 2 files", "/etc/gone", "layer 0, removed in 1", "/etc/conf"] {
            assert!(waste.contains(words), "{words}\n{waste}");
        }
        assert!(screen("?").contains("largest first"));
        assert!(screen("/conf").contains("find: conf▏"));
    }

    #[test]
    fn a_hostile_name_does_not_reach_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a·[2Jb·");
    }
}
