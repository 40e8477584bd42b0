use std::collections::HashMap;

use lattice_server::store::{
    Edit, Graph, NewPrompt, Number, Place, QueueOrder, QueueState, Recovery, Store, StoreError,
};
use proptest::prelude::*;
use serde_json::json;

use crate::store::{done, ids, new, raw};

fn place(side: &str, id: &str) -> Place {
    match side {
        "before" => Place::Before(id.into()),
        "after" => Place::After(id.into()),
        "front" => Place::Front,
        _ => Place::Back,
    }
}

#[test]
fn prompts_are_moved_beside_others() {
    let store = Store::in_memory().unwrap();
    // Equal numbers, too, leave room between them.
    for (id, number) in [("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 2.0), ("e", 3.0)] {
        store.enqueue(new(id, number)).unwrap();
    }
    for (id, side, anchor, expected) in [
        ("e", "front", "", "eabcd"),
        ("d", "before", "b", "eadbc"),
        ("a", "after", "b", "edbac"),
        ("e", "back", "", "dbace"),
        ("c", "after", "e", "dbaec"),
        ("d", "before", "c", "baedc"),
        ("a", "before", "a", "baedc"),
        ("b", "front", "", "baedc"),
        ("c", "back", "", "baedc"),
    ] {
        store.move_waiting(id.into(), place(side, anchor)).unwrap();
        assert_eq!(ids(&store).concat(), expected, "{id} {side} {anchor}");
    }
    // What comes later with the number that all these have now comes after them.
    let number = store.state().unwrap().waiting[0].number;
    store.enqueue(new("0", number)).unwrap();
    assert_eq!(ids(&store).concat(), "baedc0");
    let running = store.take_next().unwrap().unwrap().prompt_id;
    assert_eq!(running, "b");
    let refused = |id: &str, place: Place| store.move_waiting(id.into(), place).unwrap_err();
    assert!(matches!(refused("b", Place::Front), StoreError::Running(id) if id == "b"));
    assert!(matches!(refused("x", Place::Front), StoreError::NotQueued(id) if id == "x"));
    assert!(matches!(refused("a", Place::After("b".into())), StoreError::Running(_)));
    assert!(matches!(refused("a", Place::Before("x".into())), StoreError::NotQueued(_)));
}

#[test]
fn higher_priorities_run_first_and_moves_take_them_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let store = Store::open(&path).unwrap();
    for (id, priority) in [("a", 0), ("b", -1), ("c", 5), ("d", 0)] {
        store.enqueue(NewPrompt { priority, number: Number::Next, ..new(id, 0.0) }).unwrap();
    }
    assert_eq!(ids(&store).concat(), "cadb");
    let edited = store.edit_waiting("d".into(), Edit { priority: Some(6), graph: None }).unwrap();
    assert_eq!((edited.priority, edited.number), (6, 3.0));
    assert_eq!(ids(&store).concat(), "dcab");
    assert_eq!(store.move_waiting("b".into(), Place::After("c".into())).unwrap().priority, 5);
    assert_eq!(store.move_waiting("d".into(), Place::Back).unwrap().priority, 0);
    drop(store);
    assert_eq!(ids(&Store::open(&path).unwrap()).concat(), "cbad");
}

#[test]
fn a_paused_queue_starts_nothing_and_stays_paused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let store = Store::open(&path).unwrap();
    store.enqueue(new("a", 0.0)).unwrap();
    store.enqueue(new("b", 0.0)).unwrap();
    let running = store.take_next().unwrap().unwrap();
    store.pause(true).unwrap();
    store.finish(running.seq, done("a")).unwrap();
    assert!(store.take_next().unwrap().is_none());
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.queue_settings().unwrap(), (true, QueueOrder::Number));
    assert!(store.take_next().unwrap().is_none());
    store.pause(false).unwrap();
    assert_eq!(store.take_next().unwrap().unwrap().prompt_id, "b");
}

#[test]
fn waiting_prompts_are_edited_and_keep_their_place() {
    let store = Store::in_memory().unwrap();
    for id in ["a", "b", "c"] {
        store.enqueue(new(id, 0.0)).unwrap();
    }
    let graph = |extra_data| Graph { prompt: raw(json!({"2": 1})), outputs: vec!["2".into()], extra_data };
    let edit = |extra_data| Edit { priority: None, graph: Some(graph(extra_data)) };
    store.edit_waiting("b".into(), edit(None)).unwrap();
    assert_eq!(ids(&store).concat(), "abc");
    let item = store.queued("b").unwrap().unwrap();
    assert_eq!((item.prompt.get(), item.extra_data.get()), ("{\"2\":1}", "{}"));
    assert_eq!(item.outputs, ["2"]);
    store.edit_waiting("b".into(), edit(Some(raw(json!({"x": 1}))))).unwrap();
    assert_eq!(store.queued("b").unwrap().unwrap().extra_data.get(), "{\"x\":1}");
    store.take_next().unwrap();
    assert!(matches!(store.edit_waiting("a".into(), edit(None)), Err(StoreError::Running(_))));
    assert!(matches!(store.edit_waiting("x".into(), edit(None)), Err(StoreError::NotQueued(_))));
    assert!(matches!(store.remove_waiting("a".into()), Err(StoreError::Running(_))));
    store.remove_waiting("b".into()).unwrap();
    assert_eq!((ids(&store).concat(), store.remaining()), ("c".into(), 2));
    assert!(store.queued("b").unwrap().is_none());
}

#[test]
fn ids_that_are_taken_are_replaced() {
    let store = Store::in_memory().unwrap();
    store.enqueue(new("ended", 0.0)).unwrap();
    let item = store.take_next().unwrap().unwrap();
    store.finish(item.seq, done("ended")).unwrap();
    store.enqueue(new("waiting", 0.0)).unwrap();
    let prompts = ["ended", "waiting", "free", "free"].map(|id| new(id, 1.0)).to_vec();
    let id = || "new".to_owned();
    assert_eq!(store.enqueue_all(prompts, id).unwrap(), ["new", "new", "free", "new"]);
    assert_eq!(store.remaining(), 5);
}

fn of(client: &str, id: &str, number: f64) -> NewPrompt {
    let client_id = Some(client).filter(|client| !client.is_empty()).map(str::to_owned);
    NewPrompt { client_id, ..new(id, number) }
}

/// Takes and ends the next prompt.
fn run(store: &Store) -> Option<String> {
    let item = store.take_next().unwrap()?;
    store.finish(item.seq, done(&item.prompt_id)).unwrap();
    Some(item.prompt_id)
}

#[test]
fn clients_take_turns() {
    let store = Store::in_memory().unwrap();
    store.set_order(QueueOrder::Fair).unwrap();
    for i in 0..4 {
        store.enqueue(of("a", &format!("a{i}"), f64::from(i))).unwrap();
    }
    assert_eq!(run(&store).unwrap(), "a0");
    // Who comes later does not wait for all of these, and those without an id are one client.
    for (client, id, number) in [("b", "b0", 10.0), ("b", "b1", 11.0), ("", "x0", 12.0), ("", "x1", 13.0)] {
        store.enqueue(of(client, id, number)).unwrap();
    }
    let expected = ["b0", "x0", "a1", "b1", "x1", "a2", "a3"];
    assert_eq!(ids(&store), expected);
    for id in &expected[..3] {
        assert_eq!(run(&store).unwrap(), *id);
    }
    // A prompt that is put back has not had its turn.
    let taken = store.take_next().unwrap().unwrap();
    assert_eq!(taken.prompt_id, "b1");
    store.put_back(taken.seq).unwrap();
    store.put_back(taken.seq).unwrap();
    assert_eq!(ids(&store), ["b1", "x1", "a2", "a3"]);
    store.take_next().unwrap();
    store.recover(Recovery::RunAgain, |item| Ok(done(&item.prompt_id))).unwrap();
    assert_eq!(ids(&store), ["b1", "x1", "a2", "a3"]);
    // Priorities stand above turns.
    store.enqueue(NewPrompt { priority: 1, ..of("b", "b2", 20.0) }).unwrap();
    assert_eq!(ids(&store), ["b2", "x1", "a2", "b1", "a3"]);
    store.set_order(QueueOrder::Number).unwrap();
    assert_eq!(ids(&store), ["b2", "a2", "a3", "b1", "x1"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The list is made in one go, the next prompt is found through the index: both must tell the same.
    #[test]
    fn prompts_run_in_the_order_that_is_listed(
        prompts in prop::collection::vec((0..5u8, 0..3i32, 0..4u8), 1..40),
        before in 0..10usize,
        fair: bool,
    ) {
        let store = Store::in_memory().unwrap();
        store.set_order(if fair { QueueOrder::Fair } else { QueueOrder::Number }).unwrap();
        let mut clients: HashMap<String, String> = HashMap::new();
        for (index, (client, priority, number)) in prompts.iter().enumerate() {
            let client = if *client == 0 { String::new() } else { client.to_string() };
            let id = format!("{index:02}");
            store.enqueue(NewPrompt { priority: *priority, ..of(&client, &id, f64::from(*number)) }).unwrap();
            clients.insert(id, client);
        }
        for _ in 0..before {
            run(&store);
        }
        let QueueState { waiting, .. } = store.state().unwrap();
        let listed: Vec<String> = waiting.iter().map(|entry| entry.prompt_id.clone()).collect();
        prop_assert_eq!(&ids(&store), &listed);
        let ran: Vec<String> = std::iter::from_fn(|| run(&store)).collect();
        prop_assert_eq!(&ran, &listed);
        prop_assert!(waiting.windows(2).all(|pair| pair[0].priority >= pair[1].priority));
        if fair {
            // Nobody runs twice while another with something of that priority waits for a turn.
            for pair in waiting.windows(2) {
                let (first, second) = (&clients[&pair[0].prompt_id], &clients[&pair[1].prompt_id]);
                if first == second && pair[0].priority == pair[1].priority {
                    let at = listed.iter().position(|id| *id == pair[1].prompt_id).unwrap();
                    let others = waiting[at..].iter().filter(|entry| entry.priority == pair[1].priority);
                    prop_assert!(others.into_iter().all(|entry| &clients[&entry.prompt_id] == first));
                }
            }
        }
    }
}
