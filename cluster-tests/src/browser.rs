//! A headless Chromium, driven by its DevTools protocol over pipes: a page as somebody sees it who opens it.
#![allow(clippy::disallowed_methods, reason = "a shell: runs a browser and waits for it")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
];
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A browser with one page. It ends when this is dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    requests: File,
    messages: Receiver<Value>,
    session: Option<String>,
    next_id: u64,
    faults: Vec<String>,
    _dir: TempDir,
}

/// How the page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub width: u32,
    pub height: u32,
    pub scheme: &'static str,
}

fn program() -> Option<&'static str> {
    let is_there = |name: &&&str| {
        let said = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        said.is_ok_and(|status| status.success())
    };
    PROGRAMS.iter().find(is_there).copied()
}

impl Browser {
    /// `None` if no Chromium is installed.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Option<Browser>, String> {
        let Some(program) = program() else { return Ok(None) };
        let dir = TempDir::new().map_err(|e| e.to_string())?;
        let path = |name: &str| dir.path().join(name);
        for name in ["in", "out"] {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, path(name), FileType::Fifo, mode, 0).map_err(|e| format!("mkfifo: {e}"))?;
        }
        // The browser reads from its descriptor 3 and writes to 4.
        let child = Command::new("sh")
            .args(["-c", "in=$1 out=$2; shift 2; exec \"$@\" 3<\"$in\" 4>\"$out\"", "sh"])
            .args([path("in"), path("out")])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", path("profile").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let requests = File::options().write(true).open(path("in")).map_err(|e| e.to_string())?;
        let answers = BufReader::new(File::open(path("out")).map_err(|e| e.to_string())?);
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let value = serde_json::from_slice(&message).unwrap_or_default();
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut browser =
            Browser { child, requests, messages, session: None, next_id: 0, faults: Vec::new(), _dir: dir };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(Some(browser))
    }

    /// # Errors
    /// No answer, or one that says what is wrong.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.next_id += 1;
        let id = self.next_id;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        self.requests.write_all(&bytes).map_err(|e| e.to_string())?;
        let end = Instant::now() + ANSWER_DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).map_err(|e| format!("{method}: {e}"))?;
            if message["id"] == id {
                let error = &message["error"];
                return if error.is_null() { Ok(message["result"].clone()) } else { Err(error.to_string()) };
            }
            self.note(&message);
        }
    }

    /// What the page itself complains of.
    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.faults.push(params["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.faults.push(params["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Exceptions, violations of the policy, what could not be loaded; so far.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// # Errors
    /// As [`Self::call`].
    pub fn open(&mut self, url: &str) -> Result<(), String> {
        self.call("Page.navigate", json!({ "url": url })).map(drop)
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    /// As [`Self::call`], and what it throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value, String> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", params)?;
        match &result["exceptionDetails"] {
            Value::Null => Ok(result["result"]["value"].clone()),
            thrown => Err(thrown.to_string()),
        }
    }

    /// Types a text, or presses a key by its name.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn type_text(&mut self, text: &str) -> Result<(), String> {
        self.call("Input.insertText", json!({ "text": text })).map(drop)
    }

    /// # Errors
    /// As [`Self::call`].
    pub fn press(&mut self, key: &str) -> Result<(), String> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            _ => (13, "\r"),
        };
        for kind in ["keyDown", "keyUp"] {
            let down = if kind == "keyDown" { text } else { "" };
            let params =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": down });
            self.call("Input.dispatchKeyEvent", params)?;
        }
        Ok(())
    }

    /// # Errors
    /// As [`Self::call`].
    pub fn look(&mut self, view: View) -> Result<(), String> {
        let View { width, height, scheme } = view;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).map(drop)
    }

    /// The whole page as PNG, in base64.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn screenshot(&mut self) -> Result<String, String> {
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.call("Page.captureScreenshot", params)?;
        shot["data"].as_str().map(str::to_owned).ok_or_else(|| "no picture".into())
    }

    /// Writes it to a file, by `base64`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn save_screenshot(&mut self, path: &Path) -> Result<(), String> {
        let data = self.screenshot()?;
        let file = File::create(path).map_err(|e| e.to_string())?;
        let mut decoder = Command::new("base64");
        decoder.arg("-d").stdin(Stdio::piped()).stdout(file);
        let mut child = decoder.spawn().map_err(|e| e.to_string())?;
        let mut input = child.stdin.take().ok_or("no input")?;
        input.write_all(data.as_bytes()).map_err(|e| e.to_string())?;
        drop(input);
        child.wait().map(drop).map_err(|e| e.to_string())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers end with it.
        drop(self.call("Browser.close", json!({})));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
