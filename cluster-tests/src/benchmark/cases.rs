//! What `bench --data` sends: a command of each data type, and scripts, with what has to be there first.

use crate::resp_client::Connection;

/// One command, or a sequence of commands, on keys that are made first.
#[derive(Debug)]
pub(super) struct Case {
    pub label: &'static str,
    /// The words, separated by `|`, with the placeholders of `valkey-benchmark`; a word `;` separates commands.
    pub command: &'static str,
    /// Part of the asked number of requests: what takes long need not be so often.
    pub share: usize,
    /// Commands that make the keys.
    filling: &'static [Filling],
}

#[derive(Debug)]
struct Filling {
    count: Count,
    /// The words of the `i`th command, separated by `|`; of each key or element.
    command: fn(usize) -> String,
}

/// How many commands fill a server.
#[derive(Debug)]
enum Count {
    Fixed(usize),
    /// As many as requests follow.
    Requests,
}

const POINTS: Filling = Filling {
    count: Count::Fixed(100_000),
    // A grid of 316 by 316 points, 3 km apart.
    command: |i| {
        format!("GEOADD|geo|{:.4}|{:.4}|m{i}", 10.0 + (i % 316) as f64 * 0.03, 40.0 + (i / 316) as f64 * 0.03)
    },
};

pub(super) const CASES: &[Case] = &[
    Case { label: "XADD", command: "XADD|s|*|field|value", share: 1, filling: &[] },
    Case {
        label: "XADD MAXLEN ~ 1000",
        command: "XADD|s|MAXLEN|~|1000|*|field|value",
        share: 1,
        filling: &[],
    },
    Case {
        label: "XRANGE of 100",
        command: "XRANGE|s|-|+|COUNT|100",
        share: 20,
        filling: &[Filling {
            count: Count::Fixed(100_000),
            command: |i| format!("XADD|s|{}-0|field|value", i + 1),
        }],
    },
    Case {
        label: "XREADGROUP and XACK",
        command: "XREADGROUP|GROUP|g|c|COUNT|1|STREAMS|s|>|;|XACK|s|g|1__rand_int__-0",
        share: 4,
        filling: &[
            Filling { count: Count::Fixed(1), command: |_| "XGROUP|CREATE|s|g|0|MKSTREAM".to_owned() },
            Filling { count: Count::Requests, command: |i| format!("XADD|s|1{i:012}-0|field|value") },
        ],
    },
    Case {
        label: "EVAL of a GET",
        command: "EVAL|return redis.call('GET', KEYS[1])|1|key:__rand_int__",
        share: 2,
        filling: &[],
    },
    Case {
        label: "EVAL of an INCR",
        command: "EVAL|return redis.call('INCR', KEYS[1])|1|key:__rand_int__",
        share: 2,
        filling: &[],
    },
    Case { label: "SETBIT", command: "SETBIT|key:__rand_int__|7|1", share: 1, filling: &[] },
    Case {
        label: "BITCOUNT of 1 kB",
        command: "BITCOUNT|bits",
        share: 1,
        filling: &[Filling { count: Count::Fixed(1), command: |_| format!("SET|bits|{:x>1024}", "") }],
    },
    Case { label: "PFADD", command: "PFADD|hll|element:__rand_int__", share: 1, filling: &[] },
    Case {
        label: "GEOADD",
        command: "GEOADD|geo|13.__rand_int__|38.__rand_1st__|m__rand_2nd__",
        share: 2,
        filling: &[],
    },
    Case {
        label: "GEOSEARCH of 20 km",
        command: "GEOSEARCH|geo|FROMLONLAT|14|44|BYRADIUS|20|km",
        share: 20,
        filling: &[POINTS],
    },
    Case {
        label: "GEOSEARCH of 20 km, the next 10",
        command: "GEOSEARCH|geo|FROMLONLAT|14|44|BYRADIUS|20|km|ASC|COUNT|10",
        share: 20,
        filling: &[POINTS],
    },
    Case {
        label: "SORT of 100",
        command: "SORT|list",
        share: 20,
        filling: &[Filling { count: Count::Fixed(100), command: |i| format!("RPUSH|list|{}", i * 37 % 100) }],
    },
    Case {
        label: "SORT of 100 BY and GET",
        command: "SORT|list|BY|weight:*|GET|weight:*",
        share: 40,
        filling: &[
            Filling { count: Count::Fixed(100), command: |i| format!("RPUSH|list|{i}") },
            Filling { count: Count::Fixed(100), command: |i| format!("SET|weight:{i}|{}", i * 37 % 100) },
        ],
    },
    Case {
        label: "HSETEX",
        command: "HSETEX|hash:__rand_int__|EX|1000|FIELDS|1|field|value",
        share: 1,
        filling: &[],
    },
    Case {
        label: "HSETEX in a hash",
        command: "HSETEX|hash|EX|1000|FIELDS|1|field:__rand_int__|value",
        share: 1,
        filling: &[],
    },
];

impl Case {
    /// Empties the server and makes the keys.
    pub(super) fn fill(&self, addr: &str, requests: usize) -> Result<(), String> {
        let mut connection = Connection::connect(addr).map_err(|error| error.to_string())?;
        connection.call(&["FLUSHALL", "SYNC"]).map_err(|error| error.to_string())?;
        for Filling { count, command } in self.filling {
            let count = match count {
                Count::Fixed(count) => *count,
                Count::Requests => requests,
            };
            connection.fill(count, |i| command(i).split('|').map(str::to_owned).collect())?;
        }
        Ok(())
    }
}
