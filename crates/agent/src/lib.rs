//! Tollgate: agent.
