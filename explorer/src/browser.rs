//! What the browser shows and how keys change it, without a terminal.

use std::collections::BTreeSet;

use crate::explored_image::ExploredImage;
use crate::tree::Change;

/// What one key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Into a directory, or open it.
    Open,
    /// Close the directory, or go to the one above.
    Close,
    /// From the layers to the files and back.
    Other,
    Letter(char),
    Backspace,
    Enter,
    Escape,
}

/// Which half the keys go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pane {
    Layers,
    Files,
}

/// What fills the right half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Files,
    Waste,
    Help,
}

/// One line of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) node: usize,
    pub(crate) depth: usize,
    pub(crate) change: Change,
}

/// The state of the browser.
pub(crate) struct Browser<'a> {
    pub(crate) explored: &'a ExploredImage,
    pub(crate) pane: Pane,
    pub(crate) view: View,
    pub(crate) layer: usize,
    pub(crate) rows: Vec<Row>,
    /// The chosen line of the files, or of the waste.
    pub(crate) cursor: usize,
    pub(crate) sizes: Vec<u64>,
    pub(crate) only_changes: bool,
    pub(crate) by_size: bool,
    /// What is searched for, while or after it was typed.
    pub(crate) search: String,
    pub(crate) typing: bool,
    touched: Vec<bool>,
    open: BTreeSet<usize>,
    /// Lines of a page.
    pub(crate) page: usize,
}

impl<'a> Browser<'a> {
    pub(crate) fn new(explored: &'a ExploredImage) -> Browser<'a> {
        let mut browser = Browser {
            explored,
            pane: Pane::Files,
            view: View::Files,
            layer: explored.layers.len().saturating_sub(1),
            rows: Vec::new(),
            cursor: 0,
            sizes: Vec::new(),
            only_changes: false,
            by_size: false,
            search: String::new(),
            typing: false,
            touched: Vec::new(),
            open: BTreeSet::new(),
            page: 20,
        };
        browser.measure();
        browser
    }

    fn measure(&mut self) {
        self.sizes = self.explored.tree.sizes(self.layer);
        self.touched = self.explored.tree.touched(self.layer);
        self.list();
    }

    /// Builds the lines again and keeps the selected file.
    fn list(&mut self) {
        let chosen = self.rows.get(self.cursor).map(|row| row.node);
        self.rows.clear();
        match self.search.is_empty() {
            true => self.add_below(0, 0),
            false => self.add_found(),
        }
        let same = chosen.and_then(|node| self.rows.iter().position(|row| row.node == node));
        self.cursor = same.unwrap_or(self.cursor).min(self.rows.len().saturating_sub(1));
    }

    fn shown(&self, node: usize) -> Option<Row> {
        let tree = &self.explored.tree;
        let change = tree.change(node, self.layer);
        let there = tree.node(node).at(self.layer).is_some_and(|version| version.file.is_some());
        let visible = there || change == Change::Removed;
        (visible && (!self.only_changes || self.touched[node])).then_some(Row {
            node,
            depth: 0,
            change,
        })
    }

    fn add_below(&mut self, node: usize, depth: usize) {
        let children = self.explored.tree.node(node).children.values();
        let mut rows: Vec<Row> = children.filter_map(|child| self.shown(*child)).collect();
        if self.by_size {
            rows.sort_by_key(|row| std::cmp::Reverse(self.sizes[row.node]));
        }
        for row in rows {
            let node = row.node;
            self.rows.push(Row { depth, ..row });
            if self.open.contains(&node) {
                self.add_below(node, depth + 1);
            }
        }
    }

    fn add_found(&mut self) {
        let wanted = self.search.to_lowercase();
        let tree = &self.explored.tree;
        let found = (1..tree.nodes().len())
            .filter(|node| tree.path(*node).to_lowercase().contains(&wanted));
        let mut rows: Vec<Row> = found.filter_map(|node| self.shown(node)).collect();
        if self.by_size {
            rows.sort_by_key(|row| std::cmp::Reverse(self.sizes[row.node]));
        }
        self.rows = rows;
    }

    /// Whether there is something to open at a line.
    pub(crate) fn is_directory(&self, node: usize) -> bool {
        !self.explored.tree.node(node).children.is_empty()
    }

    pub(crate) fn is_open(&self, node: usize) -> bool {
        self.open.contains(&node)
    }

    fn lines(&self) -> usize {
        match self.view {
            View::Waste => self.explored.tree.waste().len(),
            _ => self.rows.len(),
        }
    }

    /// Does what a key asks for; `false` ends the browser.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        if self.typing {
            self.type_in(key);
            return true;
        }
        match key {
            Key::Letter('q') => return false,
            Key::Escape => match (self.view, self.search.is_empty()) {
                (View::Files, true) => return false,
                (View::Files, false) => {
                    self.search.clear();
                    self.list();
                }
                _ => self.turn_to(View::Files),
            },
            Key::Letter('?') => self.turn_to(View::Help),
            Key::Letter('w') => self.turn_to(View::Waste),
            Key::Letter('/') => {
                self.turn_to(View::Files);
                (self.typing, self.pane) = (true, Pane::Files);
            }
            Key::Letter('c') => {
                self.only_changes = !self.only_changes;
                self.list();
            }
            Key::Letter('s') => {
                self.by_size = !self.by_size;
                self.list();
            }
            Key::Letter('[') => self.choose(self.layer.saturating_sub(1)),
            Key::Letter(']') => self.choose(self.layer + 1),
            Key::Other => {
                self.pane = match self.pane {
                    Pane::Layers => Pane::Files,
                    Pane::Files => Pane::Layers,
                };
            }
            key => match self.pane {
                Pane::Layers => self.move_in_layers(key),
                Pane::Files => self.move_in_files(key),
            },
        }
        true
    }

    fn turn_to(&mut self, view: View) {
        self.view = if self.view == view { View::Files } else { view };
        self.cursor = self.cursor.min(self.lines().saturating_sub(1));
    }

    fn type_in(&mut self, key: Key) {
        match key {
            Key::Letter(letter) => self.search.push(letter),
            Key::Backspace => drop(self.search.pop()),
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.search.clear();
            }
            _ => return,
        }
        self.list();
    }

    fn choose(&mut self, layer: usize) {
        self.layer = layer.min(self.explored.layers.len().saturating_sub(1));
        self.measure();
    }

    fn move_in_layers(&mut self, key: Key) {
        match key {
            Key::Up | Key::Letter('k') => self.choose(self.layer.saturating_sub(1)),
            Key::Down | Key::Letter('j') => self.choose(self.layer + 1),
            Key::Home | Key::Letter('g') => self.choose(0),
            Key::End | Key::Letter('G') => self.choose(usize::MAX),
            Key::Enter | Key::Open => self.pane = Pane::Files,
            _ => {}
        }
    }

    fn move_in_files(&mut self, key: Key) {
        let last = self.lines().saturating_sub(1);
        match key {
            Key::Up | Key::Letter('k') => self.cursor = self.cursor.saturating_sub(1),
            Key::Down | Key::Letter('j') => self.cursor = (self.cursor + 1).min(last),
            Key::PageUp => self.cursor = self.cursor.saturating_sub(self.page),
            Key::PageDown => self.cursor = (self.cursor + self.page).min(last),
            Key::Home | Key::Letter('g') => self.cursor = 0,
            Key::End | Key::Letter('G') => self.cursor = last,
            Key::Open | Key::Enter | Key::Letter('l' | ' ') => self.open_or_close(key),
            Key::Close | Key::Letter('h') => self.close(),
            _ => {}
        }
    }

    fn open_or_close(&mut self, key: Key) {
        let Some(row) = self.rows.get(self.cursor).filter(|_| self.view == View::Files) else {
            return;
        };
        let node = row.node;
        if !self.is_directory(node) || !self.search.is_empty() {
            return;
        }
        let closes = key != Key::Open && self.open.contains(&node);
        match closes {
            true => drop(self.open.remove(&node)),
            false => drop(self.open.insert(node)),
        }
        self.list();
    }

    fn close(&mut self) {
        let Some(row) = self.rows.get(self.cursor).filter(|_| self.view == View::Files) else {
            return;
        };
        let node = row.node;
        if !self.open.remove(&node) {
            let parent = self.explored.tree.node(node).parent;
            if let Some(above) = self.rows.iter().position(|row| row.node == parent) {
                self.cursor = above;
                self.open.remove(&parent);
            }
        }
        self.list();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    fn names(browser: &Browser<'_>) -> Vec<String> {
        browser.rows.iter().map(|row| browser.explored.tree.path(row.node)).collect()
    }

    fn press(browser: &mut Browser<'_>, keys: &str) {
        for letter in keys.chars() {
            assert!(browser.press(Key::Letter(letter)));
        }
    }

    #[test]
    fn directories_open_and_close() {
        let explored = sample();
        let mut browser = Browser::new(&explored);
        assert_eq!(names(&browser), ["/bin", "/etc"]);
        press(&mut browser, "j");
        browser.press(Key::Open);
        assert_eq!(names(&browser), ["/bin", "/etc", "/etc/conf", "/etc/gone"]);
        press(&mut browser, "jj");
        browser.press(Key::Close);
        assert_eq!((names(&browser).len(), browser.cursor), (2, 1));
        assert!(!browser.press(Key::Letter('q')));
    }

    #[test]
    fn layers_are_chosen_and_files_are_found() {
        let explored = sample();
        let mut browser = Browser::new(&explored);
        press(&mut browser, "[");
        assert_eq!(browser.layer, 0);
        press(&mut browser, "]]]");
        assert_eq!(browser.layer, 1);
        press(&mut browser, "c");
        assert_eq!(names(&browser), ["/etc"]);
        press(&mut browser, "c/CONF");
        assert_eq!(names(&browser), ["/etc/conf"]);
        browser.press(Key::Backspace);
        browser.press(Key::Enter);
        assert!(!browser.typing && browser.search == "CON");
        browser.press(Key::Escape);
        assert_eq!(names(&browser), ["/bin", "/etc"]);
        press(&mut browser, "s");
        assert_eq!(names(&browser), ["/etc", "/bin"]);
        assert!(!browser.press(Key::Escape));
    }
}
