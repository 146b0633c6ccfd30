//! Sections Memory and Persistence.

use std::sync::atomic::Ordering;

use super::{Lines, human, ratio};
use crate::clock;
use crate::command::Ctx;
use crate::process;

pub(super) fn memory(ctx: &mut Ctx<'_, '_>, lines: &mut Lines) {
    let server = ctx.server;
    let memory = process::memory();
    let used = memory.allocated;
    let peak = server.memory_peak.fetch_max(used, Ordering::Relaxed).max(used);
    let startup = server.memory_startup.load(Ordering::Relaxed).min(used);
    let log = server.shared.log.lock().bytes();
    let clients: usize = server
        .clients
        .all()
        .iter()
        .map(|c| {
            let buffers =
                c.query_buffer_len.load(Ordering::Relaxed) + c.output_buffer_len.load(Ordering::Relaxed);
            size_of_val(&**c) + buffers
        })
        .sum();
    let overhead = (startup + log + clients).min(used);
    let dataset = used - overhead;
    let maxmemory: usize = server.with_config(|c| c.text("maxmemory").parse().unwrap_or(0));
    let policy = server.with_config(|c| c.text("maxmemory-policy").to_owned());
    let with_human = |lines: &mut Lines, name: &str, bytes: usize| {
        lines.field(name, bytes);
        lines.field(&format!("{name}_human"), human(bytes));
    };
    with_human(lines, "used_memory", used);
    with_human(lines, "used_memory_rss", memory.rss);
    with_human(lines, "used_memory_peak", peak);
    let percent = |part: usize, whole: usize| format!("{}%", percent(part, whole));
    lines.fields(&[
        ("used_memory_peak_perc", &percent(used, peak)),
        ("used_memory_overhead", &overhead),
        ("used_memory_startup", &startup),
        ("used_memory_dataset", &dataset),
        ("used_memory_dataset_perc", &percent(dataset, used - startup)),
        ("allocator_allocated", &memory.allocated),
        ("allocator_active", &memory.active),
        ("allocator_resident", &memory.resident),
        ("allocator_muzzy", &0),
    ]);
    with_human(lines, "total_system_memory", memory.total_system);
    lines.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    lines.field("used_memory_lua_human", human(0));
    lines.zeros(&[
        "used_memory_scripts_eval",
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
        "used_memory_vm_functions",
    ]);
    with_human(lines, "used_memory_vm_total", 0);
    lines.field("used_memory_functions", 0);
    with_human(lines, "used_memory_scripts", 0);
    with_human(lines, "maxmemory", maxmemory);
    let difference = |a: usize, b: usize| a.abs_diff(b);
    lines.fields(&[
        ("maxmemory_policy", &policy),
        ("allocator_frag_ratio", &ratio(memory.active, memory.allocated)),
        ("allocator_frag_bytes", &difference(memory.active, memory.allocated)),
        ("allocator_rss_ratio", &ratio(memory.resident, memory.active)),
        ("allocator_rss_bytes", &difference(memory.resident, memory.active)),
        ("rss_overhead_ratio", &ratio(memory.rss, memory.resident)),
        ("rss_overhead_bytes", &difference(memory.rss, memory.resident)),
        ("mem_fragmentation_ratio", &ratio(memory.rss, used)),
        ("mem_fragmentation_bytes", &difference(memory.rss, used)),
        ("mem_not_counted_for_evict", &0),
        ("mem_replication_backlog", &log),
        ("mem_total_replication_buffers", &log),
        ("mem_replicas_repl_buffer", &0),
        ("mem_clients_slaves", &0),
        ("mem_clients_normal", &clients),
        ("mem_cluster_links", &0),
        ("mem_cluster_slot_import", &0),
        ("mem_cluster_slot_export", &0),
        ("mem_aof_buffer", &0),
        ("mem_allocator", &"jemalloc-5.3.0"),
        ("mem_overhead_db_hashtable_rehashing", &0),
        ("active_defrag_running", &0),
        ("lazyfree_pending_objects", &0),
        ("lazyfreed_objects", &0),
    ]);
}

/// Two digits behind the point.
fn percent(part: usize, whole: usize) -> String {
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    format!("{percent:.2}")
}

pub(super) fn persistence(ctx: &mut Ctx<'_, '_>, lines: &mut Lines) {
    let server = ctx.server;
    let loading = server.shared.gate.state() == crate::gate::GateState::Loading;
    let saves = server.saves.info(server, clock::monotonic());
    let snapshot = server.snapshots.progress(server);
    lines.fields(&[
        ("loading", &u8::from(loading)),
        ("async_loading", &0),
        ("current_cow_peak", &snapshot.peak_bytes),
        ("current_cow_size", &snapshot.bytes),
        ("current_cow_size_age", &0),
        ("current_fork_perc", &percent(snapshot.keys_done, snapshot.keys_total)),
        ("current_save_keys_processed", &snapshot.keys_done),
        ("current_save_keys_total", &snapshot.keys_total),
        ("rdb_changes_since_last_save", &saves.changes_since_last_save),
        ("rdb_bgsave_in_progress", &u8::from(saves.background_running)),
        ("rdb_last_save_time", &saves.last_save),
        ("rdb_last_bgsave_status", &if saves.last_background_ok { "ok" } else { "err" }),
        ("rdb_last_bgsave_time_sec", &saves.last_background_seconds),
        ("rdb_current_bgsave_time_sec", &saves.current_background_seconds),
        ("rdb_saves", &saves.saves),
        ("rdb_last_cow_size", &saves.last_cow_bytes),
        ("rdb_last_load_keys_expired", &0),
        ("rdb_last_load_keys_loaded", &0),
        ("aof_enabled", &0),
        ("aof_rewrite_in_progress", &0),
        ("aof_rewrite_scheduled", &0),
        ("aof_last_rewrite_time_sec", &-1),
        ("aof_current_rewrite_time_sec", &-1),
        ("aof_last_bgrewrite_status", &"ok"),
        ("aof_rewrites", &0),
        ("aof_rewrites_consecutive_failures", &0),
        ("aof_last_write_status", &"ok"),
        ("aof_last_cow_size", &0),
        ("module_fork_in_progress", &0),
        ("module_fork_last_cow_size", &0),
        ("slot_migration_fork_in_progress", &0),
    ]);
}
