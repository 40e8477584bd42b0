//! The last lines of the log, for clients that show them.

use std::collections::{HashSet, VecDeque};
use std::io::Write;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;

/// Lines that are kept.
const KEPT: usize = 300;

/// Longest line that is kept, in bytes.
const MAX_LINE: usize = 16 << 10;

/// A line of the log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogLine {
    /// Local time, ISO 8601.
    #[serde(rename = "t")]
    pub(crate) time: String,
    /// The text.
    #[serde(rename = "m")]
    pub(crate) text: String,
}

/// Keeps the last lines of the log. What writes the log writes here too, one line at a time.
#[derive(Default)]
pub struct Logs {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Default)]
struct State {
    lines: VecDeque<LogLine>,
    /// How many lines there were ever.
    count: usize,
    /// Ids of the clients that want to be told of new ones.
    subscribers: HashSet<String>,
}

impl Logs {
    fn push(&self, text: &str) {
        let mut end = text.len().min(MAX_LINE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let time = chrono::Local::now().format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
        let mut state = self.state.lock();
        if state.lines.len() == KEPT {
            state.lines.pop_front();
        }
        state.lines.push_back(LogLine { time, text: text[..end].to_owned() });
        state.count += 1;
        self.written.notify_one();
    }

    /// The last lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<LogLine> {
        self.state.lock().lines.iter().cloned().collect()
    }

    /// Has a client told of new lines, or no longer.
    pub(crate) fn subscribe(&self, client_id: String, wanted: bool) {
        let mut state = self.state.lock();
        if wanted {
            state.subscribers.insert(client_id);
        } else {
            state.subscribers.remove(&client_id);
        }
    }

    /// Calls `tell` with new lines and the clients that want them. Those for which it returns false are forgotten.
    pub(crate) async fn follow(&self, tell: impl Fn(&str, &[LogLine]) -> bool) {
        let mut seen = self.state.lock().count;
        loop {
            self.written.notified().await;
            let (new, subscribers) = {
                let state = self.state.lock();
                let skip = state.lines.len().saturating_sub(state.count - seen);
                seen = state.count;
                let new: Vec<LogLine> = state.lines.iter().skip(skip).cloned().collect();
                (new, state.subscribers.clone())
            };
            let gone: Vec<String> = subscribers.into_iter().filter(|id| !tell(id, &new)).collect();
            let mut state = self.state.lock();
            state.subscribers.retain(|id| !gone.contains(id));
        }
    }
}

impl Write for &Logs {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.push(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let logs = Logs::default();
        for i in 0..KEPT + 5 {
            (&logs).write_all(format!("line {i}\n").as_bytes()).unwrap();
        }
        (&logs).write_all("ü".repeat(MAX_LINE).as_bytes()).unwrap();
        let lines = logs.lines();
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines[0].text, "line 6\n");
        assert_eq!(lines[KEPT - 1].text.len(), MAX_LINE);
    }
}
