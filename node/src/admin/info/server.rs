//! Sections Server, TLS, CPU, and those that have no lines here.

use keyward_net::tls::Material;
use keyward_proto::{REDIS_VERSION, VALKEY_VERSION};

use super::Lines;
use crate::admin::ServerContext;
use crate::process;

pub(super) fn server(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let server = ctx.server;
    let settings = server.settings();
    let uptime = server.clock.monotonic().since(server.started_at).as_secs();
    let hz = settings.hz;
    let file = server.with_config(|c| c.file.as_ref().map_or_else(String::new, |f| f.display().to_string()));
    let listens: String = settings.bind.iter().map(|address| format!("bind={address},")).collect();
    lines.fields(&[
        ("redis_version", &REDIS_VERSION),
        ("server_name", &"valkey"),
        ("valkey_version", &VALKEY_VERSION),
        ("valkey_release_stage", &"ga"),
        ("keyward_version", &env!("CARGO_PKG_VERSION")),
        ("redis_git_sha1", &"00000000"),
        ("redis_git_dirty", &0),
        ("redis_build_id", &"0"),
        ("server_mode", &if settings.cluster_enabled { "cluster" } else { "standalone" }),
        ("os", &process::system()),
        ("arch_bits", &usize::BITS),
        ("monotonic_clock", &"POSIX clock_gettime"),
        ("multiplexing_api", &"epoll"),
        ("gcc_version", &"0.0.0"),
        ("process_id", &std::process::id()),
        ("process_supervised", &if crate::supervision::is_active() { "systemd" } else { "no" }),
        ("run_id", &server.run_id),
        ("tcp_port", &settings.main_port()),
        ("server_time_usec", &server.clock.unix_micros()),
        ("uptime_in_seconds", &uptime),
        ("uptime_in_days", &(uptime / 86400)),
        ("hz", &hz),
        ("configured_hz", &hz),
        ("clients_hz", &hz),
        ("lru_clock", &ctx.keys.access_clock().seconds()),
        ("executable", &process::executable()),
        ("config_file", &file),
        ("io_threads_active", &usize::from(settings.io_threads > 1)),
        ("availability_zone", &settings.zone),
    ]);
    // The second one is for sockets of Unix.
    for (number, name, port) in [(0, "tcp", settings.port), (2, "tls", settings.tls_port)] {
        if port != 0 {
            lines.field(&format!("listener{number}"), format_args!("name={name},{listens}port={port}"));
        }
    }
}

/// Differs from Valkey: of several CAs the one that expires first is shown.
pub(super) fn tls(ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let now = ctx.server.clock.unix_millis().0 / 1000;
    let material = ctx.server.tls.material();
    let none = [("server", None), ("client", None), ("ca", None)];
    let certificates = material.as_deref().map_or(none, Material::certificates);
    for (owner, certificate) in certificates {
        let serial = certificate.map_or("none", |certificate| &certificate.serial);
        let left = certificate.map_or(0, |certificate| certificate.seconds_left(now).max(0));
        lines.field(&format!("tls_{owner}_cert_serial"), serial);
        lines.field(&format!("tls_{owner}_cert_expires_in_seconds"), left);
    }
}

pub(super) fn cpu(_ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    let cpu = process::cpu();
    lines.field("used_cpu_sys", format_args!("{:.6}", cpu.system));
    lines.field("used_cpu_user", format_args!("{:.6}", cpu.user));
    lines.field("used_cpu_sys_children", "0.000000");
    lines.field("used_cpu_user_children", "0.000000");
    lines.field("used_cpu_sys_main_thread", format_args!("{:.6}", cpu.system));
    lines.field("used_cpu_user_main_thread", format_args!("{:.6}", cpu.user));
}

pub(super) fn scripting_engines(_ctx: &mut ServerContext<'_, '_>, lines: &mut Lines) {
    lines.zeros(&["engines_count", "engines_total_used_memory", "engines_total_memory_overhead"]);
}

/// A section without lines.
pub(super) fn nothing(_ctx: &mut ServerContext<'_, '_>, _lines: &mut Lines) {}
