//! Memory that a store has taken: linear memory and tables, summed over all its instances.
//!
//! wasmtime asks before each growth and reports some of the failed ones. It does not report a growth that succeeded.

/// Most core instances, tables and memories of one store. A component of a common toolchain has five instances, one of
/// Python about 60 (each library of its interpreter is a module of its own).
pub(in crate::plugin) const MAX_INSTANCES: usize = 128;
pub(in crate::plugin) const MAX_TABLES: usize = 32;
pub(in crate::plugin) const MAX_MEMORIES: usize = 4;
/// Bytes that one table element counts in the memory of a store.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Failures of growths for which wasmtime never asked the limiter, because no memory or table could be so large.
/// Nothing was taken for them, so nothing is given back. wasmtime offers no other way to recognise them.
const NEVER_ASKED: [&str; 2] = ["memory growth exceeds memory type's limits", "overflow calculating new table size"];

/// Counts the memory that a store has taken, summed over all its memories and tables.
#[derive(Debug)]
pub(in crate::plugin) struct Memory {
    /// Most bytes, table elements included.
    cap: usize,
    /// Most table elements.
    most_elements: usize,
    used: MemoryUse,
    /// Granted last, and taken back if that growth fails: wasmtime does not report the size of a failed growth.
    pending: MemoryUse,
    refused: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct MemoryUse {
    bytes: usize,
    elements: usize,
}

impl Memory {
    /// At most `cap` bytes, and `most_elements` in tables.
    pub(in crate::plugin) fn new(cap: usize, most_elements: usize) -> Self {
        Self { cap, most_elements, used: MemoryUse::default(), pending: MemoryUse::default(), refused: false }
    }

    /// Bytes taken.
    pub(in crate::plugin) const fn used(&self) -> usize {
        self.used.bytes
    }

    /// True if the instance should be replaced before it reaches its cap: more than three quarters of it are taken.
    pub(in crate::plugin) const fn is_high(&self) -> bool {
        self.used.bytes > self.cap / 4 * 3
    }

    /// True if a growth was refused since the last call of this function.
    pub(in crate::plugin) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    fn grow(&mut self, more: MemoryUse, allowed: bool) -> bool {
        let sum = |a: usize, b: usize, most: usize| a.checked_add(b).filter(|sum| *sum <= most);
        let bytes = sum(self.used.bytes, more.bytes, self.cap);
        let elements = sum(self.used.elements, more.elements, self.most_elements);
        let (Some(bytes), Some(elements), true) = (bytes, elements, allowed) else {
            self.pending = MemoryUse::default();
            self.refused = true;
            return false;
        };
        self.used = MemoryUse { bytes, elements };
        self.pending = more;
        true
    }

    fn refund(&mut self, error: &wasmtime::Error) {
        self.refused = true;
        let pending = std::mem::take(&mut self.pending);
        // The pending growth may have succeeded, with its memory in use.
        if NEVER_ASKED.contains(&error.root_cause().to_string().as_str()) {
            return;
        }
        self.used.bytes -= pending.bytes;
        self.used.elements -= pending.elements;
    }
}

impl wasmtime::ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = MemoryUse { bytes: desired.saturating_sub(current), elements: 0 };
        Ok(self.grow(more, maximum.is_none_or(|most| desired <= most)))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refund(&error);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current);
        let more = MemoryUse { bytes: elements.saturating_mul(TABLE_ELEMENT_BYTES), elements };
        Ok(self.grow(more, maximum.is_none_or(|most| desired <= most)))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refund(&error);
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Engine, Module, ResourceLimiter, Store};

    use super::*;

    #[test]
    fn memory_is_the_sum_and_a_failed_growth_is_refunded() {
        let mut memory = Memory::new(100, 1_000);
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(!memory.memory_growing(0, 60, None).unwrap(), "60 + 60 is over the cap");
        assert!(memory.take_refused());
        assert!(memory.memory_growing(0, 40, None).unwrap());
        memory.memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert!(!memory.is_high());
        assert!(memory.table_growing(0, 5, None).unwrap(), "5 elements are 40 bytes, which the refund left free");
        assert!(memory.is_high());
        assert!(!memory.table_growing(5, 6, None).unwrap());
        memory.table_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert_eq!(memory.used.bytes, 100, "what was refused is not given back, nor is what was there before");
    }

    #[test]
    fn tables_have_a_bound_of_their_own() {
        let mut memory = Memory::new(usize::MAX, 10);
        assert!(memory.table_growing(0, 6, None).unwrap());
        assert!(!memory.table_growing(0, 5, None).unwrap(), "6 + 5 elements over two tables");
        assert!(memory.table_growing(0, 4, None).unwrap());
        memory.table_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert!(memory.table_growing(0, 4, None).unwrap(), "the failed growth was refunded");
        assert!(!memory.table_growing(0, 1, Some(0)).unwrap(), "beyond the table's own maximum");
    }

    /// Runs the limiter in wasmtime: it must count exactly the content of two memories and two tables, despite failed
    /// growths.
    #[test]
    fn counted_memory_equals_allocated_memory() {
        let text = r#"(module
            (memory $a (export "a") 1) (memory $b (export "b") 1 4)
            (table $t (export "t") 10 funcref) (table $big (export "big") i64 0 externref)
            (func (export "run") (param i32) (result i32)
                (drop (memory.grow $a (i32.const 2)))
                ;; None of these can be: more than a memory may have, than this one may, than a table can count.
                (drop (memory.grow $a (i32.const 65535)))
                (drop (memory.grow $b (i32.const 4)))
                (drop (table.grow $t (ref.null func) (i32.const 5)))
                (drop (table.grow $big (ref.null extern) (i64.const -1)))
                (drop (table.grow $big (ref.null extern) (i64.const 3)))
                (drop (table.grow $big (ref.null extern) (i64.const -1)))
                (memory.grow $b (local.get 0))))"#;
        let engine = Engine::new(Config::new().concurrency_support(false)).unwrap();
        let module = Module::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let mut store = Store::new(&engine, Memory::new(1 << 20, 100));
        store.limiter(|memory| memory);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let run = instance.get_typed_func::<i32, i32>(&mut store, "run").unwrap();
        for _ in 0..3 {
            run.call(&mut store, 1).unwrap();
        }
        let pages = ["a", "b"].map(|name| instance.get_memory(&mut store, name).unwrap().data_size(&store));
        let elements = ["t", "big"].map(|name| instance.get_table(&mut store, name).unwrap().size(&store));
        let elements = usize::try_from(elements.iter().sum::<u64>()).unwrap();
        assert_eq!(pages, [7 << 16, 4 << 16]);
        assert_eq!(elements, 10 + 3 * 8);
        let counted = store.data().used;
        assert_eq!(
            counted,
            MemoryUse { bytes: pages.iter().sum::<usize>() + elements * TABLE_ELEMENT_BYTES, elements }
        );
        assert!(store.data_mut().take_refused());
    }
}
