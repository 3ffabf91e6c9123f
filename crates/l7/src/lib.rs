//! Tollgate: l7.
