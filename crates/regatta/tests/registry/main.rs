//! Nodes and tools through a whole gateway in this process, on real sockets: both planes, joined as the binary joins
//! them, over a store in which the tests register nodes themselves.
//!
//! What needs other processes (a real store, nodes in other languages) is in tests/e2e.

mod hosted;
mod life;
mod lists;
mod sessions;
mod special;
