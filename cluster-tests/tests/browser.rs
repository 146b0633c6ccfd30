//! The page of the sentinels in a real browser: it opens, shows a failover within a second, and can be used with a keyboard
//! and on a phone. Without Chromium nothing is tested. `KEYWARD_SCREENSHOTS=FOLDER` keeps pictures.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::browser::{Browser, View};
use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::processes::{free_port, wait_until};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
/// What a node may call its zone.
const HOSTILE: &str = "<img src=x onerror=hurt()>";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn wait_for(browser: &mut Browser, expression: &str) -> Value {
    let mut value = Value::Null;
    let is_so = wait_until(PATIENCE, || {
        value = browser.evaluate(expression).unwrap();
        !matches!(&value, Value::Null | Value::Bool(false)) && value != 0 && value != ""
    });
    assert!(is_so, "{expression}: {}", browser.evaluate("document.body.innerText").unwrap());
    value
}

fn look_at_everything(browser: &mut Browser, what: &str) {
    let folder = std::env::var_os("KEYWARD_SCREENSHOTS").map(PathBuf::from);
    for (width, height) in [(1280, 900), (390, 844), (360, 640)] {
        for scheme in ["light", "dark"] {
            browser.look(View { width, height, scheme }).unwrap();
            let wide = browser.evaluate("document.documentElement.scrollWidth").unwrap();
            assert!(wide.as_u64().unwrap() <= u64::from(width), "it is {wide} wide on a screen of {width}");
            if let Some(folder) = &folder {
                browser.save_screenshot(&folder.join(format!("{what}-{width}-{scheme}.png"))).unwrap();
            }
        }
    }
    browser.look(View { width: 1280, height: 900, scheme: "light" }).unwrap();
}

/// What has the focus.
fn focus(browser: &mut Browser) -> String {
    let words = "document.activeElement.id || document.activeElement.textContent";
    browser.evaluate(words).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_failover_is_seen_within_a_second_and_a_hand_over_done_by_keyboard() {
    let Some(mut browser) = Browser::start().unwrap() else {
        println!("no Chromium is installed: the page is not looked at");
        return;
    };
    let dir = TempDir::new().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let ports = RefCell::<Vec<u16>>::default();
    let with_page = || {
        ports.borrow_mut().push(free_port());
        let port = ports.borrow().last().unwrap().to_string();
        ["--http-port", &port, "--http-admin-token-file", token.to_str().unwrap()].map(str::to_owned).into()
    };
    let mut cluster = Cluster::start_with(Mode::Replicated, &with_page, &["--zone", HOSTILE]).unwrap();
    let old = cluster.wait_until_healed().unwrap()[0].primary;
    // Not the leader's page: what the others show has come from it.
    let leader = cluster.leading_sentinel().unwrap();
    let port = ports.borrow()[(leader + 1) % 3];
    browser.open(&format!("http://127.0.0.1:{port}/")).unwrap();
    wait_for(&mut browser, "document.querySelectorAll('tr[data-node]').length === 3");
    wait_for(&mut browser, "document.getElementById('verdict').textContent === 'OK'");
    let zone = "document.querySelector('tr[data-node] [data-part=zone]').textContent";
    assert_eq!(browser.evaluate(zone).unwrap(), HOSTILE, "a name is a text");
    look_at_everything(&mut browser, "well");

    let watch = "window.seenAt = 0;
        const list = document.getElementById('timeline');
        const look = () => {
          const first = list.querySelector('[data-part=what]');
          if (!window.seenAt && first && first.textContent.includes('failed over')) window.seenAt = Date.now();
        };
        new MutationObserver(look).observe(list, { childList: true, subtree: true, characterData: true });";
    browser.evaluate(watch).unwrap();
    cluster.nodes[old].kill();
    let seen_at = wait_for(&mut browser, "window.seenAt").as_u64().unwrap();
    let decided_at = browser.evaluate("report.timeline[0].at_millis").unwrap().as_u64().unwrap();
    let after = seen_at.saturating_sub(decided_at);
    println!("the page shows the failover {after} ms after it was committed");
    assert!(after < 1000, "{after} ms");
    wait_for(&mut browser, "document.getElementById('problems').textContent.includes('is down')");
    let news = wait_for(&mut browser, "document.getElementById('news').textContent");
    assert!(news.as_str().unwrap().contains("failed over"), "a screen reader is told: {news}");
    wait_for(
        &mut browser,
        "document.querySelectorAll('#timeline [data-part=list]')[0].textContent.includes('leases')",
    );
    look_at_everything(&mut browser, "failover");

    cluster.nodes[old].restart().unwrap();
    let primary = cluster.wait_until_healed().unwrap()[0].primary;
    wait_for(&mut browser, "document.getElementById('verdict').textContent === 'OK'");
    browser.evaluate("document.activeElement.blur()").unwrap();
    browser.press("Tab").unwrap();
    assert_eq!(focus(&mut browser), "To what is wrong", "the first stop is the way past the head");
    let mut stops = 0;
    while focus(&mut browser) != "Hand over …" {
        stops += 1;
        assert!(stops < 10, "no way to the button");
        browser.press("Tab").unwrap();
    }
    browser.press("Enter").unwrap();
    wait_for(&mut browser, "document.getElementById('dialog').open");
    assert_eq!(focus(&mut browser), "token");
    browser.type_text("wrong").unwrap();
    browser.press("Enter").unwrap();
    wait_for(&mut browser, "document.getElementById('outcome').textContent === 'the token is wrong'");
    look_at_everything(&mut browser, "dialog");
    browser
        .evaluate("document.getElementById('token').value = ''; document.getElementById('token').focus()")
        .unwrap();
    browser.type_text(TOKEN).unwrap();
    browser.press("Enter").unwrap();
    wait_for(&mut browser, "document.getElementById('outcome').textContent.startsWith('OK, the primary is')");
    wait_for(&mut browser, "document.getElementById('timeline').textContent.includes('handed over')");
    assert_ne!(cluster.wait_until_healed().unwrap()[0].primary, primary);
    browser.press("Escape").unwrap();
    wait_for(&mut browser, "!document.getElementById('dialog').open");
    assert_eq!(focus(&mut browser), "Hand over …", "it goes back to where it was");
    look_at_everything(&mut browser, "handoff");

    // The wrong token is an answer that browsers log as an error.
    let faults: Vec<_> = browser.faults().iter().filter(|fault| !fault.contains("401")).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let sentinel = (leader + 1) % 3;
    cluster.sentinels[sentinel].kill();
    wait_for(&mut browser, "document.body.classList.contains('stale')");
    look_at_everything(&mut browser, "stale");
    cluster.sentinels[sentinel].restart().unwrap();
    wait_for(&mut browser, "!document.body.classList.contains('stale')");
}
