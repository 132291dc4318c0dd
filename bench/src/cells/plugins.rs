//! Cells about plugins: calls, filters, languages, and reloads.

pub(crate) mod calls;
pub(crate) mod filters;
pub(crate) mod guests;
pub(crate) mod live;
