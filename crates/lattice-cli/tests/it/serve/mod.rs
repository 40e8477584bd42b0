//! `lattice serve`, asked as clients ask it.

mod client;
mod control;
mod crash;
mod events;
mod examples;
mod hostile;
mod images;
mod load;
mod operation;
mod pattern;
mod prompts;
mod protocol;
mod script;
mod security;
mod sockets;
mod transcripts;
