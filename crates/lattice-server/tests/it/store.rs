use lattice_server::store::{
    HistoryEntry, NewPrompt, Number, Page, Place, QueueChange, QueueItem, Recovery, Store,
};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

pub(crate) fn raw(json: serde_json::Value) -> Box<RawValue> {
    to_raw_value(&json).unwrap()
}

pub(crate) fn new(id: &str, number: f64) -> NewPrompt {
    NewPrompt {
        prompt_id: id.into(),
        number: Number::Given(number),
        priority: 0,
        client_id: None,
        prompt: raw(json!({"1": {"class_type": "X", "inputs": {"z": 1, "a": 2}}})),
        extra_data: raw(json!({})),
        outputs: vec!["1".into()],
    }
}

pub(crate) fn done(id: &str) -> HistoryEntry {
    HistoryEntry { prompt_id: id.into(), entry: raw(json!({"status": {"status_str": "success"}, "id": id})) }
}

#[expect(clippy::unnecessary_wraps, reason = "the form that `recover` takes")]
fn report(item: &QueueItem) -> serde_json::Result<HistoryEntry> {
    Ok(done(&item.prompt_id))
}

pub(crate) fn ids(store: &Store) -> Vec<String> {
    store.queue().unwrap().1.into_iter().map(|i| i.prompt_id).collect()
}

#[test]
fn order_is_number_then_id_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let store = Store::open(&path).unwrap();
    for (id, number) in [("b", 1.0), ("a", 1.0), ("late", 3.5), ("front", -2.0)] {
        store.enqueue(new(id, number)).unwrap();
    }
    assert_eq!(store.take_next().unwrap().unwrap().prompt_id, "front");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(ids(&store), ["a", "b", "late"]);
    assert_eq!(store.recover(Recovery::RunAgain, report).unwrap(), 1);
    let again = store.take_next().unwrap().unwrap();
    assert_eq!((again.prompt_id.as_str(), again.attempts), ("front", 1));
    assert_eq!(again.prompt.get(), new("", 0.0).prompt.get(), "object order is kept");
}

#[test]
fn a_finished_prompt_is_in_the_history_and_nowhere_else() {
    let store = Store::in_memory().unwrap();
    store.enqueue(new("p", 0.0)).unwrap();
    let item = store.take_next().unwrap().unwrap();
    assert!(store.take_next().unwrap().is_none());
    store.finish(item.seq, done("p")).unwrap();
    assert_eq!(store.remaining(), 0);
    assert_eq!(store.history_entry("p").unwrap().unwrap().get(), done("p").entry.get());
    assert!(store.history_entry("q").unwrap().is_none());
}

#[test]
fn reported_prompts_do_not_run_again() {
    let store = Store::in_memory().unwrap();
    store.enqueue(new("p", 0.0)).unwrap();
    store.take_next().unwrap();
    store.recover(Recovery::Report, report).unwrap();
    assert!(store.take_next().unwrap().is_none());
    assert!(store.history_entry("p").unwrap().is_some());
}

#[test]
fn history_pages_as_clients_expect() {
    let store = Store::in_memory().unwrap();
    for i in 0..14 {
        store.enqueue(new(&format!("{i:02}"), 0.0)).unwrap();
        let item = store.take_next().unwrap().unwrap();
        store.finish(item.seq, done(&item.prompt_id)).unwrap();
    }
    let page = |max_items, offset| -> Vec<String> {
        store.history(Page { max_items, offset }).unwrap().keys().cloned().collect()
    };
    assert_eq!(page(Some(2), -1), ["12", "13"]);
    assert_eq!(page(Some(2), 1), ["01", "02"]);
    assert_eq!(page(None, 2).len(), 12);
    assert_eq!(page(Some(0), -1).len(), 0);
    assert_eq!(page(None, 100).len(), 0);
    assert_eq!(page(Some(100), -1).len(), 14);
    store.trim_history(3).unwrap();
    assert_eq!(page(None, -1), ["11", "12", "13"]);
    store.forget(Some(vec!["12".into(), "unknown".into()])).unwrap();
    assert_eq!(page(None, -1), ["11", "13"]);
}

#[test]
fn many_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("queue.db")).unwrap();
    std::thread::scope(|scope| {
        for t in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for i in 0..25 {
                    let new = NewPrompt { number: Number::Next, ..new(&format!("{t}-{i}"), 0.0) };
                    store.enqueue(new).unwrap();
                }
            });
        }
    });
    assert_eq!(store.remaining(), 200);
    store.skip_number().unwrap();
    assert_eq!(store.enqueue(NewPrompt { number: Number::Next, ..new("x", 0.0) }).unwrap(), 201.0);
    assert_eq!(store.drop_waiting(vec!["0-0".into(), "unknown".into()]).unwrap(), 1);
    store.move_waiting("7-24".into(), Place::Front).unwrap();
    assert_eq!(ids(&store)[0], "7-24");
    store.clear_waiting().unwrap();
    assert_eq!(store.remaining(), 0);
}

#[test]
fn observers_are_told_of_each_change_in_order() {
    let store = Store::in_memory().unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    store.on_queue_change({
        let seen = seen.clone();
        move |remaining, change| seen.lock().unwrap().push((remaining, change.cloned()))
    });
    let take = || std::mem::take(&mut *seen.lock().unwrap());
    let of = |change: fn(String) -> QueueChange, id: &str| Some(change(id.to_owned()));
    let queued = |prompt_id| QueueChange::Queued { prompt_id };
    let removed = |prompt_id| QueueChange::Removed { prompt_id };
    store.enqueue(new("a", 0.0)).unwrap();
    store.enqueue(new("b", 1.0)).unwrap();
    assert_eq!(take(), [(1, of(queued, "a")), (2, of(queued, "b"))]);
    let item = store.take_next().unwrap().unwrap();
    assert_eq!(take(), [(2, of(|prompt_id| QueueChange::Started { prompt_id }, "a"))]);
    store.finish(item.seq, done("a")).unwrap();
    assert_eq!(take(), [(1, of(|prompt_id| QueueChange::Finished { prompt_id }, "a"))]);
    store.drop_waiting(vec!["unknown".into()]).unwrap();
    assert!(take().is_empty());
    // The last waiting prompt that is deleted is told twice.
    store.drop_waiting(vec!["b".into()]).unwrap();
    assert_eq!(take(), [(0, of(removed, "b")), (0, None)]);
    store.clear_waiting().unwrap();
    assert_eq!(take(), [(0, Some(QueueChange::Cleared))]);
    for _ in 0..2 {
        store.pause(true).unwrap();
    }
    assert_eq!(take(), [(0, Some(QueueChange::Paused))], "only changes are told");
}
