//! The instruments of Regatta: they measure a gateway (or anything else that speaks MCP) by its public
//! surfaces, as a client sees it.
//!
//! They import no plane of ours, so that a figure cannot depend on how the gateway is built inside.

pub mod load;
pub mod wire;
