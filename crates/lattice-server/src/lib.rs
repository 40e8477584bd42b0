//! HTTP and WebSocket server with a durable queue.
