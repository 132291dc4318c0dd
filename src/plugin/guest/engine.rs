//! The wasmtime engine of the process.
//!
//! Knows nothing about plugins. The allocation strategy is per engine: pooling if the machine grants the address space,
//! on demand for everything if it does not.

use wasmtime::{Config, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::limits::{MAX_INSTANCES, MAX_MEMORIES, MAX_TABLES};
use crate::config::PluginCaps;
use crate::telemetry::names;

/// Stack of a guest, bytes.
const WASM_STACK: usize = 512 << 10;
/// Stack of a call in bytes: the guest's, plus the part that the host needs to serve it.
const ASYNC_STACK: usize = 1 << 20;

/// Makes the engine, with a pool for `instances` plugin instances if the machine allows it.
///
/// # Errors
/// The error of wasmtime if it cannot make an engine without a pool either.
pub(in crate::plugin) fn build(instances: u32, caps: &PluginCaps) -> wasmtime::Result<Engine> {
    let pooled = with_pool(instances, caps);
    metrics::gauge!(names::PLUGIN_POOL).set(if pooled.is_ok() { 1.0 } else { 0.0 });
    pooled.or_else(|error| {
        tracing::warn!(
            error = format!("{error:#}"),
            "pool for plugin instances cannot be created: instances are allocated on demand"
        );
        Engine::new(&config())
    })
}

fn with_pool(instances: u32, caps: &PluginCaps) -> wasmtime::Result<Engine> {
    let mut pooled = config();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances, caps)));
    Engine::new(&pooled)
}

/// An engine without a pool. The engine of [`build`] can run its code.
///
/// # Errors
/// The error of wasmtime.
pub(in crate::plugin) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// An engine that counts executed instructions: each one takes about one unit of fuel from the store.
#[cfg(test)]
pub(in crate::plugin) fn counting() -> wasmtime::Result<Engine> {
    let mut counting = config();
    counting.consume_fuel(true);
    Engine::new(&counting)
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Plugins compile one at a time on one thread, which leaves the other cores to traffic.
        .parallel_compilation(false);
    config
}

/// Room for every instance that may live, with the largest number of parts that each may have. No plugin can take the
/// room of another one. Unused room costs only address space.
fn pool(instances: u32, caps: &PluginCaps) -> PoolingAllocationConfig {
    let each = |most: usize| instances.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(each(MAX_INSTANCES))
        .total_memories(each(MAX_MEMORIES))
        .total_tables(each(MAX_TABLES))
        .total_stacks(instances)
        .total_gc_heaps(instances)
        .max_core_instances_per_component(u32::try_from(MAX_INSTANCES).unwrap_or(u32::MAX))
        .max_memory_size(caps.memory)
        .max_memories_per_module(u32::try_from(MAX_MEMORIES).unwrap_or(u32::MAX))
        .max_tables_per_module(u32::try_from(MAX_TABLES).unwrap_or(u32::MAX))
        .table_elements(caps.tables)
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(4 << 10);
    pool
}

/// Weak reference for the ticker, which must not keep the engine alive.
pub(in crate::plugin) fn weak(engine: &Engine) -> EngineWeak {
    engine.weak()
}

#[cfg(test)]
mod tests {
    use wasmtime::{Instance, Module, Store};

    use super::*;

    /// Both kinds of engine run guests. The one without a pool is used if the machine has no room for a pool.
    #[test]
    fn engine_without_room_for_a_pool_allocates_on_demand() {
        let caps = PluginCaps::default();
        let too_many = 1_000_000;
        assert!(with_pool(too_many, &caps).is_err(), "no machine has so many addresses");
        for engine in [with_pool(1, &caps).unwrap(), build(too_many, &caps).unwrap()] {
            let module = Module::new(&engine, wat::parse_str("(module (memory 1))").unwrap()).unwrap();
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(1);
            Instance::new(&mut store, &module, &[]).unwrap();
        }
    }
}
