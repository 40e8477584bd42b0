//! Tests of the server.

mod store;
