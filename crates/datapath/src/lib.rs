//! Tollgate: datapath.
