//! Keeping repairs after a restart of the machine or of an endpoint.
