//! What everybody is told.
//!
//! A notice is written down once, however many clients there are, and the oldest go when there are too many. A client is a
//! place in this list: one that does not read costs nothing, and one whose place is gone is told how things stand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::ws::Message;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::outbox::{Kind, Outgoing};

/// Most notices that are kept.
const MAX_NOTICES: usize = 8192;

/// Most bytes of them; a single larger one is kept all the same.
const MAX_BYTES: usize = 16 << 20;

/// Which clients a notice is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    All,
    /// Those that take previews with metadata, or those that do not.
    Metadata(bool),
}

/// The notices.
#[derive(Default)]
pub(super) struct Board {
    state: Mutex<State>,
    /// Number of the next notice.
    next: AtomicU64,
    /// There is something new.
    pub(super) news: Notify,
}

#[derive(Default)]
struct State {
    notices: VecDeque<(Outgoing, Audience)>,
    /// Number of the first of them.
    first: u64,
    bytes: usize,
}

/// What a reader finds at its place.
#[derive(Debug)]
pub(super) enum Found {
    Notice(Message),
    /// What was there is gone.
    Gone,
    Nothing,
}

impl Board {
    /// Number of the notice that will be written next.
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Writes a notice.
    pub(super) fn write(&self, outgoing: Outgoing, audience: Audience) {
        let mut state = self.state.lock();
        state.bytes += outgoing.size();
        state.notices.push_back((outgoing, audience));
        while state.notices.len() > MAX_NOTICES || (state.bytes > MAX_BYTES && state.notices.len() > 1) {
            if let Some((gone, _)) = state.notices.pop_front() {
                state.bytes -= gone.size();
                state.first += 1;
            }
        }
        self.next.store(state.first + state.notices.len() as u64, Ordering::Release);
    }

    /// The next notice before number `end` for a reader at the place `at`, which moves on. `brief`: of several lengths
    /// of the queue in a row only the last.
    pub(super) fn read(&self, at: &mut u64, end: u64, metadata: bool, brief: bool) -> Found {
        let state = self.state.lock();
        if *at < state.first {
            *at = state.first + state.notices.len() as u64;
            return Found::Gone;
        }
        let get = |number: u64| {
            let index = usize::try_from(number.checked_sub(state.first)?).ok()?;
            state.notices.get(index).filter(|_| number < end)
        };
        while let Some((outgoing, audience)) = get(*at) {
            *at += 1;
            let outdated = brief
                && outgoing.kind == Kind::Status
                && get(*at).is_some_and(|(next, _)| next.kind == Kind::Status);
            let wanted = match audience {
                Audience::All => true,
                Audience::Metadata(takes) => *takes == metadata,
            };
            if wanted && !outdated {
                return Found::Notice(outgoing.message.clone());
            }
        }
        Found::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(text: &str, kind: Kind) -> Outgoing {
        Outgoing { message: Message::Text(text.into()), kind }
    }

    fn rest(board: &Board, mut at: u64, end: u64, metadata: bool, brief: bool) -> Vec<String> {
        std::iter::from_fn(|| match board.read(&mut at, end, metadata, brief) {
            Found::Notice(message) => Some(message.into_text().unwrap().to_string()),
            Found::Gone => Some("gone".into()),
            Found::Nothing => None,
        })
        .collect()
    }

    #[test]
    fn each_reader_has_its_place() {
        let board = Board::default();
        for (text, kind, audience) in [
            ("1", Kind::Status, Audience::All),
            ("2", Kind::Status, Audience::All),
            ("new", Kind::Event, Audience::Metadata(true)),
            ("old", Kind::Event, Audience::Metadata(false)),
            ("3", Kind::Status, Audience::All),
        ] {
            board.write(notice(text, kind), audience);
        }
        assert_eq!(board.next(), 5);
        assert_eq!(rest(&board, 0, 5, true, false), ["1", "2", "new", "3"]);
        assert_eq!(rest(&board, 1, 5, false, false), ["2", "old", "3"]);
        assert_eq!(rest(&board, 0, 5, false, true), ["2", "old", "3"]);
        // What comes after the end says nothing about what comes before.
        assert_eq!(rest(&board, 0, 1, false, true), ["1"]);
        assert!(rest(&board, 5, u64::MAX, true, false).is_empty());
    }

    #[test]
    fn old_notices_go() {
        let board = Board::default();
        for i in 0..=MAX_NOTICES {
            board.write(notice(&i.to_string(), Kind::Event), Audience::All);
        }
        assert_eq!(rest(&board, 0, u64::MAX, false, false), ["gone"]);
        assert_eq!(rest(&board, 1, u64::MAX, false, false).len(), MAX_NOTICES);
        let large = "x".repeat(MAX_BYTES);
        board.write(notice(&large, Kind::Event), Audience::All);
        board.write(notice("last", Kind::Event), Audience::All);
        let state = board.state.lock();
        assert_eq!((state.notices.len(), state.bytes), (1, 4));
    }
}
