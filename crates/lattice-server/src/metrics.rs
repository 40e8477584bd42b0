//! What is counted and measured, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lattice_graph::Event;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::record::Ending;

/// Upper bounds of the histogram of how long prompts take, in seconds: from a prompt without a model to a long video.
const DURATIONS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
    7200.0,
];

type ByOutcome<M> = Family<[(&'static str, &'static str); 1], M, fn() -> M>;

type Number = Gauge<f64, AtomicU64>;

/// The counters, and how to write them.
pub(crate) struct Metrics {
    registry: Registry,
    started: Instant,
    prompts: ByOutcome<Counter>,
    durations: ByOutcome<Histogram>,
    nodes_executed: Counter,
    nodes_cached: Counter,
    gauges: Gauges,
}

/// What is looked up when somebody asks.
#[derive(Default)]
struct Gauges {
    waiting: Gauge,
    running: Gauge,
    paused: Gauge,
    sockets: Gauge,
    listeners: Gauge,
    resident: Number,
    uptime: Number,
}

/// How things are when somebody asks.
pub(crate) struct Now {
    /// Prompts that wait.
    pub(crate) waiting: usize,
    /// Prompts that run.
    pub(crate) running: usize,
    /// No prompt is started.
    pub(crate) paused: bool,
    /// Connected WebSocket clients.
    pub(crate) sockets: usize,
    /// Connected listeners to events.
    pub(crate) listeners: usize,
    /// Memory that the process holds, in bytes.
    pub(crate) resident: u64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            started: Instant::now(),
            prompts: Family::new_with_constructor(Counter::default),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            nodes_executed: Counter::default(),
            nodes_cached: Counter::default(),
            gauges: Gauges::default(),
        };
        for ending in Ending::ALL {
            // Counters that are not there before the first of their kind make rates that miss it.
            drop(metrics.prompts.get_or_create(&[("outcome", ending.name())]));
            drop(metrics.durations.get_or_create(&[("outcome", ending.name())]));
        }
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let gauges = &self.gauges;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let start = Number::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        start.set(now.as_secs_f64());
        registry.register("lattice_prompts", "Prompts that have ended, by outcome", self.prompts.clone());
        registry.register(
            "lattice_prompt_duration_seconds",
            "How long prompts ran, by outcome",
            self.durations.clone(),
        );
        registry.register("lattice_nodes_executed", "Nodes that were started", self.nodes_executed.clone());
        registry.register(
            "lattice_nodes_cached",
            "Nodes whose result was there when a prompt started",
            self.nodes_cached.clone(),
        );
        registry.register("lattice_queue_waiting", "Prompts that wait", gauges.waiting.clone());
        registry.register("lattice_queue_running", "Prompts that run", gauges.running.clone());
        registry.register("lattice_queue_paused", "1 while no prompt is started", gauges.paused.clone());
        registry.register("lattice_websocket_clients", "Connected WebSocket clients", gauges.sockets.clone());
        registry.register(
            "lattice_event_listeners",
            "Connected listeners to /events",
            gauges.listeners.clone(),
        );
        registry.register("lattice_uptime_seconds", "Time since the start", gauges.uptime.clone());
        registry.register("lattice_build", "The program", build);
        registry.register(
            "process_resident_memory_bytes",
            "Memory that the process holds, pages of mapped files among it",
            gauges.resident.clone(),
        );
        registry.register(
            "process_start_time_seconds",
            "When the process was started, since the epoch",
            start,
        );
    }

    /// A prompt has ended.
    pub(crate) fn ended(&self, ending: Ending, took: Duration) {
        let label = [("outcome", ending.name())];
        self.prompts.get_or_create(&label).inc();
        self.durations.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Something happened in a running prompt.
    pub(crate) fn event(&self, event: &Event) {
        match event {
            Event::Executing { .. } => {
                self.nodes_executed.inc();
            }
            Event::ExecutionCached { nodes } => {
                self.nodes_cached.inc_by(nodes.len() as u64);
            }
            _ => {}
        }
    }

    /// All of it, in Prometheus's text format.
    pub(crate) fn text(&self, now: &Now) -> Result<String, std::fmt::Error> {
        let gauges = &self.gauges;
        gauges.waiting.set(now.waiting as i64);
        gauges.running.set(now.running as i64);
        gauges.paused.set(i64::from(now.paused));
        gauges.sockets.set(now.sockets as i64);
        gauges.listeners.set(now.listeners as i64);
        gauges.resident.set(now.resident as f64);
        gauges.uptime.set(self.started.elapsed().as_secs_f64());
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
