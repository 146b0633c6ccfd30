//! Many sequences from one seed. A failing one is shrunk to the steps it needs and printed as lines for the
//! command line client, both replies, and the one line that reproduces it.
#![allow(clippy::disallowed_methods, reason = "a shell: runs against servers for a given time")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::generator::{Action, Client, Generator, Step};
use super::grammar::Grammar;
use super::pair::{Pair, Sending};
use super::pipeline::UNCUT;
use super::runner::{Difference, command_line};
use super::words::Args;

/// Shrinking stops here even if more could go.
const SHRINK_DEADLINE: Duration = Duration::from_secs(20);

/// What the sequences are, and how they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Random steps, each when the one before it is answered.
    #[default]
    OneByOne,
    /// Random commands in one stream, cut at random bytes.
    Pipelined,
    /// In one stream: one template after another, each in the middle of some hundred plain commands. The number of a
    /// sequence is that of its template.
    InTheMiddle,
    /// As one by one, of commands that the grammar of the real Valkey's COMMAND DOCS makes.
    Grammar,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Campaign {
    pub seed: u64,
    /// The number of the first sequence, to run one alone.
    pub first: u64,
    pub sequences: u64,
    pub length: usize,
    /// The protocols, each run with every sequence.
    pub protocols: Vec<u8>,
    pub mode: Mode,
    /// Groups and commands to choose from; all, if empty.
    pub only: Vec<String>,
    /// Groups and commands to leave out.
    pub skip: Vec<String>,
    /// Stop after so many differences of different commands.
    pub differences_max: usize,
    /// Start no further sequence after this time.
    pub time_limit: Option<Duration>,
}

impl Default for Campaign {
    fn default() -> Self {
        Self {
            seed: 1,
            first: 0,
            sequences: 100,
            length: 40,
            protocols: vec![2, 3],
            mode: Mode::OneByOne,
            only: Vec::new(),
            skip: Vec::new(),
            differences_max: 5,
            time_limit: None,
        }
    }
}

/// How a sequence is run.
#[derive(Clone, Copy, Debug)]
struct Way {
    resp: u8,
    sending: Sending,
}

impl Way {
    fn run(self, pair: &Pair, steps: &[Step]) -> Option<Difference> {
        pair.run(steps, self.resp, self.sending)
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sequences: u64,
    pub actions: usize,
    /// A report per difference, shrunk; one per command.
    pub reports: Vec<String>,
    /// How many sequences failed at a command.
    pub failures: BTreeMap<String, usize>,
}

/// Where the sequences come from.
enum Source {
    Templates(Generator),
    Grammar(Grammar),
}

impl Source {
    fn new(campaign: &Campaign, pair: &Pair) -> Result<Source, String> {
        let (only, skip) = (&campaign.only, &campaign.skip);
        Ok(match campaign.mode {
            Mode::Grammar => Source::Grammar(Grammar::of(pair, only, skip)?),
            Mode::OneByOne | Mode::Pipelined | Mode::InTheMiddle => {
                Source::Templates(Generator::new(only, skip)?)
            }
        })
    }

    /// None beyond the last sequence.
    fn steps(&self, campaign: &Campaign, number: u64) -> Option<Vec<Step>> {
        let (seed, length) = (campaign.seed, campaign.length);
        match self {
            Source::Grammar(grammar) => Some(grammar.sequence(seed, number, length)),
            Source::Templates(generator) if campaign.mode == Mode::InTheMiddle => {
                generator.in_the_middle(seed, number, length)
            }
            Source::Templates(generator) => Some(generator.sequence(seed, number, length)),
        }
    }
}

impl Campaign {
    /// Runs all sequences against the pair.
    pub fn run(&self, pair: &Pair) -> Result<Outcome, String> {
        let source = Source::new(self, pair)?;
        let start = Instant::now();
        let mut outcome = Outcome::default();
        for number in self.first..self.first + self.sequences {
            if self.time_limit.is_some_and(|limit| limit <= start.elapsed()) {
                break;
            }
            for &resp in &self.protocols {
                let Some(steps) = source.steps(self, number) else { return Ok(outcome) };
                outcome.actions += steps.iter().map(|step| step.actions.len()).sum::<usize>();
                let way = Way { resp, sending: self.sending(number) };
                let Some(difference) = way.run(pair, &steps) else { continue };
                let known = outcome.failures.entry(difference.command.clone()).or_default();
                *known += 1;
                if *known == 1 {
                    let report = self.report(pair, number, way, steps, difference);
                    outcome.reports.push(report);
                }
                if self.differences_max <= outcome.reports.len() {
                    return Ok(outcome);
                }
            }
            outcome.sequences += 1;
        }
        Ok(outcome)
    }

    fn sending(&self, number: u64) -> Sending {
        match self.mode {
            Mode::OneByOne | Mode::Grammar => Sending::OneByOne,
            Mode::Pipelined => Sending::Pipelined { cuts: self.seed.wrapping_add(number) },
            Mode::InTheMiddle => Sending::Pipelined { cuts: UNCUT },
        }
    }

    fn report(&self, pair: &Pair, number: u64, way: Way, steps: Vec<Step>, difference: Difference) -> String {
        let (steps, difference) = shrink(pair, steps, way, difference);
        let resp = way.resp;
        let mut text = String::new();
        let what = &difference.what;
        let (ours, theirs) = around_difference(&difference.ours, &difference.theirs);
        let seed = self.seed;
        writeln!(text, "Difference in RESP{resp}, seed {seed}, sequence {number}, shrunk to:")
            .expect("a string");
        for action in steps.iter().flat_map(|step| &step.actions) {
            writeln!(text, "    {}", describe(action)).expect("a string");
        }
        writeln!(text, "  at {what}\n    ours:   {ours}\n    theirs: {theirs}").expect("a string");
        write!(
            text,
            "  reproduce: cargo run -p cluster-tests --bin compare -- --seed {seed} --first {number} --sequences 1 \
             --length {} --resp {resp}",
            self.length
        )
        .expect("a string");
        if self.mode != Mode::OneByOne {
            let mode = self.mode.to_possible_value().expect("no mode is hidden");
            write!(text, " --mode {}", mode.get_name()).expect("a string");
        }
        for (flag, words) in [("--only", &self.only), ("--skip", &self.skip)] {
            if !words.is_empty() {
                write!(text, " {flag} {}", words.join(",")).expect("a string");
            }
        }
        text
    }
}

/// Of two long texts, the part where they first differ.
fn around_difference(ours: &str, theirs: &str) -> (String, String) {
    const BEFORE: usize = 200;
    const AFTER: usize = 1000;
    let same = ours.chars().zip(theirs.chars()).take_while(|(ours, theirs)| ours == theirs).count();
    let part = |text: &str| {
        let dots = |cut: bool| if cut { "..." } else { "" };
        let start = if AFTER < text.len() { same.saturating_sub(BEFORE) } else { 0 };
        let shown: String = text.chars().skip(start).take(AFTER).collect();
        format!("{}{shown}{}", dots(0 < start), dots(start + AFTER < text.chars().count()))
    };
    (part(ours), part(theirs))
}

fn describe(action: &Action) -> String {
    let on = |client: Client, args: &Args, rest: &str| match client {
        Client::Main => format!("{}{rest}", command_line(args)),
        other => format!("{}{rest}    # {other:?}", command_line(args)),
    };
    match action {
        Action::Command(client, args) => on(*client, args, ""),
        Action::Send(client, args) => on(*client, args, "    # no reply read yet"),
        Action::AwaitBlocked(client) => format!("# {client:?} is blocked now"),
        Action::Unblock(client) => format!("CLIENT UNBLOCK (of {client:?}, unless it was served)"),
        Action::Subscriber(args) => on(Client::Subscriber, args, ""),
        Action::Scan(args) => on(Client::Main, args, "    # and so on until the cursor is 0"),
    }
}

/// Leaves out steps, then arguments of long commands, as long as the same command still differs.
fn shrink(
    pair: &Pair,
    mut steps: Vec<Step>,
    way: Way,
    mut difference: Difference,
) -> (Vec<Step>, Difference) {
    let start = Instant::now();
    let command = difference.command.clone();
    let mut still_differs = |candidate: &[Step], difference: &mut Difference| {
        if SHRINK_DEADLINE < start.elapsed() {
            return false;
        }
        let found = way.run(pair, candidate).filter(|found| found.command == command);
        found.map(|found| *difference = found).is_some()
    };
    let last = (difference.step + 1).min(steps.len());
    if still_differs(&steps[..last], &mut difference) {
        steps.truncate(last);
    }
    let mut size = steps.len() / 2;
    while 0 < size {
        let mut at = 0;
        while at < steps.len() {
            let mut candidate = steps.clone();
            candidate.drain(at..(at + size).min(steps.len()));
            if still_differs(&candidate, &mut difference) {
                steps = candidate;
            } else {
                at += size;
            }
        }
        // Once more at the finest size while that still finds something to leave out.
        size =
            if size == 1 && 1 < steps.len() && at_least_one_goes(&steps, &mut still_differs, &mut difference)
            {
                1
            } else {
                size / 2
            };
    }
    shorten_arguments(&mut steps, &mut still_differs, &mut difference);
    (steps, difference)
}

fn at_least_one_goes(
    steps: &[Step],
    still_differs: &mut impl FnMut(&[Step], &mut Difference) -> bool,
    difference: &mut Difference,
) -> bool {
    (0..steps.len()).any(|at| {
        let mut candidate = steps.to_vec();
        candidate.remove(at);
        still_differs(&candidate, difference)
    })
}

fn shorten_arguments(
    steps: &mut Vec<Step>,
    still_differs: &mut impl FnMut(&[Step], &mut Difference) -> bool,
    difference: &mut Difference,
) {
    const LONG: usize = 4;
    for step in 0..steps.len() {
        for action in 0..steps[step].actions.len() {
            let mut cut = usize::MAX;
            while 0 < cut {
                let mut candidate = steps.clone();
                let (Action::Command(_, args) | Action::Subscriber(args)) =
                    &mut candidate[step].actions[action]
                else {
                    break;
                };
                cut = cut.min(args.len().saturating_sub(LONG) / 2);
                args.truncate(args.len() - cut);
                if 0 < cut && still_differs(&candidate, difference) {
                    *steps = candidate;
                } else {
                    cut /= 2;
                }
            }
        }
    }
}
