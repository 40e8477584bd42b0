//! Tests of the server.

mod control;
mod store;
