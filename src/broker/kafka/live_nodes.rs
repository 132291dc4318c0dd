//! Living nodes as the roster knows them, for the bus, which has no directory of its own.

use std::collections::HashSet;

use parking_lot::RwLock;

use crate::id::NodeId;

/// Living nodes, this one included. Empty while unknown.
#[derive(Debug, Default)]
pub struct LiveNodes(RwLock<HashSet<NodeId>>);

impl LiveNodes {
    pub(super) fn set(&self, living: HashSet<NodeId>) {
        *self.0.write() = living;
    }

    /// Returns the number of living nodes, or `None` if unknown.
    pub(super) fn count(&self) -> Option<usize> {
        Some(self.0.read().len()).filter(|count| *count > 0)
    }

    /// Returns those of `nodes` that are not alive, as far as known.
    pub(super) fn unknown_of(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let living = self.0.read();
        let is_unknown = |node: &&NodeId| !living.is_empty() && !living.contains(*node);
        nodes.iter().filter(is_unknown).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_unknown_before_somebody_is_known() {
        let live_nodes = LiveNodes::default();
        let [a, b] = ["a", "b"].map(|name| NodeId::parse(name).unwrap());
        assert_eq!((live_nodes.count(), live_nodes.unknown_of(std::slice::from_ref(&a))), (None, vec![]));
        live_nodes.set([a.clone()].into());
        assert_eq!((live_nodes.count(), live_nodes.unknown_of(&[a, b.clone()])), (Some(1), vec![b]));
    }
}
