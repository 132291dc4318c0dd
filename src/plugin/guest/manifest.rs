//! The operator's decisions for one plugin, as the host applies them.

pub(in crate::plugin) mod matching;
pub(in crate::plugin) mod share;
