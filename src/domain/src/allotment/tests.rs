//! Tests of an edge's side, alone and with the pool behind a bad network.

mod walk;
mod world;
