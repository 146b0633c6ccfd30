//! Sections Memory and Persistence.

use std::sync::atomic::Ordering;

use super::{Lines, human, ratio};
use crate::admin::ServerContext;
use crate::admin::overview::{Overview, excess};
use crate::config::Choice;
use crate::loading::Progress;

pub(super) fn memory(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let o = Overview::of(ctx);
    let (server, used, memory) = (ctx.server, o.used, &o.memory);
    let settings = server.settings();
    let with_human = |lines: &mut Lines, name: &str, bytes: usize| {
        lines.field(name, bytes);
        lines.field(&format!("{name}_human"), human(bytes));
    };
    with_human(lines, "used_memory", used);
    with_human(lines, "used_memory_rss", memory.rss);
    with_human(lines, "used_memory_peak", o.peak);
    let percent = |percentage: f64| format!("{percentage:.2}%");
    lines.fields(&[
        ("used_memory_peak_perc", &percent(o.peak_percentage())),
        ("used_memory_overhead", &o.overhead()),
        ("used_memory_startup", &o.startup),
        ("used_memory_dataset", &o.dataset()),
        ("used_memory_dataset_perc", &percent(o.dataset_percentage())),
        ("allocator_allocated", &memory.allocated),
        ("allocator_active", &memory.active),
        ("allocator_resident", &memory.resident),
        ("allocator_muzzy", &0),
    ]);
    with_human(lines, "total_system_memory", memory.total_system);
    let scripts = server.scripts.figures();
    lines.field("used_memory_lua", scripts.eval_vm_bytes);
    lines.field("used_memory_vm_eval", scripts.eval_vm_bytes);
    lines.field("used_memory_lua_human", human(scripts.eval_vm_bytes));
    lines.fields(&[
        ("used_memory_scripts_eval", &scripts.cached_bytes),
        ("number_of_cached_scripts", &scripts.cached),
        ("number_of_functions", &scripts.functions),
        ("number_of_libraries", &scripts.libraries),
        ("used_memory_vm_functions", &scripts.function_vm_bytes),
    ]);
    with_human(lines, "used_memory_vm_total", scripts.eval_vm_bytes + scripts.function_vm_bytes);
    lines.field("used_memory_functions", scripts.library_bytes);
    with_human(lines, "used_memory_scripts", scripts.cached_bytes + scripts.library_bytes);
    with_human(lines, "maxmemory", settings.maxmemory);
    lines.fields(&[
        ("maxmemory_policy", &settings.maxmemory_policy.word()),
        ("allocator_frag_ratio", &ratio(memory.active, memory.allocated)),
        ("allocator_frag_bytes", &excess(memory.active, memory.allocated)),
        ("allocator_rss_ratio", &ratio(memory.resident, memory.active)),
        ("allocator_rss_bytes", &excess(memory.resident, memory.active)),
        ("rss_overhead_ratio", &ratio(memory.rss, memory.resident)),
        ("rss_overhead_bytes", &excess(memory.rss, memory.resident)),
        ("mem_fragmentation_ratio", &ratio(memory.rss, used)),
        ("mem_fragmentation_bytes", &excess(memory.rss, used)),
        ("mem_not_counted_for_evict", &server.memory.not_counted()),
        ("mem_replication_backlog", &o.log),
        ("mem_total_replication_buffers", &o.log),
        ("mem_replicas_repl_buffer", &0),
        ("mem_clients_slaves", &0),
        ("mem_clients_normal", &o.clients),
        ("mem_cluster_links", &0),
        ("mem_cluster_slot_import", &0),
        ("mem_cluster_slot_export", &0),
        ("mem_aof_buffer", &0),
        ("mem_allocator", &"jemalloc-5.3.0"),
        ("mem_overhead_db_hashtable_rehashing", &0),
        ("active_defrag_running", &0),
        ("lazyfree_pending_objects", &server.lazyfree.pending()),
        ("lazyfreed_objects", &server.lazyfree.freed()),
    ]);
}

/// Two digits behind the point.
fn percent(part: usize, whole: usize) -> String {
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    format!("{percent:.2}")
}

pub(super) fn persistence(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let server = ctx.server;
    let loading = server.shared.gate.state() == keyward_replication::gate::GateState::Loading;
    let saves = server.saves.info(server.stats.sum(|thread| &thread.changes), server.clock.monotonic());
    let snapshot = server.snapshots.progress(server);
    let (aof, rewrite) = (server.aof.status(), server.aof.rewrite_info());
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
        ("rdb_last_load_keys_expired", &server.last_load.expired.load(Ordering::Relaxed)),
        ("rdb_last_load_keys_loaded", &server.last_load.keys.load(Ordering::Relaxed)),
        ("aof_enabled", &u8::from(aof.enabled)),
        ("aof_rewrite_in_progress", &u8::from(rewrite.running)),
        ("aof_rewrite_scheduled", &u8::from(rewrite.scheduled)),
        ("aof_last_rewrite_time_sec", &rewrite.last_seconds),
        ("aof_current_rewrite_time_sec", &rewrite.current_seconds),
        ("aof_last_bgrewrite_status", &if rewrite.last_ok { "ok" } else { "err" }),
        ("aof_rewrites", &rewrite.count),
        ("aof_rewrites_consecutive_failures", &rewrite.failures_in_a_row),
        ("aof_base_missing", &u8::from(rewrite.base_is_missing)),
        ("aof_last_write_status", &if aof.error.is_none() { "ok" } else { "err" }),
        ("aof_last_cow_size", &snapshot.peak_bytes),
        ("module_fork_in_progress", &0),
        ("module_fork_last_cow_size", &0),
        ("slot_migration_fork_in_progress", &0),
    ]);
    if aof.enabled {
        let counters = &server.aof.counters;
        lines.fields(&[
            ("aof_current_size", &counters.total_bytes()),
            ("aof_base_size", &counters.rewritten_bytes.load(Ordering::Relaxed)),
            ("aof_pending_rewrite", &0),
            ("aof_buffer_length", &server.shared.log.lock().unwritten_bytes()),
            ("aof_pending_bio_fsync", &counters.pending_syncs.load(Ordering::Relaxed)),
            ("aof_delayed_fsync", &counters.delayed_syncs.load(Ordering::Relaxed)),
        ]);
    }
    if let Some(progress) = server.loading.progress() {
        loading_fields(&progress, lines);
    }
}

/// Only there while something is being loaded.
fn loading_fields(progress: &Progress, lines: &mut Lines) {
    let Progress { started_at, total_bytes, loaded_bytes, eta_seconds } = *progress;
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let percent = loaded_bytes as f64 * 100.0 / total_bytes.max(1) as f64;
    lines.fields(&[
        ("loading_start_time", &started_at),
        ("loading_total_bytes", &total_bytes),
        ("loading_rdb_used_mem", &0),
        ("loading_loaded_bytes", &loaded_bytes),
        ("loading_loaded_perc", &format_args!("{percent:.2}")),
        ("loading_eta_seconds", &eta_seconds),
    ]);
}
