//! Ending the program: SIGTERM, SIGINT and the SHUTDOWN command all come here.

use tokio::sync::Notify;

/// Asked for at most once; `main` waits for it.
#[derive(Debug, Default)]
pub struct Shutdown(Notify);

impl Shutdown {
    /// Asks the program to hand over, if it is a primary, and to end.
    pub fn request(&self) {
        self.0.notify_one();
    }

    pub async fn requested(&self) {
        self.0.notified().await;
    }
}
