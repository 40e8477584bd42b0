//! `lattice serve`, asked as clients ask it.

mod client;
mod protocol;
mod transcripts;
