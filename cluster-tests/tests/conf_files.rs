//! Conf files, flags, CONFIG SET and CONFIG REWRITE, next to the real Valkey.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cluster_tests::processes::Server;
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use cluster_tests::stock_confs;
use keyward_node::config::{Config, Origin};
use tempfile::TempDir;

type Values = BTreeMap<String, String>;

/// Starts a server with a conf file of these lines, then `flags`, then what makes it a guest on this machine.
fn start(program: &Path, lines: &[String], flags: &[&str]) -> Result<Server, String> {
    let text = lines.join("\n");
    Server::start(program, |port, dir| {
        let path = dir.join("x.conf");
        std::fs::write(&path, &text).unwrap();
        let own = [
            ("--port", port.to_string()),
            ("--dir", dir.display().to_string()),
            ("--daemonize", "no".into()),
            ("--logfile", String::new()),
            ("--pidfile", String::new()),
            ("--supervised", "no".into()),
            ("--bind", "127.0.0.1".into()),
        ];
        let own = own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once(path.display().to_string())
            .chain(flags.iter().map(|f| (*f).to_owned()))
            .chain(own)
            .collect()
    })
}

fn get(connection: &mut Connection, pattern: &str) -> Values {
    let reply = connection.call(&["CONFIG", "GET", pattern]).unwrap();
    assert!(!reply.is_error(), "{reply}");
    reply.items.chunks(2).map(|pair| (pair[0].string(), pair[1].string())).collect()
}

/// What both servers know, without what has to differ.
fn differences(ours: &Values, theirs: &Values) -> Vec<String> {
    // Chosen by this test, or by default for a reason: all cores, and a log in memory that serves failovers.
    const OWN: &[&str] = &["port", "dir", "io-threads", "repl-backlog-size", "maxclients"];
    let both = ours.iter().filter_map(|(name, value)| Some((name, value, theirs.get(name)?)));
    let unequal = both.filter(|(name, ours, theirs)| ours != theirs && !OWN.contains(&name.as_str()));
    unequal.map(|(name, ours, theirs)| format!("{name}: {ours:?}, Valkey {theirs:?}")).collect()
}

/// With the password of `flags`, if there is one.
fn connect(server: &Server, flags: &[&str]) -> Connection {
    let mut connection = Connection::connect(&server.addr()).unwrap();
    if let Some(at) = flags.iter().position(|flag| *flag == "--requirepass") {
        assert_eq!(connection.call(&["AUTH", flags[at + 1]]).unwrap().string(), "OK");
    }
    connection
}

#[test]
fn files_of_others_start_and_mean_the_same() {
    let node = programs::keyward("keyward-node").unwrap();
    let valkey = programs::valkey_or_skip("conf_files").map(|dir| dir.join("valkey-server"));
    let mut confs = stock_confs::all();
    confs.extend(installed());
    for conf in confs {
        // What would be looked for elsewhere on this machine.
        let lines: Vec<String> = conf.lines.iter().filter(|l| !l.starts_with("dir ")).cloned().collect();
        let lines: Vec<String> = lines.into_iter().filter(|l| !l.starts_with("logfile ")).collect();
        // The server is waited for by PING, which a password would refuse.
        let plain: Vec<&str> = without_password(conf.flags);
        let ours = start(&node, &lines, &plain).unwrap_or_else(|e| panic!("{}: {e}", conf.name));
        let Some(valkey) = &valkey else { continue };
        let theirs = start(valkey, &lines, &plain).unwrap_or_else(|e| panic!("Valkey, {}: {e}", conf.name));
        let rename = lines.iter().find_map(|line| line.strip_prefix("rename-command CONFIG "));
        let config = rename.unwrap_or("CONFIG");
        let values = |server: &Server| -> Values {
            let reply = connect(server, &plain).call(&[config, "GET", "*"]).unwrap();
            reply.items.chunks(2).map(|pair| (pair[0].string(), pair[1].string())).collect()
        };
        let (ours, theirs) = (values(&ours), values(&theirs));
        assert!(100 < ours.len(), "{}", conf.name);
        assert_eq!(differences(&ours, &theirs), [""; 0], "{}", conf.name);
    }
}

fn without_password<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    match flags.iter().position(|flag| *flag == "--requirepass") {
        Some(at) => flags[..at].iter().chain(&flags[at + 2..]).copied().collect(),
        None => flags.to_vec(),
    }
}

/// The conf files that Debian's packages leave on this machine, and in the folder with the real Valkey.
fn installed() -> Vec<stock_confs::Conf> {
    let valkey = programs::valkey().ok();
    let below_valkey = valkey.iter().flat_map(|dir| [dir.join("root"), dir.join(".root")]);
    let mut paths: Vec<PathBuf> = below_valkey.map(|root| root.join("etc/valkey/valkey.conf")).collect();
    paths.extend(["/etc/redis/redis.conf", "/etc/valkey/valkey.conf"].map(PathBuf::from));
    let texts = paths.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    texts
        .map(|text| stock_confs::Conf {
            name: "a package's own file",
            lines: text.lines().map(str::to_owned).collect(),
            flags: &[],
        })
        .collect()
}

/// What one server of this machine says of itself is a conf file for the others.
#[test]
fn all_that_other_servers_know_is_taken() {
    let node = programs::keyward("keyward-node").unwrap();
    let others = [
        programs::valkey_or_skip("conf_files").map(|dir| dir.join("valkey-server")),
        programs::redis_or_skip("conf_files"),
    ];
    for other in others.into_iter().flatten() {
        let theirs = get(&mut connect(&start(&other, &[], &[]).unwrap(), &[]), "*");
        // `user` is the name of a system user there; sizes of this machine and addresses are as they are.
        let line = |(name, value): (&String, &String)| match name.as_str() {
            "replicaof" | "slaveof" => format!("{name} no one"),
            // Words, of which there may be none.
            "bind" | "save" | "shutdown-on-sigterm" | "shutdown-on-sigint" => format!("{name} {value}"),
            "client-output-buffer-limit" | "oom-score-adj-values" | "latency-tracking-info-percentiles" => {
                format!("{name} {value}")
            }
            "rdma-bind" | "dir" => String::new(),
            _ => format!("{name} \"{value}\""),
        };
        let lines: Vec<String> = theirs.iter().map(line).collect();
        let server = start(&node, &lines, &[]).unwrap_or_else(|e| panic!("{}: {e}", other.display()));
        let ours = get(&mut connect(&server, &[]), "*");
        let found = differences(&ours, &theirs);
        assert_eq!(found, [""; 0], "{}", other.display());
    }
}

/// Why a program refuses a conf file; `None`: it does not.
fn refusal(program: &Path, conf: &str) -> Option<String> {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("x.conf"), conf).unwrap();
    std::fs::write(dir.path().join("empty.conf"), "#\n").unwrap();
    let output = Command::new(program)
        .arg("x.conf")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    fatal(&String::from_utf8_lossy(&output.stderr))
}

/// What stands behind the head of the refusal.
fn fatal(text: &str) -> Option<String> {
    let (head, rest) = text.trim().split_once('\n')?;
    head.starts_with("*** FATAL CONFIG FILE ERROR (Version ").then(|| rest.to_owned())
}

/// The same, without a process.
fn own_refusal(conf: &str) -> Option<String> {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("x.conf"), conf).unwrap();
    std::fs::write(dir.path().join("empty.conf"), "#\n").unwrap();
    let (arguments, stdin, variable) = (["x.conf".to_owned()], &mut std::io::empty(), &|_: &str| None);
    let origin = Origin { arguments: &arguments, stdin, variable, folder: dir.path().into() };
    fatal(&Config::load(origin).err()?)
}

/// Lines that are right, and lines that are wrong in every way that comes to mind.
const LINES: &[&str] = &[
    "requirepass ab #comment",
    "requirepass \"ab #comment\"",
    "requirepass ab#comment",
    "requirepass \"ab\"#comment",
    "requirepass \"ab",
    "requirepass 'a\\'b'",
    "requirepass \"a\\x41\\n\"",
    "requirepass a b c",
    "requirepass",
    "requirepass \"\"",
    "   # indented",
    "\t timeout 1 ",
    "TIMEOUT 1",
    "\"timeout\" 1",
    "\"timeout 1\"",
    "\"\"",
    "'' x",
    "timeout \"\"",
    "timeout 1 # comment",
    "include",
    "include empty.conf x",
    "include empty.conf",
    "include nothere*.conf",
    "rename-command",
    "rename-command GET",
    "rename-command a b c",
    "rename-command nope b",
    "rename-command GET \"\"",
    "rename-command GET set",
    "rename-command get GET",
    "rename-command \"\" x",
    "user",
    "loadmodule",
    "foo.bar",
    "sentinel",
    "io-threads-do-reads blah",
    "io-threads-do-reads",
    "io-threads-do-reads a b",
    "lua-replicate-commands yes",
    "dynamic-hz",
    "gopher-enabled no",
    "ratelimit 1",
    "replicaof no one",
    "slaveof NO ONE",
    "replicaof \"no one\"",
    "replicaof no",
    "replicaof no ones",
    "replicaof 127.0.0.1 65536",
    "replicaof a b c",
    "dir /nonexistent",
    "dir x.conf",
    "dir \"\"",
    "dir . .",
    "logfile /nonexistent/x",
    "logfile /",
    "save",
    "save 1",
    "save 1 2 3",
    "save 1 2 3 4",
    "save \"1 2\"",
    "save 0 1",
    "save 1 -1",
    "save 1 0",
    "save \"\" 1",
    "save \"\"",
    "bind",
    "bind \"\"",
    "notify-keyspace-events K E",
    "notify-keyspace-events KEA",
    "notify-keyspace-events x!",
    "oom-score-adj-values 1 2 3",
    "oom-score-adj-values 1 2",
    "oom-score-adj-values \"1 2 3\"",
    "oom-score-adj-values 1 2 x",
    "oom-score-adj-values 1 2 2001",
    "client-output-buffer-limit",
    "client-output-buffer-limit \"\"",
    "client-output-buffer-limit normal 0 0",
    "client-output-buffer-limit normal 0 0 0 pubsub 1 1 1",
    "client-output-buffer-limit \"normal 0 0 0\"",
    "client-output-buffer-limit foo 0 0 0",
    "client-output-buffer-limit replica 1x 0 0",
    "latency-tracking-info-percentiles \"\" \"\"",
    "latency-tracking-info-percentiles 101",
    "latency-tracking-info-percentiles 50 x",
    "shutdown-on-sigterm",
    "shutdown-on-sigterm save force",
    "shutdown-on-sigterm save nosave",
    "shutdown-on-sigterm \"save force\"",
    "shutdown-on-sigterm later",
    "unixsocketperm 777",
    "unixsocketperm 888",
    "unixsocketperm 1777",
    "unixsocketperm -1",
    "port 1 2",
    "port 65536",
    "port 0x10",
    "port 00",
    "port +0",
    "port 1.5",
    "port \" 0\"",
    "maxmemory 1 gb",
    "maxmemory 1gB",
    "maxmemory -1",
    "maxmemory 10%",
    "maxmemory 1.5gb",
    "maxmemory-clients 101%",
    "maxmemory-clients 5%",
    "maxmemory-clients x%",
    "appendfilename \"\"",
    "appendfilename a/b",
    "appenddirname \"\"",
    "appenddirname a/b",
    "dbfilename \"\"",
    "dbfilename a/b",
    "appendfsync sometimes",
    "appendonly maybe",
    "appendonly YES",
    "loglevel NOTICE",
    "hz -1",
    "hz 1000",
];

/// Each line of a file is taken or refused as the real server does, in its words.
#[test]
fn lines_are_judged_as_by_valkey() {
    let Some(valkey) = programs::valkey_or_skip("conf_files").map(|dir| dir.join("valkey-server")) else {
        return;
    };
    let mut different = Vec::new();
    for line in LINES {
        // Without a port the real server ends when it has read the file.
        let conf = format!("port 0\n{line}\nport 0\n");
        let (ours, theirs) = (own_refusal(&conf), refusal(&valkey, &conf));
        if ours != theirs {
            different.push(format!("{line}: {ours:?}, Valkey {theirs:?}"));
        }
    }
    assert_eq!(different, [""; 0]);
}

/// Each directive, with values that fit other types: the same reply, and the same value afterwards.
#[test]
fn every_directive_is_set_as_by_valkey() {
    const VALUES: &[&str] = &[
        "",
        "yes",
        "No",
        "x",
        "-1",
        "0",
        "1",
        "5",
        "100",
        "1kb",
        "1.5",
        "10%",
        "a b",
        "1 2 3",
        " 7",
        "+7",
        "08",
        "64mb",
        "70000",
        "99999999999999999999",
        "notice",
        "a/b",
    ];
    // Sizes of clients that would close this one; those that Valkey changes at run time and Keyward at the start, or
    // by another rule (ARCHITECTURE.md says which).
    const OWN: &[&str] = &[
        "availability-zone",
        "bind",
        "cluster-announce-bus-port",
        "cluster-announce-hostname",
        "cluster-announce-ip",
        "cluster-announce-port",
        "cluster-announce-tls-port",
        "io-threads",
        "maxmemory-clients",
        "maxclients",
        "port",
        "tls-cluster",
        "tls-port",
        "tls-replication",
        "rdbchecksum",
        "repl-backlog-size",
        "replica-priority",
        "slave-priority",
        // Of features that do not exist here, or of this machine's folders, languages and addresses.
        "activedefrag",
        "cluster-allow-reads-when-down",
        "cluster-announce-client-ipv4",
        "cluster-announce-client-ipv6",
        "cluster-announce-human-nodename",
        "cluster-blacklist-ttl",
        "cluster-databases",
        "cluster-link-sendbuf-limit",
        "databases",
        "dir",
        "import-mode",
        "latency-tracking-info-percentiles",
        "locale-collate",
        "maxmemory",
        "min-replicas-to-write",
        "min-slaves-to-write",
        "proc-title-template",
        "rdma-bind",
        "replica-ignore-maxmemory",
        "replica-read-only",
        "slave-ignore-maxmemory",
        "slave-read-only",
    ];
    let Some(valkey) = programs::valkey_or_skip("conf_files").map(|dir| dir.join("valkey-server")) else {
        return;
    };
    let node = programs::keyward("keyward-node").unwrap();
    let (ours, theirs) = (start(&node, &[], &[]).unwrap(), start(&valkey, &[], &[]).unwrap());
    let (mut ours, mut theirs) = (connect(&ours, &[]), connect(&theirs, &[]));
    let (known, before) = (get(&mut ours, "*"), get(&mut theirs, "*"));
    let mut different = Vec::new();
    let own = |name: &str| OWN.contains(&name) || !before.contains_key(name);
    for name in known.keys().filter(|name| !own(name)) {
        for value in VALUES {
            let set = ["CONFIG", "SET", name, value];
            let replies = [ours.call(&set).unwrap(), theirs.call(&set).unwrap()];
            let values = [get(&mut ours, name), get(&mut theirs, name)];
            let absent =
                replies[0].string().contains("in this version") || replies[0].string().contains("use '");
            if (replies[0] != replies[1] || values[0] != values[1]) && !absent {
                different.push(format!(
                    "{name} {value:?}: {} {:?}, Valkey {} {:?}",
                    replies[0], values[0], replies[1], values[1]
                ));
            }
        }
        for connection in [&mut ours, &mut theirs] {
            connection.call(&["CONFIG", "SET", name, &before[name]]).unwrap();
        }
    }
    assert_eq!(different, [""; 0]);
}

/// CONFIG SET of several: all of them or none, whatever is wrong with which.
#[test]
fn several_directives_are_set_all_or_none() {
    let Some(valkey) = programs::valkey_or_skip("conf_files") else { return };
    let servers = [
        Server::keyward(&["--timeout", "3"]).unwrap(),
        Server::valkey(&valkey, &["--timeout", "3"]).unwrap(),
    ];
    let [mut ours, mut theirs] = servers.each_ref().map(|server| connect(server, &[]));
    let requests: &[&[&str]] = &[
        &["timeout", "4", "hz", "20"],
        &["timeout", "5", "hz", "x"],
        &["hz", "x", "timeout", "y"],
        &["timeout", "5", "nope", "1"],
        &["nope", "1", "timeout", "x"],
        &["timeout", "5", "daemonize", "yes"],
        &["timeout", "5", "dbfilename", "x"],
        &["timeout", "5", "TIMEOUT", "6"],
        &["timeout", "5", "hz"],
        &["timeout"],
        &["save", "1 2", "save", ""],
        &["save", "5 6", "appendfsync", "no", "timeout", "7"],
        &["client-output-buffer-limit", "normal 1 1 1", "maxmemory", "x"],
        &["requirepass", "a #b", "timeout", "8"],
        &["requirepass", "", "timeout", "9"],
    ];
    for request in requests {
        let mut set = vec!["CONFIG", "SET"];
        set.extend(*request);
        assert_eq!(ours.call(&set), theirs.call(&set), "{request:?}");
        for name in ["timeout", "hz", "save", "appendfsync", "client-output-buffer-limit", "requirepass"] {
            assert_eq!(get(&mut ours, name), get(&mut theirs, name), "{request:?}");
        }
    }
    // Without a conf file there is nothing to rewrite.
    let rewrite = ["CONFIG", "REWRITE"];
    assert_eq!(ours.call(&rewrite), theirs.call(&rewrite));
    let refused = ours.call(&[b"CONFIG".as_slice(), b"SET", b"requirepass", b"\xff"]).unwrap();
    assert!(refused.is_error(), "{refused}");
    assert_eq!(get(&mut ours, "requirepass")["requirepass"], "");
}

/// The sample starts and has no vain lines; what it shows commented out is right as well.
#[test]
fn the_sample_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../local/keyward.conf");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<String> = text.lines().filter(|l| !l.starts_with("dir ")).map(str::to_owned).collect();
    let server = start(&programs::keyward("keyward-node").unwrap(), &lines, &[]).unwrap();
    assert!(!server.log().contains("without effect"), "{}", server.log());
    let known = get(&mut connect(&server, &[]), "*");
    let shown = text.lines().filter_map(|line| line.strip_prefix("# "));
    let shown: Vec<&str> =
        shown.filter(|line| line.split(' ').next().is_some_and(|name| known.contains_key(name))).collect();
    assert!(10 < shown.len());
    for line in shown {
        // Files that are not there are no fault of the line.
        if !line.starts_with("logfile ") && !line.starts_with("requirepass-file ") {
            assert_eq!(own_refusal(&format!("{line}\n")), None, "{line}");
        }
    }
}

/// Flags mean the lines that they mean to the real server.
#[test]
fn flags_are_judged_as_by_valkey() {
    let Some(valkey) = programs::valkey_or_skip("conf_files").map(|dir| dir.join("valkey-server")) else {
        return;
    };
    let cases: &[&[&str]] = &[
        &["--timeout", "x", "--hz", "1"],
        &["--requirepass", "a", "b"],
        &["--requirepass"],
        &["--save", "1 2", "3 4"],
        &["--timeout", "--hz", "5"],
        &["--loglevel", "--verbose"],
        &["stray", "1"],
        &["--hz", "5", "-timeout", "5"],
        &["--timeout 3", "--requirepass \"a b\"", "--hz x"],
        &["--timeout 3 4"],
        &["--save", "--hz", "y"],
        &["--bind", "a", "b", "--hz", "y"],
    ];
    for flags in cases {
        let output = Command::new(&valkey).args(["--port", "0"]).args(*flags).output().unwrap();
        let theirs = fatal(&String::from_utf8_lossy(&output.stderr));
        let arguments: Vec<String> = ["--port", "0"].iter().chain(*flags).map(|f| (*f).to_owned()).collect();
        let ours = Config::from_arguments(&arguments).err().and_then(|text| fatal(&text));
        // Only the first fault.
        let first = ours.map(|text| text.lines().take(3).collect::<Vec<_>>().join("\n"));
        assert_eq!(first, theirs, "{flags:?}");
        assert!(first.is_some(), "{flags:?}: each of them has a fault");
    }
}

/// CONFIG REWRITE changes the same lines, and the server starts with the file as it was.
#[test]
fn a_conf_file_is_rewritten_as_by_valkey() {
    let node = programs::keyward("keyward-node").unwrap();
    let Some(valkey) = programs::valkey_or_skip("conf_files").map(|dir| dir.join("valkey-server")) else {
        return;
    };
    let cases: &[(&str, &[&[&str]])] = &[
        (
            "# hello\n\ntimeout 3\n  hz 20  \n\n\n# c2\ntimeout 4\nsave 1 2\nsave 3 4\nloglevel \"notice\"\nrequirepass \"\"",
            &[&["timeout", "9", "save", "5 6 7 8"], &["hz", "10"], &["requirepass", "a \"b\n"]],
        ),
        (
            "include inc.conf\nmaxmemory 1gb\nclient-output-buffer-limit pubsub 1mb 2mb 3\nslave-priority 5\n\
             slaveof no one\n#x\nrename-command GET \"\"\nio-threads-do-reads yes\nmaxmemory-clients 5%\n\
             tcp-keepalive 300",
            &[&["timeout", "9", "maxmemory", "2gb"], &["maxmemory-samples", "x"]],
        ),
        (
            "save \"\"\nnotify-keyspace-events \"\"\n\"hz\" 11\nlogfile \"\"\npidfile \"\"\nsyslog-ident \"\"\n\
             latency-tracking-info-percentiles 5 6\noom-score-adj-values 1 2 3\nshutdown-on-sigterm force save",
            &[&["notify-keyspace-events", "AKE"], &["latency-tracking-info-percentiles", ""]],
        ),
        (
            "",
            &[&["save", ""], &["appendfsync", "no"], &["maxmemory-clients", "7%"], &["maxmemory", "1500000"]],
        ),
        (
            "timeout 1\nTIMEOUT 2\nproto-max-bulk-len 1048576",
            &[&["proto-max-bulk-len", "512mb"], &["timeout", "0"]],
        ),
    ];
    for (conf, sets) in cases {
        let ours = rewritten(&node, conf, sets);
        let theirs = rewritten(&valkey, conf, sets);
        assert_eq!(ours, theirs, "{conf}");
    }
}

/// The head of the file and the set of lines behind the header; twice, with a start in between.
fn rewritten(program: &Path, conf: &str, sets: &[&[&str]]) -> (Vec<String>, Vec<String>) {
    let mut server = Server::start(program, |port, dir| {
        std::fs::write(dir.join("inc.conf"), "timeout 5\nhz 30\n").unwrap();
        let file = dir.join("x.conf");
        // Not again by the restart.
        if !file.exists() {
            let include = dir.join("inc.conf").display().to_string();
            let conf = conf.replace("include inc.conf", &format!("include {include}"));
            std::fs::write(&file, format!("{conf}\nport {port}\ndir {}\n", dir.display())).unwrap();
        }
        vec![file.display().to_string()]
    })
    .unwrap();
    let file = server.dir().join("x.conf");
    let mut connection = connect(&server, &[]);
    for set in sets {
        let mut command = vec!["CONFIG", "SET"];
        command.extend(*set);
        connection.call(&command).unwrap();
    }
    let before = get(&mut connection, "*");
    assert_eq!(connection.call(&["CONFIG", "REWRITE"]).unwrap().string(), "OK");
    let text = std::fs::read_to_string(&file).unwrap();
    server.restart().unwrap();
    // What the file says is in force again: the password as well.
    let password = before["requirepass"].clone();
    assert!(cluster_tests::processes::wait_until(std::time::Duration::from_secs(20), || {
        Connection::connect(&server.addr()).is_ok_and(|mut c| c.call(&["PING"]).is_ok())
    }));
    let mut connection = Connection::connect(&server.addr()).unwrap();
    if !password.is_empty() {
        assert_eq!(connection.call(&["AUTH", &password]).unwrap().string(), "OK");
    }
    let mut after = get(&mut connection, "*");
    // Only the first start follows the system's limit of open files with what the file asks for.
    after.insert("maxclients".into(), before["maxclients"].clone());
    assert_eq!(after, before, "{}", program.display());
    let own = [(server.dir().display().to_string(), "DIR"), (format!("port {}", server.port()), "port PORT")];
    let text = own.iter().fold(text, |text, (from, to)| text.replace(from, to));
    // Each class keeps a line of its own here; Valkey puts them into such lines in turn.
    let (classes, text): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("client-output-buffer-limit "));
    let text = text.join("\n");
    let (head, tail) = text.split_once("# Generated by CONFIG REWRITE").unwrap_or((&text, ""));
    // What Valkey always writes although it is the default, and its users.
    let always = |line: &&str| {
        !line.is_empty()
            && !line.starts_with("user default ")
            && *line != "client-output-buffer-limit normal 0 0 0"
            && *line != "latency-tracking-info-percentiles 50 99 99.9"
    };
    let mut tail: Vec<String> = tail.lines().chain(classes).filter(always).map(str::to_owned).collect();
    tail.sort();
    (head.trim_end().lines().map(str::to_owned).collect(), tail)
}

/// A process of its own, in a folder of its own, with nothing but these variables.
struct Node {
    dir: TempDir,
    program: PathBuf,
}

impl Node {
    fn new() -> Node {
        Node { dir: TempDir::new().unwrap(), program: programs::keyward("keyward-node").unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.dir.path());
        for name in ["VALKEY_PASSWORD", "VALKEY_PASSWORD_FILE", "NOTIFY_SOCKET", "RUST_LOG"] {
            command.env_remove(name);
        }
        command
    }

    /// Exit code and what it said.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_node_that_would_listen_nowhere_ends() {
    let node = Node::new();
    for arguments in [["--port", "0"], ["--bind", ""]] {
        let (code, said) = node.run(&arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.ends_with("keyward-node: Configured to not listen anywhere, exiting.\n"), "{said}");
    }
}

#[test]
fn faults_are_told_by_the_program() {
    let node = Node::new();
    std::fs::write(node.dir.path().join("x.conf"), "port 0\nrequirepass a b\nhz x\n").unwrap();
    let (code, said) = node.run(&["x.conf"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        fatal(&said).unwrap(),
        "Reading the configuration file, at line 2\n>>> 'requirepass a b'\nwrong number of arguments\n\
         Reading the configuration file, at line 3\n>>> 'hz x'\nargument couldn't be parsed into an integer"
    );
}

/// The process in the background: its ID is in the file, its log in the other, and SIGTERM ends it.
#[test]
fn a_node_goes_into_the_background() {
    use rustix::process::{Pid, Signal, kill_process};
    let node = Node::new();
    let port = cluster_tests::processes::free_port().to_string();
    let conf = format!("port {port}\ndaemonize yes\npidfile node.pid\nlogfile node.log\nhz 11\n");
    let mut child = node
        .command(&["-", "--save", ""])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(conf.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let deadline = std::time::Duration::from_secs(20);
    let wait =
        |condition: &mut dyn FnMut() -> bool| cluster_tests::processes::wait_until(deadline, condition);
    let address = format!("127.0.0.1:{port}");
    let answers = || {
        Connection::connect(&address).is_ok_and(|mut c| c.call(&["PING"]).is_ok_and(|r| r.string() == "PONG"))
    };
    assert!(wait(&mut || answers()));
    let pid_file = node.dir.path().join("node.pid");
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert_ne!(pid, child.id().cast_signed());
    let mut connection = Connection::connect(&address).unwrap();
    let info = connection.call(&["INFO", "server"]).unwrap().string();
    assert!(info.contains(&format!("process_id:{pid}\r\n")), "{info}");
    assert_eq!(get(&mut connection, "hz")["hz"], "11", "the file from standard input");
    let log = || std::fs::read_to_string(node.dir.path().join("node.log")).unwrap();
    assert!(log().contains("ready to accept connections"), "{}", log());
    assert!(log().contains("set, but without effect in this version: hz\n"), "{}", log());
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    assert!(wait(&mut || !pid_file.exists() && Connection::connect(&address).is_err()));
}

/// What systemd is told, and that a supervised node stays in the foreground.
#[test]
fn systemd_is_told() {
    use std::os::unix::net::UnixDatagram;
    let node = Node::new();
    let path = node.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let receive = || {
        let mut bytes = [0; 1000];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let port = cluster_tests::processes::free_port().to_string();
    let arguments = ["--supervised", "auto", "--daemonize", "yes", "--port", &port, "--save", ""];
    let mut child =
        node.command(&arguments).env("NOTIFY_SOCKET", &path).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(receive(), "STATUS=Ready to accept connections\nREADY=1\n");
    let mut connection = Connection::connect(&format!("127.0.0.1:{port}")).unwrap();
    let info = connection.call(&["INFO", "server"]).unwrap().string();
    assert!(info.contains(&format!("process_id:{}\r\n", child.id())), "{info}");
    assert!(info.contains("process_supervised:systemd\r\n"), "{info}");
    assert!(connection.call(&["SHUTDOWN", "NOSAVE"]).is_err());
    assert_eq!(receive(), "STATUS=Ending\nSTOPPING=1\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_password_may_come_from_the_environment() {
    let node = Node::new();
    std::fs::write(node.dir.path().join("secret"), "from file\n").unwrap();
    for (variable, value, password) in [
        ("VALKEY_PASSWORD", "from variable", "from variable"),
        ("VALKEY_PASSWORD_FILE", "secret", "from file"),
    ] {
        let port = cluster_tests::processes::free_port().to_string();
        std::fs::write(node.dir.path().join("x.conf"), format!("port {port}\nsave \"\"\n")).unwrap();
        let mut child = node.command(&["x.conf"]).env(variable, value).stderr(Stdio::null()).spawn().unwrap();
        let address = format!("127.0.0.1:{port}");
        let mut refused = String::new();
        assert!(cluster_tests::processes::wait_until(std::time::Duration::from_secs(20), || {
            let reply = Connection::connect(&address).ok().and_then(|mut c| c.call(&["PING"]).ok());
            refused = reply.as_ref().map(|r| r.string()).unwrap_or_default();
            reply.is_some()
        }));
        assert_eq!(refused, "NOAUTH Authentication required.");
        let mut connection = Connection::connect(&address).unwrap();
        assert_eq!(connection.call(&["AUTH", password]).unwrap().string(), "OK");
        assert_eq!(connection.call(&["CONFIG", "REWRITE"]).unwrap().string(), "OK");
        let conf = std::fs::read_to_string(node.dir.path().join("x.conf")).unwrap();
        assert!(!conf.contains("requirepass"), "the password stays where it is: {conf}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Clients reach commands by their new names, also after a restart, because the log has the old ones.
#[test]
fn commands_are_renamed_for_clients_only() {
    let lines = [
        "rename-command STRLEN laenge",
        "rename-command SET Put",
        "rename-command DEL \"\"",
        "rename-command CLIENT kunde",
        "rename-command EXEC go",
    ];
    let lines = lines.map(str::to_owned);
    let node = programs::keyward("keyward-node").unwrap();
    let mut server = start(&node, &lines, &["--appendonly", "yes", "--save", ""]).unwrap();
    let call = |server: &Server, words: &[&str]| connect(server, &[]).call(words).unwrap().to_string();
    if let Some(valkey) = programs::valkey_or_skip("conf_files") {
        let valkey = start(&valkey.join("valkey-server"), &lines, &["--save", ""]).unwrap();
        let requests: &[&[&str]] = &[
            &["SET", "a", "1"],
            &["put", "a", "1"],
            &["PUT", "a"],
            &["DEL", "a"],
            &["COMMAND", "INFO", "laenge"],
            &["COMMAND", "INFO", "strlen"],
            &["COMMAND", "INFO", "set"],
            &["COMMAND", "INFO", "del"],
            &["COMMAND", "GETKEYS", "put", "x", "y"],
            &["COMMAND", "GETKEYS", "set", "x", "y"],
            &["COMMAND", "LIST", "FILTERBY", "PATTERN", "del"],
            &["COMMAND", "LIST", "FILTERBY", "PATTERN", "set"],
            &["kunde", "foo"],
            &["kunde"],
            &["client", "id"],
            &["go", "x"],
        ];
        for request in requests {
            assert_eq!(call(&server, request), call(&valkey, request), "{request:?}");
        }
    }
    let mut client = connect(&server, &[]);
    assert_eq!(client.call(&["MULTI"]).unwrap().string(), "OK");
    assert_eq!(client.call(&["PUT", "b", "2"]).unwrap().string(), "QUEUED");
    assert_eq!(client.call(&["put", "c", "3", "EX", "1000"]).unwrap().string(), "QUEUED");
    assert_eq!(client.call(&["Go"]).unwrap().items.len(), 2);
    assert_eq!(call(&server, &["PUT", "a", "1"]), "+OK\\r\\n");
    server.restart().unwrap();
    server.wait_until_answering().unwrap();
    assert_eq!(
        call(&server, &["MGET", "a", "b", "c"]),
        "*3\\r\\n$1\\r\\n1\\r\\n$1\\r\\n2\\r\\n$1\\r\\n3\\r\\n"
    );
    let log = std::fs::read_dir(server.dir().join("appendonlydir")).unwrap().flatten();
    let log: Vec<u8> = log.flat_map(|entry| std::fs::read(entry.path()).unwrap()).collect();
    let log = String::from_utf8_lossy(&log).to_lowercase();
    assert!(log.contains("$3\r\nset\r\n") && !log.contains("put"), "{log}");
}
