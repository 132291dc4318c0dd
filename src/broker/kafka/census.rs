//! Which nodes live, as the roster knows it: told to the bus, which has no directory of its own.

use std::collections::HashSet;

use parking_lot::RwLock;

use crate::id::NodeId;

/// The living nodes, this one included. Empty as long as nobody knows.
#[derive(Debug, Default)]
pub struct Census(RwLock<HashSet<NodeId>>);

impl Census {
    pub(super) fn set(&self, living: HashSet<NodeId>) {
        *self.0.write() = living;
    }

    /// How many there are, where that is known.
    pub(super) fn count(&self) -> Option<usize> {
        Some(self.0.read().len()).filter(|count| *count > 0)
    }

    /// Those of `nodes` that do not live, as far as that is known.
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
        let census = Census::default();
        let [a, b] = ["a", "b"].map(|name| NodeId::parse(name).unwrap());
        assert_eq!((census.count(), census.unknown_of(std::slice::from_ref(&a))), (None, vec![]));
        census.set([a.clone()].into());
        assert_eq!((census.count(), census.unknown_of(&[a, b.clone()])), (Some(1), vec![b]));
    }
}
