//! Random commands from what a server says of their arguments (COMMAND DOCS): every option of every data command that both
//! servers have, also in combinations that nobody wrote a template for.
//!
//! The grammar says where a key, a number or a word stands; what is put there goes by its name, and is as few and as awkward
//! as the words of the templates ([`super::words`]). Mostly a command is right. Numbers of keys that lie, options that
//! exclude each other, and arguments that are missing or no argument at all come now and then.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::generator::{Client, Step, commands, spoil};
use super::pair::Pair;
use super::template::Template;
use super::templates::POPULATING;
use super::words::{Args, Words};
use crate::resp_client::{Connection, Frame};

/// Groups of data commands with the letter of the keys that hold their type.
const GROUPS: &[(&str, &str)] = &[
    ("bitmap", "b"),
    ("generic", "k"),
    ("geo", "g"),
    ("hash", "h"),
    ("hyperloglog", "p"),
    ("list", "l"),
    ("set", "t"),
    ("sorted-set", "z"),
    ("stream", "x"),
    ("string", "s"),
];

/// What is left out, and why.
const EXCLUDED: &[(&str, &str)] = &[
    ("dump", "the payload names another version of the format"),
    ("restore", "its payloads are compared by tests of their own"),
    ("migrate", "it needs a third server"),
    ("object|freq", "it needs a policy of eviction"),
    ("object|idletime", "it tells of times"),
    ("pfselftest", "it takes seconds"),
    ("sort", "in Valkey it changes the encoding of a sorted set"),
    ("sort_ro", "in Valkey it changes the encoding of a sorted set"),
    ("spop", "what it removes is left to chance, and so all that comes after"),
    ("wait", "it waits"),
    ("waitaof", "it waits"),
    ("xinfo|consumers", "it tells of times"),
    ("xinfo|stream", "it tells of times"),
    ("xautoclaim", "where it begins anew depends on times"),
];

/// Arguments that are never given, and why.
const EXCLUDED_ARGUMENTS: &[(&str, &str, &str)] = &[
    ("xadd", "auto-id", "the ID is the time"),
    ("zrange", "bylex", "with different scores its result is an accident"),
    ("zrangestore", "bylex", "with different scores its result is an accident"),
    ("xclaim", "ms", "it counts from the time"),
];

/// What has to be there for commands to meet on it, beside what all sequences put there.
const POPULATING_TOO: &[&str] = &[
    "XADD $x ( 1-1 | 1-2 | 2-1 | 3-0 | 5-1 | 9-9 ) { $f $v }",
    "XGROUP CREATE $x ( g1 | g2 ) ( 0 | 1-1 | $ ) MKSTREAM",
    "XREADGROUP GROUP g1 ( alice | bob ) COUNT 2 STREAMS $x >",
    "GEOADD $g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",
    "PFADD $p { $m }",
    "SETBIT $b ( 0 | 7 | 9 | 100 ) 1",
    "ZADD $lexkey { 0 $m }",
    "HSETEX $h PX 1000000 FIELDS 1 a 1",
    "EXPIRE $k 1000",
];

/// An argument, as COMMAND DOCS describes it.
#[derive(Debug, Clone)]
struct Argument {
    name: String,
    kind: String,
    token: Option<String>,
    flags: BTreeSet<String>,
    parts: Vec<Argument>,
}

impl Argument {
    fn is(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }
}

#[derive(Debug, Clone)]
struct Command {
    /// As COMMAND LIST has it: `xgroup|create`.
    name: String,
    group: String,
    letter: &'static str,
    arguments: Vec<Argument>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Grammar {
    commands: Vec<Command>,
    populating: Vec<Template>,
}

impl Grammar {
    /// Of the commands that both servers have; only those and the groups that are named in `only`, if any are, less those
    /// in `skip`.
    pub fn of(pair: &Pair, only: &[String], skip: &[String]) -> Result<Grammar, String> {
        let ask = |addr: &str, words: &[&str]| {
            let mut client = Connection::connect(addr).map_err(|e| e.to_string())?;
            client.call(words).map_err(|e| format!("{words:?}: {e}"))
        };
        let list = ask(&pair.ours, &["COMMAND", "LIST"])?;
        let ours: BTreeSet<String> = list.items.iter().map(Frame::string).collect();
        let mut all = Vec::new();
        read_commands(&ask(&pair.theirs, &["COMMAND", "DOCS"])?, &mut all);
        let named = |list: &[String], command: &Command| {
            list.iter().any(|word| {
                word.eq_ignore_ascii_case(&command.group) || word.eq_ignore_ascii_case(&command.name)
            })
        };
        all.retain(|command| {
            ours.contains(&command.name)
                && !EXCLUDED.iter().any(|(name, _)| *name == command.name)
                && (only.is_empty() || named(only, command))
                && !named(skip, command)
        });
        if all.is_empty() {
            return Err(format!("no group or command of {only:?} is known to the grammar"));
        }
        let populating = POPULATING.iter().chain(POPULATING_TOO).map(|text| Template::parse(text)).collect();
        Ok(Grammar { commands: all, populating })
    }

    /// Their names.
    pub fn commands(&self) -> impl ExactSizeIterator<Item = &str> {
        self.commands.iter().map(|command| &*command.name)
    }

    /// The sequence with that number of that seed: the same one whatever came before it.
    pub fn sequence(&self, seed: u64, number: u64, length: usize) -> Vec<Step> {
        let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
        let focus = self.commands.choose(&mut rng).map(|command| command.group.clone());
        let focused: Vec<&Command> =
            self.commands.iter().filter(|command| Some(&command.group) == focus.as_ref()).collect();
        (0..length).map(|_| self.step(&focused, &mut rng)).collect()
    }

    fn step(&self, focused: &[&Command], rng: &mut SmallRng) -> Step {
        if rng.random_bool(0.2) {
            return commands(Client::Main, self.populating.choose(rng).expect("there are some").expand(rng));
        }
        let any = self.commands.choose(rng).expect("there are commands");
        let command = focused.choose(rng).copied().filter(|_| rng.random_bool(0.75)).unwrap_or(any);
        let mut args = command.expand(rng);
        if rng.random_bool(0.06) {
            spoil(&mut args, rng);
        }
        commands(Client::Main, vec![args])
    }
}

impl Command {
    fn expand(&self, rng: &mut SmallRng) -> Args {
        let mut args: Args =
            self.name.split('|').map(|word| word.to_ascii_uppercase().into_bytes()).collect();
        Expansion { command: self, words: Words::default() }.list(&self.arguments, rng, &mut args);
        args
    }

    /// The words for an argument that is no token.
    fn hole(&self, argument: &Argument) -> &str {
        let name = argument.name.to_ascii_lowercase();
        let has = |part: &str| self.name.contains(part);
        match (&*argument.kind, &*name) {
            ("key", _) if has("lex") => "lexkey",
            ("key", _) if has("incr") && self.group == "string" || has("decr") => "n",
            ("key", _) => self.letter,
            ("pattern", "by-pattern" | "get-pattern") => "sorted",
            ("pattern", _) => "pat",
            ("double", "longitude") => "lon",
            ("double", "latitude") => "lat",
            ("double", "radius" | "height" | "width") => "radius",
            ("double", "timeout") => "to",
            ("double", "min" | "max") => "min",
            ("double", "increment") => "fl",
            ("double", _) => "sc",
            ("unix-time", name) => {
                if name.contains("milli") {
                    "pat_ms"
                } else {
                    "at"
                }
            }
            ("integer", "cursor") => "cur",
            ("integer", "db" | "destination-db") => "db",
            ("integer", "timeout") => "toms",
            ("integer", "milliseconds") if has("xread") => "toms",
            ("integer", "milliseconds") => "pttl",
            ("integer", "seconds" | "ttl") => "ttl",
            ("integer", "count") if has("rand") => "rc",
            ("integer", "count" | "limit" | "len" | "num-matches" | "rank" | "min-match-len") => "c",
            ("integer", "index") => "near",
            ("integer", "offset") if has("bitfield") => "bfo",
            ("integer", "offset") if has("setrange") => "near",
            ("integer", "offset") if has("bit") => "off",
            ("integer", "start" | "stop" | "end" | "offset") => "d",
            ("integer", "bit") => "bit",
            ("integer", "weight") => "sc",
            ("integer", "increment" | "decrement" | "value") => "i",
            ("integer", _) => "small",
            ("string", "field") => "f",
            ("string", "member" | "member1" | "member2") if self.group == "geo" => "place",
            ("string", "member" | "member1" | "member2") => "m",
            ("string", "element" | "pivot") => "e",
            ("string", "min") if has("lex") => "lmin",
            ("string", "max") if has("lex") => "lmax",
            ("string", "min" | "max") => "min",
            ("string", "start" | "stop" | "end") if self.group == "sorted-set" => "d",
            (
                "string",
                "id" | "last-id" | "lastid" | "threshold" | "max-deleted-id" | "start" | "end" | "stop",
            ) => "id",
            ("string", "min-idle-time") => "bit",
            ("string", "group") => "group",
            ("string", "consumer") => "consumer",
            ("string", "encoding") => "bft",
            ("string", "type") => "type",
            _ => "v",
        }
    }
}

/// Of one command.
struct Expansion<'a> {
    command: &'a Command,
    words: Words,
}

impl Expansion<'_> {
    /// Arguments that follow each other. Those that may be repeated are so equally often, and a number among them tells how
    /// often; now and then they are not, and it does not. Options may come in any order. No key is left out: Valkey looks
    /// for some options from the first argument on, and so takes a key for one (`HGETEX FIELDS 1 a`).
    fn list(&mut self, arguments: &[Argument], rng: &mut SmallRng, out: &mut Args) {
        let times = 1 + (0..2).filter(|_| rng.random_bool(0.4)).count();
        let mut order: Vec<&Argument> = arguments.iter().collect();
        for run in order.chunk_by_mut(|a, b| a.is("optional") == b.is("optional")) {
            if run[0].is("optional") && rng.random_bool(0.3) {
                run.shuffle(rng);
            }
        }
        for argument in order {
            let share = match &*argument.kind {
                _ if argument.is("optional") => 0.35,
                "key" => 1.0,
                _ => 0.985,
            };
            if rng.random_bool(share) && !self.is_excluded(argument) {
                let times = if rng.random_bool(0.03) { times + 1 } else { times };
                self.argument(argument, times, rng, out);
            }
        }
    }

    fn is_excluded(&self, argument: &Argument) -> bool {
        EXCLUDED_ARGUMENTS
            .iter()
            .any(|(command, name, _)| (*command, *name) == (&self.command.name, &argument.name))
    }

    fn argument(&mut self, argument: &Argument, times: usize, rng: &mut SmallRng, out: &mut Args) {
        let token = |rng: &mut SmallRng, out: &mut Args| {
            if let Some(token) = &argument.token {
                let is_small = rng.random_bool(0.05);
                out.push(if is_small { token.to_ascii_lowercase() } else { token.clone() }.into_bytes());
            }
        };
        let repeats = if argument.is("multiple") { times } else { 1 };
        for number in 0..repeats {
            if number == 0 || argument.is("multiple_token") {
                token(rng, out);
            }
            match &*argument.kind {
                "pure-token" => {}
                "oneof" => {
                    let parts: Vec<&Argument> =
                        argument.parts.iter().filter(|part| !self.is_excluded(part)).collect();
                    if let Some(part) = parts.choose(rng) {
                        self.argument(part, times, rng, out);
                    }
                }
                "block" => self.list(&argument.parts, rng, out),
                "integer" if argument.name.starts_with("num") && argument.name != "num-matches" => {
                    let odd = rng.random_bool(0.05);
                    let count = if odd { *[0, -1, 4, 1000].choose(rng).expect("four") } else { times as i64 };
                    out.push(count.to_string().into_bytes());
                }
                _ => self.words.fill(self.command.hole(argument), rng, out),
            }
        }
    }
}

/// The names and values of what is a map in RESP3.
fn fields(frame: &Frame) -> impl Iterator<Item = (String, &Frame)> {
    frame.items.chunks_exact(2).map(|pair| (pair[0].string(), &pair[1]))
}

fn read_commands(docs: &Frame, out: &mut Vec<Command>) {
    for (name, described) in fields(docs) {
        let (mut group, mut arguments, mut subcommands) = (String::new(), Vec::new(), None);
        for (field, value) in fields(described) {
            match &*field {
                "group" => group = value.string(),
                "arguments" => arguments = value.items.iter().map(read_argument).collect(),
                "subcommands" => subcommands = Some(value),
                _ => {}
            }
        }
        let letter = GROUPS.iter().find(|(known, _)| *known == group).map(|(_, letter)| *letter);
        match (subcommands, letter) {
            (Some(subcommands), _) => read_commands(subcommands, out),
            (None, Some(letter)) => out.push(Command { name, group, letter, arguments }),
            (None, None) => {}
        }
    }
}

fn read_argument(frame: &Frame) -> Argument {
    let (name, kind, parts) = (String::new(), String::new(), Vec::new());
    let mut argument = Argument { name, kind, token: None, flags: BTreeSet::new(), parts };
    for (field, value) in fields(frame) {
        match &*field {
            "name" => argument.name = value.string(),
            "type" => argument.kind = value.string(),
            "token" => argument.token = Some(value.string()),
            "flags" => argument.flags = value.items.iter().map(Frame::string).collect(),
            "arguments" => argument.parts = value.items.iter().map(read_argument).collect(),
            _ => {}
        }
    }
    argument
}
