use lattice_server::store::{HistoryEntry, NewPrompt, Page, QueueItem, Recovery, Store};
use serde_json::json;

fn new(id: &str, number: f64) -> NewPrompt {
    NewPrompt {
        prompt_id: id.into(),
        number,
        client_id: None,
        prompt: json!({"1": {"class_type": "X", "inputs": {"z": 1, "a": 2}}}),
        extra_data: json!({}),
        outputs: vec!["1".into()],
    }
}

fn done(id: &str) -> HistoryEntry {
    HistoryEntry { prompt_id: id.into(), entry: json!({"status": {"status_str": "success"}, "id": id}) }
}

fn report(item: &QueueItem) -> HistoryEntry {
    done(&item.prompt.prompt_id)
}

fn ids(store: &Store) -> Vec<String> {
    store.items(false).unwrap().into_iter().map(|i| i.prompt.prompt_id).collect()
}

#[test]
fn order_is_number_then_id_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let store = Store::open(&path).unwrap();
    for (id, number) in [("b", 1.0), ("a", 1.0), ("late", 3.5), ("front", -2.0)] {
        store.enqueue(new(id, number)).unwrap();
    }
    assert_eq!(store.take_next().unwrap().unwrap().prompt.prompt_id, "front");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(ids(&store), ["a", "b", "late"]);
    assert_eq!(store.recover(Recovery::RunAgain, report).unwrap(), 1);
    let again = store.take_next().unwrap().unwrap();
    assert_eq!((again.prompt.prompt_id.as_str(), again.attempts), ("front", 1));
    assert_eq!(again.prompt.prompt.to_string(), new("", 0.0).prompt.to_string(), "object order is kept");
}

#[test]
fn a_finished_prompt_is_in_the_history_and_nowhere_else() {
    let store = Store::in_memory().unwrap();
    store.enqueue(new("p", 0.0)).unwrap();
    let item = store.take_next().unwrap().unwrap();
    assert!(store.take_next().unwrap().is_none());
    store.finish(item.seq, done("p")).unwrap();
    assert_eq!(store.remaining().unwrap(), 0);
    assert_eq!(store.history_entry("p").unwrap().unwrap()["id"], "p");
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
        store.finish(item.seq, done(&item.prompt.prompt_id)).unwrap();
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
                    let number = store.next_number().unwrap();
                    store.enqueue(new(&format!("{t}-{i}"), number as f64)).unwrap();
                }
            });
        }
    });
    assert_eq!(store.remaining().unwrap(), 200);
    assert_eq!(store.next_number().unwrap(), 200);
    assert_eq!(store.drop_waiting(Some(vec!["0-0".into()])).unwrap(), 1);
    assert!(store.renumber("7-24".into(), -1.0).unwrap());
    assert_eq!(ids(&store)[0], "7-24");
    assert_eq!(store.drop_waiting(None).unwrap(), 199);
}
