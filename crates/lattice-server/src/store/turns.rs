//! Clients taking turns.
//!
//! Among the waiting prompts of the highest priority, it is the turn of the client whose last prompt was started the
//! longest ago; of several that have not had a turn, of the one whose prompt is first in the order of numbers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::Result;

/// Clients' turns that are remembered, in started prompts. Whoever had the last one longer ago is the first again.
const MEMORY: i64 = 10_000;

/// The first prompt of the client whose turn it is. The clients with something waiting are found one by one through the
/// index, so this takes time by their number and not by that of prompts.
const NEXT: &str = "
    WITH RECURSIVE top (priority) AS (
        SELECT priority FROM queue WHERE running = 0 ORDER BY priority DESC LIMIT 1
    ), clients (client) AS (
        SELECT (SELECT client FROM queue WHERE running = 0 AND priority = top.priority ORDER BY client LIMIT 1)
        FROM top
        UNION ALL
        SELECT (SELECT q.client FROM queue q
                WHERE q.running = 0 AND q.priority = top.priority AND q.client > clients.client
                ORDER BY q.client LIMIT 1)
        FROM clients, top WHERE clients.client IS NOT NULL
    )
    SELECT first.seq, first.client
    FROM clients, top
    JOIN queue first ON first.seq = (
        SELECT q.seq FROM queue q
        WHERE q.running = 0 AND q.priority = top.priority AND q.client = clients.client
        ORDER BY q.number, q.place, q.prompt_id, q.seq LIMIT 1)
    LEFT JOIN turns ON turns.client = clients.client
    ORDER BY ifnull(turns.turn, 0), first.number, first.place, first.prompt_id, first.seq LIMIT 1";

/// The prompt to run next, whose client has had its turn with that; None if nothing waits.
pub(super) fn take(tx: &Transaction<'_>) -> Result<Option<i64>> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let next: Option<(i64, String)> = tx.prepare_cached(NEXT)?.query_row([], read).optional()?;
    let Some((seq, client)) = next else { return Ok(None) };
    let turn = "INSERT INTO turns VALUES (?, (SELECT ifnull(max(turn), 0) + 1 FROM turns))
                ON CONFLICT (client) DO UPDATE SET turn = excluded.turn RETURNING turn";
    let turn: i64 = tx.prepare_cached(turn)?.query_row([client], |row| row.get(0))?;
    tx.prepare_cached("DELETE FROM turns WHERE turn <= ?")?.execute([turn - MEMORY])?;
    Ok(Some(seq))
}

/// The client's last prompt did not get to its end: it is the first again.
pub(super) fn give_back(tx: &Transaction<'_>, client: &str) -> Result<()> {
    tx.execute("DELETE FROM turns WHERE client = ?", [client])?;
    Ok(())
}

/// When each client had its last turn.
pub(super) fn all(connection: &Connection) -> Result<HashMap<String, i64>> {
    let mut statement = connection.prepare_cached("SELECT client, turn FROM turns")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Puts waiting prompts, which come in the order of priorities and numbers, into the order in which [`take`] will take
/// them. `key`: a prompt's priority and client.
pub(super) fn arrange<T>(
    waiting: Vec<T>,
    key: impl Fn(&T) -> (i32, String),
    mut turns: HashMap<String, i64>,
) -> Vec<T> {
    let mut arranged = Vec::with_capacity(waiting.len());
    let mut turn = turns.values().copied().max().unwrap_or(0);
    let mut rest = waiting.into_iter().enumerate().peekable();
    while let Some((_, first)) = rest.peek() {
        let priority = key(first).0;
        let mut clients: HashMap<String, VecDeque<(usize, T)>> = HashMap::new();
        while let Some((index, prompt)) = rest.next_if(|(_, prompt)| key(prompt).0 == priority) {
            clients.entry(key(&prompt).1).or_default().push_back((index, prompt));
        }
        let place = |turns: &HashMap<String, i64>, client: &str, index: usize| {
            Reverse((turns.get(client).copied().unwrap_or(0), index, client.to_owned()))
        };
        let mut heads: BinaryHeap<_> = clients
            .iter()
            .filter_map(|(client, prompts)| Some(place(&turns, client, prompts.front()?.0)))
            .collect();
        while let Some(Reverse((_, _, client))) = heads.pop() {
            let Some(prompts) = clients.get_mut(&client) else { continue };
            arranged.extend(prompts.pop_front().map(|(_, prompt)| prompt));
            turn += 1;
            turns.insert(client.clone(), turn);
            heads.extend(prompts.front().map(|&(index, _)| place(&turns, &client, index)));
        }
    }
    arranged
}
