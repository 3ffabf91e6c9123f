//! Tollgate: lab.
