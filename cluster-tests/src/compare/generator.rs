//! Random sequences of steps from a seed.
//!
//! Most steps are one command on the main connection. Others are what a single connection cannot show: a second
//! client that touches watched keys, a client that blocks until another one serves it, a subscriber.
//! A step is never taken apart when a failing sequence is shrunk: a client that is left blocked, or whose
//! replies are off, would only make the comparison wait.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, IteratorRandom};

use super::template::Template;
use super::templates::{BLOCKING, GROUPS, MIDDLE, POPULATING, SUBSCRIBER};
use super::words::{Args, ODD};

/// Which of a server's connections an action uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Main,
    Second,
    Subscriber,
}

impl Client {
    pub const ALL: [Self; 3] = [Self::Main, Self::Second, Self::Subscriber];

    pub fn index(self) -> usize {
        self as usize
    }
}

/// One thing that is done to both servers.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a command, compare its reply.
    Command(Client, Args),
    /// Send a command whose reply comes later, or never.
    Send(Client, Args),
    /// Wait until that client is blocked, or has its reply.
    AwaitBlocked(Client),
    /// End that client's blocking, unless it has ended already, and compare the reply it was waiting for.
    Unblock(Client),
    /// Send a command of the subscriber, compare replies and what was pushed so far.
    Subscriber(Args),
    /// Follow a cursor from 0 to 0, compare all that was returned.
    Scan(Args),
}

/// Actions that belong together.
#[derive(Clone, Debug)]
pub struct Step {
    pub actions: Vec<Action>,
}

/// What to choose from.
#[derive(Debug)]
pub struct Generator {
    groups: Vec<(&'static str, Vec<Template>)>,
    populating: Vec<Template>,
    subscriber: Vec<Template>,
    blocking: Vec<Template>,
    middle: Vec<Template>,
}

impl Generator {
    /// Everything, or only the groups and commands named in `only`, less those in `skip`.
    pub fn new(only: &[String], skip: &[String]) -> Result<Self, String> {
        let wanted = |group: &str, command: &str| {
            let named = |list: &[String]| {
                list.iter().any(|word| word.eq_ignore_ascii_case(group) || word.eq_ignore_ascii_case(command))
            };
            (only.is_empty() || named(only)) && !named(skip)
        };
        let choose = |group: &str, texts: &[&str]| -> Vec<Template> {
            let templates = texts.iter().map(|text| Template::parse(text));
            templates.filter(|template| wanted(group, &template.command_name())).collect()
        };
        let groups: Vec<_> = GROUPS
            .iter()
            .map(|(group, texts)| (*group, choose(group, texts)))
            .filter(|(_, templates)| !templates.is_empty())
            .collect();
        if groups.is_empty() {
            return Err(format!("no group or command of {only:?} is known to the comparison"));
        }
        let populating = POPULATING.iter().map(|text| Template::parse(text));
        Ok(Self {
            populating: populating.filter(|template| !skipped(skip, template)).collect(),
            subscriber: choose("pubsub", SUBSCRIBER),
            middle: choose("middle", MIDDLE),
            blocking: BLOCKING.iter().flat_map(|(group, texts)| choose(group, texts)).collect(),
            groups,
        })
    }

    /// The sequence with that number of that seed: the same one whatever came before it.
    pub fn sequence(&self, seed: u64, number: u64, length: usize) -> Vec<Step> {
        let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
        let mut steps: Vec<Step> = Vec::with_capacity(length);
        if !self.subscriber.is_empty() && rng.random_bool(0.1) {
            steps.push(notifications());
        }
        // One group at a time in most sequences: its commands then meet on the same keys.
        let focus = self.groups.choose(&mut rng).map(|(group, _)| *group).filter(|_| rng.random_bool(0.7));
        let mut mode = Mode::Normal;
        while steps.len() < length {
            let watched = mode == Mode::Normal && self.has("transactions") && rng.random_bool(0.02);
            let made = if watched {
                self.watched_transaction(focus, &mut rng)
            } else {
                vec![self.step(focus, mode, &mut rng)]
            };
            for action in made.iter().flat_map(|step| &step.actions) {
                if let Action::Command(Client::Main, args) = action {
                    mode = mode.after(args);
                }
            }
            steps.extend(made);
        }
        steps
    }

    /// Some data, then the template with that number with `around` plain commands before and behind it. None beyond
    /// the last template.
    pub fn in_the_middle(&self, seed: u64, number: u64, around: usize) -> Option<Vec<Step>> {
        let templates = self.groups.iter().flat_map(|(_, templates)| templates);
        let mut templates = templates.chain(&self.subscriber).chain(&self.middle);
        let template = templates.nth(usize::try_from(number).ok()?)?;
        let mut rng = SmallRng::seed_from_u64(seed);
        let plain = |numbers: std::ops::Range<usize>| -> Vec<Step> {
            let line = |number| match number % 3 {
                0 => format!("ECHO {number}"),
                1 => format!("SET plain:{number} {number}"),
                _ => format!("INCR plain:{}", number % 7),
            };
            numbers.map(|number| command(Client::Main, word(&line(number)))).collect()
        };
        let mut steps: Vec<Step> = self
            .populating
            .iter()
            .map(|template| commands(Client::Main, template.expand(&mut rng)))
            .collect();
        steps.extend(plain(0..around));
        steps.push(commands(Client::Main, template.expand(&mut rng)));
        steps.extend(plain(around..2 * around));
        Some(steps)
    }

    fn has(&self, group: &str) -> bool {
        self.groups.iter().any(|(name, _)| *name == group)
    }

    /// WATCH, something that may touch the keys from either client, MULTI, commands, EXEC.
    fn watched_transaction(&self, focus: Option<&str>, rng: &mut SmallRng) -> Vec<Step> {
        let watch = Template::parse("WATCH { $k } $l $z").expand(rng);
        let mut steps = vec![commands(Client::Main, watch)];
        for _ in 0..rng.random_range(0..3) {
            let Some(template) = self.populating.choose(rng) else { continue };
            let client = if rng.random_bool(0.5) { Client::Second } else { Client::Main };
            steps.push(commands(client, template.expand(rng)));
        }
        steps.push(command(Client::Main, word("MULTI")));
        for _ in 0..rng.random_range(1..5) {
            steps.push(self.step(focus, Mode::Transaction, rng));
        }
        steps.push(command(Client::Main, word("EXEC")));
        steps
    }

    fn step(&self, focus: Option<&str>, mode: Mode, rng: &mut SmallRng) -> Step {
        let chance = rng.random_range(0..100);
        if mode == Mode::Transaction && chance < 15 {
            return command(Client::Main, word(if chance < 12 { "EXEC" } else { "DISCARD" }));
        }
        if chance < 18 && !self.populating.is_empty() {
            let client = if chance < 2 { Client::Second } else { Client::Main };
            return commands(client, self.populating.choose(rng).expect("not empty").expand(rng));
        }
        if chance < 21
            && mode == Mode::Normal
            && let Some(template) = self.blocking.choose(rng)
        {
            return blocking(template.expand(rng));
        }
        if (chance < 25 || focus == Some("pubsub") && chance < 60)
            && let Some(template) = self.subscriber.choose(rng)
        {
            let actions = template.expand(rng).into_iter().map(Action::Subscriber).collect();
            return Step { actions };
        }
        if chance < 26 && self.has("connection") {
            return replies_off(rng);
        }
        if chance < 27 && mode == Mode::Normal && self.has("tracking") {
            return tracking(rng);
        }
        if chance < 28 && self.has("transactions") {
            return command(Client::Main, word("MULTI"));
        }
        let focused =
            self.groups.iter().find(|(group, _)| Some(*group) == focus).filter(|_| rng.random_bool(0.8));
        let (_, templates) = focused.or_else(|| self.groups.choose(rng)).expect("there are groups");
        let mut made = templates.choose(rng).expect("a kept group has templates").expand(rng);
        if made.len() == 1 && rng.random_bool(0.05) {
            spoil(&mut made[0], rng);
        }
        let client = if rng.random_bool(0.06) { Client::Second } else { Client::Main };
        commands(client, made)
    }
}

/// The second client reads with tracking on; what follows invalidates it.
fn tracking(rng: &mut SmallRng) -> Step {
    const TEXT: &str =
        "CLIENT TRACKING ON < OPTIN | OPTOUT | NOLOOP > ; GET $s ; MGET $s $n ; HGETALL $h ; LRANGE $l 0 -1";
    commands(Client::Second, Template::parse(TEXT).expand(rng))
}

fn skipped(skip: &[String], template: &Template) -> bool {
    skip.iter().any(|word| word.eq_ignore_ascii_case(&template.command_name()))
}

fn word(text: &str) -> Args {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn command(client: Client, args: Args) -> Step {
    commands(client, vec![args])
}

pub(super) fn commands(client: Client, made: Vec<Args>) -> Step {
    let action = |args: Args| match name(&args).as_str() {
        "SCAN" | "HSCAN" | "SSCAN" | "ZSCAN" if client == Client::Main => Action::Scan(args),
        _ => Action::Command(client, args),
    };
    Step { actions: made.into_iter().map(action).collect() }
}

/// The first word in capitals.
pub fn name(args: &Args) -> String {
    args.first().map(|word| String::from_utf8_lossy(word).to_ascii_uppercase()).unwrap_or_default()
}

/// What the main connection is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Normal,
    Transaction,
}

impl Mode {
    fn after(self, args: &Args) -> Mode {
        match name(args).as_str() {
            "MULTI" => Mode::Transaction,
            "EXEC" | "DISCARD" | "RESET" => Mode::Normal,
            _ => self,
        }
    }
}

/// The first command waits on the second connection while the others run on the main one.
fn blocking(made: Vec<Args>) -> Step {
    let mut made = made.into_iter();
    let waiting = made.next().expect("a blocking template has commands");
    let mut actions = vec![Action::Send(Client::Second, waiting), Action::AwaitBlocked(Client::Second)];
    actions.extend(made.map(|args| Action::Command(Client::Main, args)));
    actions.push(Action::Unblock(Client::Second));
    Step { actions }
}

/// Keyspace events of everything that follows.
fn notifications() -> Step {
    Step {
        actions: vec![
            Action::Command(Client::Main, word("CONFIG SET notify-keyspace-events KEA")),
            Action::Subscriber(word("PSUBSCRIBE __key*__:*")),
        ],
    }
}

fn replies_off(rng: &mut SmallRng) -> Step {
    let (off, on) = if rng.random_bool(0.5) { ("OFF", true) } else { ("SKIP", false) };
    let silent = |args| Action::Send(Client::Second, args);
    let mut actions = vec![silent(word(&format!("CLIENT REPLY {off}"))), silent(word("SET s1 unseen"))];
    if on {
        actions.push(Action::Command(Client::Second, word("CLIENT REPLY ON")));
    }
    actions.push(Action::Command(Client::Second, word("GET s1")));
    Step { actions }
}

/// Makes a command wrong in one of the ways that clients do, unless that could make it wait or fill the memory.
pub(super) fn spoil(args: &mut Args, rng: &mut SmallRng) {
    const DELICATE: [&str; 15] = [
        "WAIT",
        "WAITAOF",
        "SRANDMEMBER",
        "HRANDFIELD",
        "ZRANDMEMBER",
        "SPOP",
        "CLIENT",
        "CONFIG",
        "SETBIT",
        "BITFIELD",
        "XREAD",
        "XREADGROUP",
        "LATENCY",
        "SLOWLOG",
        "COMMANDLOG",
    ];
    let name = name(args);
    if DELICATE.contains(&name.as_str()) || name.starts_with('B') && name != "BITCOUNT" {
        return;
    }
    match rng.random_range(0..6) {
        0 if 1 < args.len() => args.truncate(args.len() - 1),
        1 => args.push(odd(rng)),
        2 | 3 => {
            if let Some(arg) = args.iter_mut().skip(1).choose(rng) {
                *arg = odd(rng);
            }
        }
        4 => args.truncate(1),
        _ => args[0] = args[0].to_ascii_lowercase(),
    }
}

fn odd(rng: &mut SmallRng) -> Vec<u8> {
    ODD.choose(rng).expect("not empty").to_vec()
}
