//! A path for the terminal.
