//! What was written, read back by prost.
