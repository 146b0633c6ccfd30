//! Keyward's replies equal the real Valkey's, byte by byte, on random command sequences in both protocols.
//!
//! Damaged bytes get the same replies, and the same end of the connection.
//!
//! Further tests look at the comparison itself: Valkey equals Valkey, and a Valkey with one command exchanged
//! for another is found out with a sequence of a few commands, one with another limit with a few bytes.

use std::time::Duration;

use cluster_tests::compare::campaign::{Campaign, Mode, Outcome};
use cluster_tests::compare::framing::{self, Pairs};
use cluster_tests::compare::grammar::Grammar;
use cluster_tests::compare::pair::Pair;
use cluster_tests::compare::templates::CORE_GROUPS;
use cluster_tests::processes::Server;
use cluster_tests::programs;

fn run(ours: &Server, theirs: &Server, campaign: &Campaign) -> Outcome {
    let pair = Pair { ours: ours.addr(), theirs: theirs.addr() };
    campaign.run(&pair).expect("the campaign names known commands")
}

fn assert_equal(outcome: &Outcome) {
    assert!(outcome.reports.is_empty(), "\n{}", outcome.reports.join("\n\n"));
    assert!(0 < outcome.actions);
}

#[test]
fn replies_equal_valkeys_on_random_sequences() {
    let Some(dir) = programs::valkey_or_skip("comparison with Valkey") else { return };
    let valkey = Server::valkey(&dir, &[]).unwrap();
    let keyward = Server::keyward(&[]).unwrap();
    // A bounded number of sequences, so that every machine compares the same; fresh seeds are one command away.
    for seed in [1, 2, 3, 4] {
        let campaign = Campaign {
            seed,
            sequences: 120,
            // In a stream Valkey tells who broadcasts when all of it is executed.
            only: core_groups(&["tracking"]),
            time_limit: Some(Duration::from_secs(60)),
            ..Campaign::default()
        };
        assert_equal(&run(&keyward, &valkey, &campaign));
    }
}

/// About 20,000 commands, in both protocols.
#[test]
fn replies_equal_valkeys_to_commands_that_its_grammar_makes() {
    let Some(dir) = programs::valkey_or_skip("comparison by the grammar") else { return };
    let valkey = Server::valkey(&dir, &[]).unwrap();
    let keyward = Server::keyward(&[]).unwrap();
    let campaign = Campaign {
        mode: Mode::Grammar,
        sequences: 100,
        length: 100,
        time_limit: Some(Duration::from_secs(120)),
        ..Campaign::default()
    };
    let outcome = run(&keyward, &valkey, &campaign);
    assert_equal(&outcome);
    let pair = Pair { ours: keyward.addr(), theirs: valkey.addr() };
    let grammar = Grammar::of(&pair, &[], &[]).unwrap();
    assert!(180 < grammar.commands().len(), "{:?}", grammar.commands().collect::<Vec<_>>());
}

fn core_groups(and: &[&str]) -> Vec<String> {
    CORE_GROUPS.iter().chain(and).map(|group| (*group).to_owned()).collect()
}

#[test]
fn replies_equal_valkeys_in_streams_that_are_cut_at_random_bytes() {
    let Some(dir) = programs::valkey_or_skip("comparison with Valkey") else { return };
    let valkey = Server::valkey(&dir, &[]).unwrap();
    let keyward = Server::keyward(&[]).unwrap();
    let campaign = Campaign {
        mode: Mode::Pipelined,
        sequences: 60,
        length: 500,
        only: core_groups(&[]),
        time_limit: Some(Duration::from_secs(60)),
        ..Campaign::default()
    };
    assert_equal(&run(&keyward, &valkey, &campaign));
}

#[test]
fn every_command_leaves_the_rest_of_a_stream_as_valkey_does() {
    let Some(dir) = programs::valkey_or_skip("comparison with Valkey") else { return };
    let valkey = Server::valkey(&dir, &["--enable-debug-command", "yes"]).unwrap();
    let keyward = Server::keyward(&["--enable-debug-command", "yes"]).unwrap();
    let campaign = Campaign {
        mode: Mode::InTheMiddle,
        sequences: u64::MAX,
        // More than a batch in all.
        length: 80,
        only: core_groups(&["middle"]),
        ..Campaign::default()
    };
    assert_equal(&run(&keyward, &valkey, &campaign));
}

#[test]
fn valkey_equals_itself() {
    let Some(dir) = programs::valkey_or_skip("comparison of Valkey with itself") else { return };
    let one = Server::valkey(&dir, &[]).unwrap();
    let other = Server::valkey(&dir, &[]).unwrap();
    let campaign =
        Campaign { sequences: 60, time_limit: Some(Duration::from_secs(10)), ..Campaign::default() };
    assert_equal(&run(&one, &other, &campaign));
}

#[test]
fn an_exchanged_command_is_found_and_shrunk() {
    let Some(dir) = programs::valkey_or_skip("comparison with a changed Valkey") else { return };
    let exchanged = ["--rename-command", "LPOP", "", "--rename-command", "RPOP", "LPOP"];
    let changed = Server::valkey(&dir, &exchanged).unwrap();
    let valkey = Server::valkey(&dir, &[]).unwrap();
    let campaign = Campaign { only: vec!["LPOP".into()], differences_max: 1, ..Campaign::default() };
    let outcome = run(&changed, &valkey, &campaign);
    let [report] = outcome.reports.as_slice() else { panic!("nothing found in {outcome:?}") };
    let commands = report.lines().filter(|line| line.starts_with("    ") && !line.contains("s:  ")).count();
    assert!(commands <= 4, "not shrunk: {report}");
}

/// What is done with damaged bytes shows in the order in which one thread does it.
const ONE_THREAD: [&str; 2] = ["--io-threads", "1"];

#[test]
fn damaged_bytes_get_valkeys_replies_and_end() {
    let Some(dir) = programs::valkey_or_skip("comparison of framing with Valkey") else { return };
    let valkey = [(); 2].map(|()| Server::valkey(&dir, &ONE_THREAD).unwrap());
    let keyward = [(); 2].map(|()| Server::keyward(&ONE_THREAD).unwrap());
    let pair = |number: usize| Pair { ours: keyward[number].addr(), theirs: valkey[number].addr() };
    let pairs = Pairs { open: pair(0), guarded: pair(1) };
    let campaign = framing::Campaign {
        seed: 1,
        first: 0,
        cases: 1000,
        differences_max: 5,
        time_limit: Some(Duration::from_secs(60)),
    };
    let outcome = campaign.run(&pairs).unwrap();
    assert!(outcome.reports.is_empty(), "\n{}", outcome.reports.join("\n\n"));
    // Enough connections end and enough go on.
    assert!(outcome.cases / 10 < outcome.closed && outcome.closed < outcome.cases * 9 / 10, "{outcome:?}");
}

#[test]
fn another_limit_is_found_and_shrunk() {
    let Some(dir) = programs::valkey_or_skip("comparison of framing with a changed Valkey") else { return };
    let (one, other) = (
        Server::valkey(&dir, &ONE_THREAD).unwrap(),
        Server::valkey(&dir, &["--proto-max-bulk-len", "1mb"]).unwrap(),
    );
    let guarded = Server::valkey(&dir, &ONE_THREAD).unwrap();
    let pairs = Pairs {
        open: Pair { ours: one.addr(), theirs: other.addr() },
        guarded: Pair { ours: guarded.addr(), theirs: guarded.addr() },
    };
    let campaign = framing::Campaign { seed: 1, first: 0, cases: 3000, differences_max: 1, time_limit: None };
    let outcome = campaign.run(&pairs).unwrap();
    let [report] = outcome.reports.as_slice() else { panic!("nothing found in {outcome:?}") };
    assert!(report.contains("invalid bulk length") && report.len() < 700, "not shrunk: {report}");
}
