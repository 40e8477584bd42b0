//! Shows what a running prompt does: bars on a terminal, plain lines otherwise, or JSON for programs.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Instant;

use base64::Engine;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lattice_graph::Event;
use serde_json::{Value as Json, json};

/// How to show progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A bar for the nodes and one for the steps of the running node.
    Bars,
    /// A line per node.
    Lines,
    /// A JSON object per event on standard output.
    Json,
    /// Nothing.
    Quiet,
}

impl Style {
    /// JSON if asked for, else what standard error can show.
    pub(crate) fn choose(json: bool, quiet: bool) -> Self {
        match (json, quiet) {
            (true, _) => Self::Json,
            (_, true) => Self::Quiet,
            _ if std::io::stderr().is_terminal() => Self::Bars,
            _ => Self::Lines,
        }
    }
}

/// Receives the events of one prompt.
pub(crate) struct Reporter {
    style: Style,
    /// Node id to title.
    titles: HashMap<String, String>,
    state: Mutex<State>,
}

struct State {
    bars: Option<(MultiProgress, ProgressBar)>,
    steps: Option<ProgressBar>,
    running: Option<(String, Instant)>,
}

impl Reporter {
    /// For a prompt in API format.
    pub(crate) fn new(style: Style, prompt: &Json) -> Self {
        let title = |n: &Json| {
            let own = n["_meta"]["title"].as_str().filter(|t| !t.is_empty());
            own.or_else(|| n["class_type"].as_str()).unwrap_or("?").to_owned()
        };
        let titles: HashMap<_, _> =
            prompt.as_object().into_iter().flatten().map(|(id, n)| (id.clone(), title(n))).collect();
        let bars = (style == Style::Bars).then(|| {
            let all = MultiProgress::new();
            let nodes = all.add(ProgressBar::new(titles.len() as u64));
            nodes.set_style(style_of("{prefix:>24.bold} [{bar:30}] {pos}/{len} nodes  {elapsed}"));
            nodes.tick();
            (all, nodes)
        });
        Self { style, titles, state: Mutex::new(State { bars, steps: None, running: None }) }
    }

    fn title<'a>(&'a self, id: &'a str) -> &'a str {
        self.titles.get(id).map_or(id, String::as_str)
    }

    /// Shows one event.
    pub(crate) fn event(&self, event: &Event) {
        match self.style {
            Style::Json => print_json(event),
            Style::Quiet => {}
            Style::Bars | Style::Lines => {
                if let Ok(mut state) = self.state.lock() {
                    self.show(&mut state, event);
                }
            }
        }
    }

    fn show(&self, state: &mut State, event: &Event) {
        match event {
            Event::ExecutionCached { nodes } => {
                if let Some((_, bar)) = &state.bars {
                    bar.inc(nodes.len() as u64);
                }
            }
            Event::Executing { display_node, .. } => {
                self.finish_node(state);
                state.running = Some((display_node.clone(), Instant::now()));
                if let Some((_, bar)) = &state.bars {
                    bar.set_prefix(self.title(display_node).to_owned());
                }
            }
            Event::Progress { entry, .. } => {
                let Some((all, _)) = &state.bars else { return };
                let bar = state.steps.get_or_insert_with(|| {
                    let bar = all.add(ProgressBar::new(entry.max as u64));
                    bar.set_style(style_of(
                        "{prefix:>24} [{bar:30}] {pos}/{len} steps  {per_sec}  {eta} left",
                    ));
                    bar
                });
                bar.set_length(entry.max as u64);
                bar.set_position(entry.value as u64);
            }
            Event::ExecutionSuccess | Event::ExecutionError(_) | Event::ExecutionInterrupted { .. } => {
                self.finish_node(state);
                if let Some((all, bar)) = state.bars.take() {
                    bar.finish_and_clear();
                    let _ = all.clear();
                }
            }
            _ => {}
        }
    }

    fn finish_node(&self, state: &mut State) {
        if let Some(bar) = state.steps.take() {
            bar.finish_and_clear();
        }
        let Some((id, since)) = state.running.take() else { return };
        match &state.bars {
            Some((_, bar)) => bar.inc(1),
            None => eprintln!("{:>8.2} s  {}", since.elapsed().as_secs_f64(), self.title(&id)),
        }
    }
}

fn style_of(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// One line per event, in the field names of the WebSocket messages.
fn print_json(event: &Event) {
    let line = match event {
        // Progress states repeat what the other lines say.
        Event::ProgressState(_) => return,
        Event::Text { node, text } => json!({"event": "text", "node": node, "text": text}),
        event => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let Some((kind, mut data)) = event.message("", now.as_millis() as i64) else { return };
            if let Some(fields) = data.as_object_mut() {
                fields.shift_remove("prompt_id");
                fields.shift_insert(0, "event".to_owned(), kind.into());
                if let Event::Progress { preview: Some(picture), .. } = event {
                    let data = base64::engine::general_purpose::STANDARD.encode(&picture.data);
                    fields.insert("preview".to_owned(), json!({"mime": picture.mime, "data": data}));
                }
            }
            data
        }
    };
    // A reader that has gone away is no reason to stop the prompt.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
