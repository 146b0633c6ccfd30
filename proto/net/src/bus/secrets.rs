//! Where the secret comes from. A file is read again when it has changed, so that the secret changes while all run.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use keyward_proto::bus::Secrets;
use keyward_proto::bus::secret::Unfit;
use parking_lot::Mutex;

/// The variables that a process without the setting looks at.
const FILE_VARIABLE: &str = "KEYWARD_CLUSTER_SECRET_FILE";
const VARIABLE: &str = "KEYWARD_CLUSTER_SECRET";

/// Why there is no secret; one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("can't read the cluster secret from {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("the cluster secret in {origin}: {unfit}")]
    Unfit { origin: String, unfit: Unfit },
}

/// See the module's documentation.
#[derive(Debug)]
pub enum SecretSource {
    Value(Secrets),
    File(SecretFile),
}

#[derive(Debug)]
pub struct SecretFile {
    path: PathBuf,
    /// What was read last, and of when it was. Held while the file is looked at.
    read: Mutex<(Option<SystemTime>, Secrets)>,
}

impl SecretSource {
    /// From the file that is set, else from the one that the environment names, else from the environment itself.
    ///
    /// # Errors
    /// What is there is no secret.
    pub fn find(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<SecretSource>, SecretError> {
        let named = || variable(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = file.map(Path::to_path_buf).or_else(named) {
            return SecretFile::open(path).map(|file| Some(SecretSource::File(file)));
        }
        let Some(value) = variable(VARIABLE).filter(|value| !value.is_empty()) else { return Ok(None) };
        let secrets = Secrets::parse(value.as_bytes())
            .map_err(|unfit| SecretError::Unfit { origin: format!("the variable {VARIABLE}"), unfit })?;
        Ok(Some(SecretSource::Value(secrets)))
    }

    pub(super) fn current(&self) -> Secrets {
        match self {
            SecretSource::Value(secrets) => secrets.clone(),
            SecretSource::File(file) => file.current(),
        }
    }
}

impl SecretFile {
    fn open(path: PathBuf) -> Result<SecretFile, SecretError> {
        let (changed, secrets) = read(&path)?;
        Ok(SecretFile { path, read: Mutex::new((changed, secrets)) })
    }

    /// What the file has; what it had, if that is none any more.
    fn current(&self) -> Secrets {
        let mut last = self.read.lock();
        let changed = modified(&self.path);
        if changed.is_some() && changed != last.0 {
            match read(&self.path) {
                Ok(read) => {
                    if read.1 != last.1 {
                        tracing::info!(
                            "the cluster secret was changed: {:?} in {}",
                            read.1,
                            self.path.display()
                        );
                    }
                    *last = read;
                }
                Err(error) => {
                    tracing::error!("{error}; the one from before stays in use");
                    last.0 = changed;
                }
            }
        }
        last.1.clone()
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

fn read(path: &Path) -> Result<(Option<SystemTime>, Secrets), SecretError> {
    let changed = modified(path);
    let text = std::fs::read(path).map_err(|error| SecretError::Read { path: path.to_owned(), error })?;
    let secrets = Secrets::parse(&text)
        .map_err(|unfit| SecretError::Unfit { origin: path.display().to_string(), unfit })?;
    Ok((changed, secrets))
}
