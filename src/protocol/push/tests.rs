//! Each body, and each way in which it can be wrong.
