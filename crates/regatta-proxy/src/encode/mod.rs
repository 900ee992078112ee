//! The last stage: what the client gets. Faults become answers here and nowhere else; upstream answers pass
//! unchanged but for the closed list of splices of DESIGN 3.

pub(crate) mod answer;
pub(crate) mod batch;
pub(crate) mod challenge;
pub(crate) mod fault;
pub(crate) mod head;
pub(crate) mod quota;
pub(crate) mod relay;
