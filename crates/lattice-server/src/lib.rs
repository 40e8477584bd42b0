//! HTTP and WebSocket server with a durable queue.

pub mod store;
