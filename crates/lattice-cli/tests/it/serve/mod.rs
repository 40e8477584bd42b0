//! `lattice serve`, asked as clients ask it.

mod client;
mod crash;
mod examples;
mod hostile;
mod images;
mod load;
mod pattern;
mod protocol;
mod script;
mod security;
mod sockets;
mod transcripts;
