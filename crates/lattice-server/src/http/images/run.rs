//! A request from the queue to its pictures.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::ws;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use super::answer::{self, Made, Message, Place};
use super::request::Request;
use super::{ApiError, Result, blocking};
use crate::app::App;
use crate::http::prompt::prepare;
use crate::http::reply::{Failure, Reply};
use crate::hub::{self, Client, Features, Next};
use crate::store::{NewPrompt, Number, Stage};
use crate::template::{Template, Templates};

/// How often it is looked whether somebody has dropped the prompt from the queue.
const LOOK: Duration = Duration::from_secs(2);

/// Pause between tries to end a prompt that nobody waits for any more.
const CANCEL_PAUSE: Duration = Duration::from_millis(20);

/// How often a prompt is run at most because files that it has made are gone.
const RUNS: usize = 3;

/// Messages that wait for a client of a stream.
const STREAMED: usize = 4;

/// A queued request.
pub(super) struct Run {
    app: Arc<App>,
    request: Request,
    listener: Listener,
    ticket: Arc<Ticket>,
}

/// A prompt that ends when nobody waits for it any more.
struct Ticket {
    app: Arc<App>,
    prompt_id: String,
    ended: AtomicBool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed) {
            let (app, prompt_id) = (self.app.clone(), std::mem::take(&mut self.prompt_id));
            // There is none when the server has ended.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn_blocking(move || cancel(&app, &prompt_id));
            }
        }
    }
}

/// Drops a prompt that waits, and interrupts one that runs. A prompt may be between the two, so it is tried until the
/// prompt has ended.
fn cancel(app: &App, prompt_id: &str) {
    tracing::info!("prompt {prompt_id} is cancelled: its client has gone");
    loop {
        let done = match app.store.stage(prompt_id) {
            Ok(Stage::Waiting) => app.store.drop_waiting(vec![prompt_id.to_owned()]).map(|gone| gone > 0),
            // An engine that stops puts it back.
            Ok(Stage::Running) if app.stopping.load(Ordering::Relaxed) => Ok(true),
            Ok(Stage::Running) => {
                app.engine.interrupt(Some(prompt_id));
                Ok(false)
            }
            Ok(Stage::Elsewhere) => Ok(true),
            Err(e) => Err(e),
        };
        match done {
            Ok(false) => std::thread::sleep(CANCEL_PAUSE),
            Ok(true) => return,
            Err(e) => return tracing::error!("cannot cancel prompt {prompt_id}: {e}"),
        }
    }
}

/// What happens to a prompt.
enum Step {
    Progress { value: f64, max: f64 },
    Picture(Vec<u8>),
    Ended,
}

/// Hears what the clients of a prompt are told.
struct Listener {
    app: Arc<App>,
    client: Arc<Client>,
    prompt_id: String,
    looked: Instant,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.app.hub.disconnect(&self.client);
    }
}

impl Listener {
    /// The next step.
    async fn next(&mut self) -> Result<Step> {
        loop {
            let step = match tokio::time::timeout(LOOK, self.client.outbox.next()).await {
                Ok(Next::Message(message)) => step(&message, &self.prompt_id),
                Ok(Next::Close) => return Err(ApiError::stopping()),
                Ok(Next::Resync) | Err(_) => None,
            };
            if let Some(step) = step {
                return Ok(step);
            }
            if self.looked.elapsed() >= LOOK {
                self.still_there().await?;
                self.looked = Instant::now();
            }
        }
    }

    /// Fails if the prompt is neither in the queue nor in the history.
    async fn still_there(&self) -> Result<()> {
        let (app, prompt_id) = (self.app.clone(), self.prompt_id.clone());
        blocking(move || {
            // The queue is looked at first: what ends in between is in the history then.
            let gone = matches!(app.store.stage(&prompt_id)?, Stage::Elsewhere)
                && app.store.history_entry(&prompt_id)?.is_none();
            if gone {
                Err(ApiError::failed("The request was dropped from the queue.").coded("dropped"))
            } else {
                Ok(())
            }
        })
        .await
    }
}

/// What a message tells of a prompt. Pictures and progress of prompts without a client come to all.
fn step(message: &ws::Message, prompt_id: &str) -> Option<Step> {
    let text = match message {
        ws::Message::Binary(bytes) => {
            let (metadata, picture) = hub::read_preview(bytes)?;
            return (metadata["prompt_id"] == prompt_id).then(|| Step::Picture(picture.to_vec()));
        }
        ws::Message::Text(text) => text,
        _ => return None,
    };
    let message: Json = serde_json::from_str(text).ok()?;
    let data = &message["data"];
    if data["prompt_id"] != prompt_id {
        return None;
    }
    match message["type"].as_str()? {
        "progress" => Some(Step::Progress { value: data["value"].as_f64()?, max: data["max"].as_f64()? }),
        "executing" if data["node"].is_null() => Some(Step::Ended),
        _ => None,
    }
}

impl Run {
    /// Queues a request.
    pub(super) async fn start(
        app: Arc<App>,
        request: Request,
        templates: impl FnOnce(&App) -> Result<Templates> + Send + 'static,
    ) -> Result<Self> {
        if app.stopping.load(Ordering::Relaxed) {
            return Err(ApiError::stopping());
        }
        let prompt_id = uuid::Uuid::new_v4().to_string();
        let client_id = format!("images-{prompt_id}");
        let client = app.hub.connect(client_id.clone(), || None);
        client.set_features(Features { preview_metadata: true });
        let listener =
            Listener { app: app.clone(), client, prompt_id: prompt_id.clone(), looked: Instant::now() };
        let ticket = Arc::new(Ticket { app: app.clone(), prompt_id, ended: AtomicBool::new(true) });
        let queued = {
            let (app, request, ticket) = (app.clone(), request.clone(), ticket.clone());
            move || {
                let mut template = templates(&app)?.get(&request.model)?;
                request.fill(&mut template)?;
                let mut body = json!({
                    "prompt": template.clone().into_prompt(),
                    "prompt_id": ticket.prompt_id,
                    "client_id": client_id,
                });
                if request.partial_images > 0 {
                    body["extra_data"] = json!({ "preview_method": "auto" });
                }
                let prepared = prepare(&app, &mut body, Number::Next);
                let (new, node_errors) = prepared.map_err(|failure| explain(failure, &template))?;
                if node_errors.as_object().is_some_and(|errors| !errors.is_empty()) {
                    return Err(invalid(&node_errors, &template));
                }
                // From here on the prompt is to be cancelled if the client goes, which it may do before it is queued:
                // then the ticket is dropped when this ends.
                ticket.ended.store(false, Ordering::Relaxed);
                app.store.enqueue(new)?;
                Ok(())
            }
        };
        blocking(queued).await?;
        Ok(Self { app, request, listener, ticket })
    }

    /// All pictures at once.
    pub(super) async fn whole(mut self, place: &Place) -> Result<Reply> {
        self.end().await?;
        let made = self.pictures().await?;
        let Self { app, request, ticket, .. } = self;
        let place = place.clone();
        blocking(move || answer::whole(&app, &request, &ticket.prompt_id, &made, &place))
            .await
            .map(|a| Reply::json(&a))
    }

    /// Pictures as they come.
    pub(super) fn stream(self) -> Response {
        let (sender, receiver) = mpsc::channel(STREAMED);
        tokio::spawn(async move {
            let gone = sender.clone();
            tokio::select! {
                () = self.tell(sender) => {}
                // Dropping the run cancels the prompt.
                () = gone.closed() => {}
            }
        });
        let events = stream::unfold(receiver, |mut receiver| async {
            let Message { event, data } = receiver.recv().await?;
            let event = Event::default().event(event).data(data.to_string());
            Some((Ok::<_, Infallible>(event), receiver))
        });
        Sse::new(events).keep_alive(KeepAlive::default()).into_response()
    }

    async fn tell(mut self, sender: mpsc::Sender<Message>) {
        if let Err(error) = self.tell_all(&sender).await {
            // The client may have gone.
            let _ = sender.send(answer::failed(&error)).await;
        }
    }

    async fn tell_all(&mut self, sender: &mpsc::Sender<Message>) -> Result<()> {
        let mut partial = Partial { wanted: self.request.partial_images, ..Partial::default() };
        loop {
            match self.listener.next().await? {
                Step::Ended => break,
                Step::Progress { value, max } => partial.reached(value, max),
                Step::Picture(file) => {
                    let Some(index) = partial.next() else { continue };
                    let request = self.request.clone();
                    let message = blocking(move || answer::partial(&request, index, file)).await?;
                    if sender.send(message).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        for made in self.pictures().await? {
            let (app, request) = (self.app.clone(), self.request.clone());
            let ticket = self.ticket.clone();
            let message =
                blocking(move || answer::completed(&app, &request, &ticket.prompt_id, &made)).await?;
            if sender.send(message).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for the end of the prompt.
    async fn end(&mut self) -> Result<()> {
        while !matches!(self.listener.next().await?, Step::Ended) {}
        Ok(())
    }

    /// The pictures of the prompt, which has ended. A prompt that was run before has its results from then, whose files
    /// somebody may have removed: then it is run again.
    async fn pictures(&mut self) -> Result<Vec<Made>> {
        for _ in 0..RUNS {
            let made = self.made().await?;
            let (app, files) = (self.app.clone(), made.clone());
            if blocking(move || Ok(files.iter().all(|made| made.is_there(&app)))).await? {
                return Ok(made);
            }
            tracing::info!("prompt {} is run again: files it has made are gone", self.ticket.prompt_id);
            self.again().await?;
            self.end().await?;
        }
        Err(ApiError::failed("The pictures were removed before they were sent.").coded("removed"))
    }

    /// Queues the prompt, which has ended, under another id, to be run without results of former runs.
    async fn again(&mut self) -> Result<()> {
        let (app, former) = (self.app.clone(), self.ticket.prompt_id.clone());
        let prompt_id = uuid::Uuid::new_v4().to_string();
        let ticket = Ticket { app: app.clone(), prompt_id: prompt_id.clone(), ended: AtomicBool::new(false) };
        self.listener.prompt_id.clone_from(&prompt_id);
        self.ticket = Arc::new(ticket);
        let (client_id, ticket) = (self.listener.client.id.clone(), self.ticket.clone());
        blocking(move || {
            // The client may go meanwhile; then the ticket is dropped after the prompt is queued.
            let _ticket = ticket;
            let entry = app.store.history_entry(&former)?.ok_or_else(removed)?;
            let (_, _, prompt, extra_data, outputs) = queued(entry.get()).map_err(ApiError::internal)?;
            app.engine.free(false, true);
            let (number, client_id) = (Number::Next, Some(client_id));
            app.store.enqueue(NewPrompt {
                prompt_id,
                number,
                priority: 0,
                client_id,
                prompt,
                extra_data,
                outputs,
            })?;
            Ok(())
        })
        .await
    }

    /// The pictures of the history entry of the prompt, which has ended.
    async fn made(&self) -> Result<Vec<Made>> {
        let ticket = self.ticket.clone();
        blocking(move || {
            let entry = ticket.app.store.history_entry(&ticket.prompt_id)?;
            ticket.ended.store(true, Ordering::Relaxed);
            let entry = entry.ok_or_else(removed)?;
            let entry: Json = serde_json::from_str(entry.get()).map_err(ApiError::internal)?;
            if entry["status"]["completed"] != true {
                return Err(failure(&entry));
            }
            let made = Made::all(&entry);
            if made.is_empty() { Err(ApiError::failed("The workflow made no picture.")) } else { Ok(made) }
        })
        .await
    }
}

fn removed() -> ApiError {
    ApiError::failed("The result was removed before it was sent.").coded("removed")
}

/// The item of the queue in a history entry.
fn queued(entry: &str) -> serde_json::Result<QueuedItem> {
    #[derive(Deserialize)]
    struct Entry {
        prompt: QueuedItem,
    }
    serde_json::from_str(entry).map(|Entry { prompt }| prompt)
}

/// Number, id, graph, extra data and output nodes.
type QueuedItem = (f64, String, Box<RawValue>, Box<RawValue>, Vec<String>);

/// Which of the pictures on the way are sent: they are spread evenly over the steps.
#[derive(Clone, Copy, Debug, Default)]
struct Partial {
    wanted: u64,
    sent: u64,
    /// How much is done, from 0 to 1.
    share: f64,
}

impl Partial {
    fn reached(&mut self, value: f64, max: f64) {
        self.share = if max > 0.0 { value / max } else { 0.0 };
    }

    /// The index of the picture that has come now, if it is to be sent. The last one is the result and comes whole.
    fn next(&mut self) -> Option<u64> {
        let due = (self.sent + 1) as f64 / (self.wanted + 1) as f64;
        let send = self.sent < self.wanted && self.share >= due && self.share < 1.0;
        self.sent += u64::from(send);
        send.then(|| self.sent - 1)
    }
}

/// Why a prompt failed, from its history entry.
fn failure(entry: &Json) -> ApiError {
    let mut messages = entry["status"]["messages"].as_array().into_iter().flatten();
    let error = messages.rfind(|message| message[0] == "execution_error");
    match error.and_then(|error| error[1]["exception_message"].as_str()) {
        Some(reason) => ApiError::failed(reason.trim_end()),
        None => ApiError::failed("The request was interrupted.").coded("interrupted"),
    }
}

/// Why a prompt was refused, in words of the request.
fn explain(failure: Failure, template: &Template) -> ApiError {
    match &failure {
        Failure::Json(_, document) if document["node_errors"].as_object().is_some_and(|e| !e.is_empty()) => {
            invalid(&document["node_errors"], template)
        }
        _ => {
            let message =
                ApiError::from(failure).document()["message"].as_str().unwrap_or_default().to_owned();
            ApiError::failed(message).coded("broken_template")
        }
    }
}

fn invalid(node_errors: &Json, template: &Template) -> ApiError {
    let nodes = node_errors.as_object().into_iter().flatten();
    let mut errors = nodes.flat_map(|(node, entry)| {
        entry["errors"].as_array().into_iter().flatten().map(move |error| (node, error))
    });
    let Some((node, error)) = errors.next() else { return ApiError::failed("The workflow is not valid.") };
    let (message, details) = (error["message"].as_str(), error["details"].as_str());
    let message =
        [message, details].into_iter().flatten().filter(|text| !text.is_empty()).collect::<Vec<_>>();
    let input = error["extra_info"]["input_name"].as_str().unwrap_or_default();
    match template.field_of(node, input) {
        Some("width" | "height") => ApiError::refused(message.join(": "), Some("size")),
        Some(field) => ApiError::refused(message.join(": "), Some(field)),
        // The request is not to blame for the rest of the workflow.
        None => ApiError::failed(format!("node {node}: {}", message.join(": "))).coded("broken_template"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_on_the_way_are_spread_over_the_steps() {
        let sent = |steps: u64, wanted: u64| {
            let mut partial = Partial { wanted, ..Partial::default() };
            let of_step = |step: u64| {
                partial.reached(step as f64, steps as f64);
                partial.next().map(|index| (step, index))
            };
            (1..=steps).filter_map(of_step).collect::<Vec<_>>()
        };
        assert_eq!(sent(20, 3), [(5, 0), (10, 1), (15, 2)]);
        assert_eq!(sent(20, 1), [(10, 0)]);
        assert_eq!(sent(4, 3), [(1, 0), (2, 1), (3, 2)]);
        assert_eq!(sent(2, 3), [(1, 0)]);
        assert!(sent(1, 3).is_empty());
        assert!(sent(20, 0).is_empty());
    }

    #[test]
    fn messages_become_steps() {
        let text = |json: Json| ws::Message::Text(json.to_string().into());
        let of = |kind: &str, data: Json| step(&text(json!({"type": kind, "data": data})), "p");
        let progress = of("progress", json!({"value": 1, "max": 2, "prompt_id": "p", "node": "1"}));
        assert!(matches!(progress, Some(Step::Progress { value: 1.0, max: 2.0 })));
        assert!(of("progress", json!({"value": 1, "max": 2, "prompt_id": "q"})).is_none());
        assert!(matches!(of("executing", json!({"node": null, "prompt_id": "p"})), Some(Step::Ended)));
        assert!(of("executing", json!({"node": "1", "prompt_id": "p"})).is_none());
        assert!(of("status", json!({})).is_none());
        let picture = [&[0, 0, 0, 4, 0, 0, 0, 17][..], br#"{"prompt_id":"p"}"#, &[0xff]].concat();
        let picture = ws::Message::Binary(picture.into());
        assert!(matches!(step(&picture, "p"), Some(Step::Picture(file)) if file == [0xff]));
        assert!(step(&picture, "q").is_none());
    }
}
