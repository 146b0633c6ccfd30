//! Configurations as others make them: what the stock files of several versions set, and what charts, images and
//! operators write. Lists of directives with their values, no texts.

/// A configuration, and the flags with which its maker starts the server.
#[derive(Debug, Clone)]
pub struct Conf {
    pub name: &'static str,
    pub lines: Vec<String>,
    pub flags: &'static [&'static str],
}

/// What all stock files have in common.
const COMMON: &str = r#"
bind 127.0.0.1 -::1
protected-mode yes
port 6379
tcp-backlog 511
timeout 0
tcp-keepalive 300
daemonize no
pidfile /var/run/redis_6379.pid
loglevel notice
logfile ""
databases 16
always-show-logo no
set-proc-title yes
proc-title-template "{title} {listen-addr} {server-mode}"
stop-writes-on-bgsave-error yes
rdbcompression yes
rdbchecksum yes
dbfilename dump.rdb
rdb-del-sync-files no
dir ./
replica-serve-stale-data yes
replica-read-only yes
repl-diskless-sync yes
repl-diskless-sync-delay 5
repl-diskless-load disabled
repl-disable-tcp-nodelay no
replica-priority 100
acllog-max-len 128
lazyfree-lazy-eviction no
lazyfree-lazy-expire no
lazyfree-lazy-server-del no
replica-lazy-flush no
lazyfree-lazy-user-del no
lazyfree-lazy-user-flush no
oom-score-adj no
oom-score-adj-values 0 200 800
disable-thp yes
appendonly no
appendfilename "appendonly.aof"
appendfsync everysec
no-appendfsync-on-rewrite no
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 64mb
aof-load-truncated yes
aof-use-rdb-preamble yes
slowlog-log-slower-than 10000
slowlog-max-len 128
latency-monitor-threshold 0
notify-keyspace-events ""
hash-max-listpack-entries 512
hash-max-listpack-value 64
list-max-listpack-size -2
list-compress-depth 0
set-max-intset-entries 512
zset-max-listpack-entries 128
zset-max-listpack-value 64
hll-sparse-max-bytes 3000
stream-node-max-bytes 4096
stream-node-max-entries 100
activerehashing yes
client-output-buffer-limit normal 0 0 0
client-output-buffer-limit replica 256mb 64mb 60
client-output-buffer-limit pubsub 32mb 8mb 60
hz 10
dynamic-hz yes
aof-rewrite-incremental-fsync yes
rdb-save-incremental-fsync yes
jemalloc-bg-thread yes
"#;

const SINCE_7_0: &str =
    "appenddirname appendonlydir\naof-timestamp-enabled no\nrepl-diskless-sync-max-replicas 0\n";
const SINCE_7_2: &str = "set-max-listpack-entries 128\nset-max-listpack-value 64\nlocale-collate \"\"\n";
const LAZY: &str = "lazyfree-lazy-eviction yes\nlazyfree-lazy-expire yes\nlazyfree-lazy-server-del yes\n\
    replica-lazy-flush yes\nlazyfree-lazy-user-del yes\nlazyfree-lazy-user-flush yes\n";
const SINCE_8_0: &str = "dual-channel-replication-enabled no\nhide-user-data-from-log yes\n";
const COMMANDLOG: &str = "commandlog-execution-slower-than 10000\ncommandlog-slow-execution-max-len 128\n\
    commandlog-request-larger-than 1048576\ncommandlog-large-request-max-len 128\n\
    commandlog-reply-larger-than 1048576\ncommandlog-large-reply-max-len 128\n";

/// What examples in the comments of stock files turn on, of all versions: names that were given up among them.
const EXAMPLES: &str = r#"
save 3600 1 300 100 60 10000
save 900 1
io-threads 4
io-threads-do-reads no
events-per-io-thread 2
maxclients 10000
maxmemory 2gb
maxmemory-policy allkeys-lfu
maxmemory-samples 5
maxmemory-eviction-tenacity 10
maxmemory-clients 5%
active-expire-effort 1
lua-replicate-commands yes
list-max-ziplist-entries 512
list-max-ziplist-value 64
sanitize-dump-payload no
lua-time-limit 5000
busy-reply-threshold 5000
latency-tracking yes
latency-tracking-info-percentiles 50 99 99.9
lfu-log-factor 10
lfu-decay-time 1
client-query-buffer-limit 1gb
proto-max-bulk-len 512mb
activedefrag no
active-defrag-ignore-bytes 100mb
active-defrag-threshold-lower 10
active-defrag-threshold-upper 100
active-defrag-cycle-min 1
active-defrag-cycle-max 25
active-defrag-max-scan-fields 1000
syslog-enabled no
syslog-ident redis
syslog-facility local0
supervised auto
crash-log-enabled no
crash-memcheck-enabled no
server_cpulist 0-7:2
bio_cpulist 1,3
aof_rewrite_cpulist 8-11
bgsave_cpulist 1,10-11
tracking-table-max-keys 1000000
repl-backlog-size 10mb
repl-backlog-ttl 3600
repl-ping-replica-period 10
repl-timeout 60
propagation-error-behavior ignore
replica-ignore-disk-write-errors no
replica-announced yes
min-replicas-to-write 0
min-replicas-max-lag 10
cluster-config-file nodes-6379.conf
cluster-node-timeout 15000
cluster-replica-validity-factor 10
cluster-migration-barrier 1
cluster-allow-replica-migration yes
cluster-require-full-coverage yes
cluster-replica-no-failover no
cluster-allow-reads-when-down no
cluster-allow-pubsubshard-when-down yes
cluster-link-sendbuf-limit 0
cluster-announce-hostname ""
cluster-preferred-endpoint-type ip
enable-protected-configs no
enable-debug-command no
enable-module-command no
shutdown-timeout 10
shutdown-on-sigint default
shutdown-on-sigterm default
ignore-warnings ARM64-COW-BUG
socket-mark-id 0
tls-port 0
tls-session-caching yes
tls-session-cache-size 20480
tls-session-cache-timeout 300
tls-prefer-server-ciphers no
rename-command CONFIG b840fc02d524045429941cc15f59e41cb7be6c52
"#;

/// A line for each directive, of the first text and of those that change and extend it.
fn merged(texts: &[&str], without: &[&str]) -> Vec<String> {
    let key = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [name @ "client-output-buffer-limit", class, ..] => format!("{name} {class}"),
        [name, ..] => name.to_owned(),
        [] => String::new(),
    };
    let mut lines: Vec<String> = Vec::new();
    for line in texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()) {
        match lines.iter_mut().find(|old| key(old) == key(line)) {
            Some(old) => line.clone_into(old),
            None => lines.push(line.to_owned()),
        }
    }
    lines.retain(|line| !without.contains(&key(line).as_str()));
    lines
}

/// Names of before 7.0.
fn ziplists(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| line.replace("-max-listpack-", "-max-ziplist-")).collect()
}

/// All of them.
pub fn all() -> Vec<Conf> {
    const DEBIAN: &str = "daemonize yes\npidfile /run/redis/redis-server.pid\ndir /var/lib/redis\n\
        logfile /var/log/redis/redis-server.log\n";
    const VALKEY: &str = "pidfile /var/run/valkey_6379.pid\n";
    let stock = |name, lines| Conf { name, lines, flags: &[] };
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    vec![
        stock("Redis 6.2", ziplists(merged(&[COMMON, "repl-diskless-sync no\nlua-time-limit 5000\n"], &[]))),
        stock("Redis 7.0", merged(&[COMMON, SINCE_7_0], &[])),
        stock("Redis 7.2", merged(&[COMMON, SINCE_7_0, SINCE_7_2], &[])),
        stock("Valkey 7.2", merged(&[COMMON, SINCE_7_0, SINCE_7_2, VALKEY], &[])),
        stock("Valkey 8.0", merged(&[COMMON, SINCE_7_0, SINCE_7_2, LAZY, SINCE_8_0, VALKEY], &[])),
        stock(
            "Valkey 8.1",
            merged(&[COMMON, SINCE_7_0, SINCE_7_2, LAZY, SINCE_8_0, COMMANDLOG, VALKEY], &[]),
        ),
        stock(
            "Valkey 9",
            merged(
                &[
                    COMMON,
                    SINCE_7_0,
                    SINCE_7_2,
                    LAZY,
                    SINCE_8_0,
                    COMMANDLOG,
                    VALKEY,
                    "rdb-version-check strict\n",
                ],
                &["dynamic-hz", "slowlog-log-slower-than", "slowlog-max-len"],
            ),
        ),
        Conf {
            name: "Debian's unit",
            lines: merged(&[COMMON, SINCE_7_0, DEBIAN], &[]),
            flags: &["--supervised", "systemd", "--daemonize", "no"],
        },
        stock("examples of stock files", lines(EXAMPLES)),
        Conf {
            name: "Bitnami's chart",
            lines: lines(
                "bind 0.0.0.0 ::\nappendonly yes\nsave \"\"\nrename-command FLUSHDB \"\"\nrename-command FLUSHALL \"\"",
            ),
            flags: &[
                "--requirepass",
                "se cret",
                "--masterauth",
                "se cret",
                "--replica-announce-port",
                "6379",
            ],
        },
        Conf {
            name: "an image's arguments",
            lines: Vec::new(),
            flags: &[
                "--save",
                "60",
                "1",
                "--loglevel",
                "warning",
                "--protected-mode",
                "no",
                "--maxmemory 64mb",
            ],
        },
        Conf {
            name: "an image's arguments without a value",
            lines: Vec::new(),
            flags: &["--save", "--appendonly", "no", "--requirepass", "--x"],
        },
        Conf {
            name: "an operator's file",
            lines: lines(
                "# Generated\nport 6379\ntcp-keepalive 60\nsave 900 1\nsave 300 10\nslaveof no one\n\
                 masterauth \"p#1\"\nmaxmemory 1gb\nprotected-mode no\n\
                 # Generated by CONFIG REWRITE\nslave-read-only yes\nuser default on nopass ~* &* +@all",
            ),
            flags: &[],
        },
    ]
}
