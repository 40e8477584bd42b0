//! `lattice serve`, asked as clients ask it.

mod client;
mod crash;
mod examples;
mod hostile;
mod pattern;
mod protocol;
mod script;
mod security;
mod transcripts;
