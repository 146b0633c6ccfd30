//! Where the programs under test are: Keyward's own, built in the profile of the running test, and the real
//! Valkey, unpacked beside the system's packages by `get-valkey.sh`.
//!
//! Tests that need Valkey call [`valkey_or_skip`] and return when it says `None`: without Debian's package
//! source there is nothing to compare with, and the reason is printed once.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// The folder in which the running test's profile leaves its programs, such as `target/debug`.
fn target_dir() -> PathBuf {
    let exe = env::current_exe().expect("a running program has a path");
    let dir = exe.parent().expect("a program lies in a folder");
    if dir.ends_with("deps") {
        dir.parent().expect("deps lies in the profile's folder").into()
    } else {
        dir.into()
    }
}

/// The path of one of Keyward's programs (`keyward-node`, `keyward-sentinel`), built when it is not up to date.
///
/// `KEYWARD_BIN_DIR` names a folder with ready programs, for runs away from the sources.
pub fn keyward(program: &str) -> Result<PathBuf, String> {
    if let Some(dir) = env::var_os("KEYWARD_BIN_DIR") {
        return Ok(Path::new(&dir).join(program));
    }
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let dir = target_dir();
    let path = dir.join(program);
    let mut built = BUILT.lock().expect("no build panics");
    if !built.iter().any(|name| name == program) {
        build(program, &dir)?;
        built.push(program.to_owned());
    }
    if path.exists() { Ok(path) } else { Err(format!("the build left no {}", path.display())) }
}

/// Other packages' programs are not built for a test of this one, so a stale one could be tested unnoticed.
fn build(program: &str, dir: &Path) -> Result<(), String> {
    let profile = dir.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--package", program]);
    cargo.arg("--target-dir").arg(dir.parent().expect("a profile's folder lies in the target folder"));
    if profile != "debug" {
        cargo.args(["--profile", profile]);
    }
    let output = cargo.output().map_err(|error| format!("cargo does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cargo build -p {program}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The folder with `valkey-server`, `valkey-cli` and `valkey-benchmark`: `KEYWARD_VALKEY_DIR`, or `.valkey` at
/// the repository's root, filled on first use.
pub fn valkey() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(find_valkey).clone()
}

fn find_valkey() -> Result<PathBuf, String> {
    if let Some(dir) = env::var_os("KEYWARD_VALKEY_DIR") {
        let dir = PathBuf::from(dir);
        let server = dir.join("valkey-server");
        return if server.exists() { Ok(dir) } else { Err(format!("no {}", server.display())) };
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = package.parent().expect("the package lies in the repository").join(".valkey");
    let output = Command::new("sh")
        .arg(package.join("get-valkey.sh"))
        .arg(&dir)
        .output()
        .map_err(|error| format!("sh does not start: {error}"))?;
    if output.status.success() {
        return Ok(dir);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.lines().last().unwrap_or("get-valkey.sh failed").to_owned())
}

/// [`valkey`], or one line that says why the test is skipped.
pub fn valkey_or_skip(test: &str) -> Option<PathBuf> {
    match valkey() {
        Ok(dir) => Some(dir),
        Err(reason) => {
            eprintln!("{test}: skipped, the real Valkey cannot be had: {reason}");
            None
        }
    }
}

/// Debian's `redis-server`, or one line that says why the test is skipped.
pub fn redis_or_skip(test: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join("redis-server")).find(|program| program.exists());
    if found.is_none() {
        eprintln!("{test}: skipped, there is no redis-server: apt-get install redis-server");
    }
    found
}
