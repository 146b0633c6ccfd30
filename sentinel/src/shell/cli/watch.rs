//! `status --watch`: asks about twice a second, and draws what is answered, until it is told to end.
#![allow(clippy::disallowed_methods, reason = "shell: asks again and again, and draws")]

use std::io::{self, IsTerminal, Write, stdout};
use std::time::Duration;

use keyward_net::bus::Bus;
use keyward_proto::rpc;
use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::{ask_for_status, ask_nodes, names, operator};
use crate::config::{NamedAddress, Target};
use crate::rules::status::watched::{ENTER, LEAVE, Screen, Watched};
use crate::rules::status::{Printed, StatusReport, from_nodes};
use crate::shell::sentinel::wall_millis;

const PERIOD: Duration = Duration::from_millis(500);
/// Of a terminal that does not say how large it is.
const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

pub(super) async fn status(target: &Target, nodes: &[NamedAddress]) -> Result<Printed, String> {
    let bus = operator(target)?;
    let words = |error: io::Error| error.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(words)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(words)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(words)?;
    let mut watched = Watched::new(names(nodes));
    let is_terminal = stdout().is_terminal();
    if is_terminal {
        write(ENTER).map_err(words)?;
    }
    let drawn = tokio::select! {
        drawn = draw(&bus, target, nodes, &mut watched) => drawn,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    let mut text = String::new();
    if is_terminal {
        // The terminal may be gone.
        _ = write(LEAVE);
        text = watched.text(wall_millis(), &[]);
    }
    match drawn {
        // Whoever reads has had enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(Printed { text, exit_code: 0 }),
    }
}

/// For ever.
async fn draw(bus: &Bus, target: &Target, nodes: &[NamedAddress], watched: &mut Watched) -> io::Result<()> {
    loop {
        let report = report(bus, target, nodes).await;
        if let Some(text) = watched.step(wall_millis(), screen(), report) {
            write(&text)?;
        }
        sleep(PERIOD).await;
    }
}

async fn report(bus: &Bus, target: &Target, nodes: &[NamedAddress]) -> Result<StatusReport, Vec<String>> {
    let mut failures = Vec::new();
    let command = rpc::StatusCommand { recent: true };
    if let Some(body) = ask_for_status(bus, target, command, &mut failures).await {
        return serde_json::from_str(&body).map_err(|e| vec![format!("the answer is not understood: {e}")]);
    }
    let asked = ask_nodes(bus, nodes).await;
    if asked.iter().any(|asked| asked.answer.is_ok()) {
        return Ok(from_nodes(&target.sentinel, &asked));
    }
    Err(failures)
}

fn screen() -> Screen {
    if !stdout().is_terminal() {
        return Screen::Lines;
    }
    let [rows, columns] = tcgetwinsize(stdout()).map_or([0, 0], |size| [size.ws_row, size.ws_col]);
    let or = |known: u16, otherwise| usize::from(if known == 0 { otherwise } else { known });
    Screen::Terminal { rows: or(rows, ROWS), columns: or(columns, COLUMNS) }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
