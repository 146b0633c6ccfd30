//! What is worth a line of the log: what has not just been said.
//!
//! A node that complains does so every 100 ms, for as long as it takes; that is one story, and one line.

use std::time::Duration;

use keyward_proto::time::Monotonic;

/// What has not come up for so long is news again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// The last line about one matter.
#[derive(Debug, Default)]
pub(crate) struct News {
    last: Option<(String, Monotonic)>,
}

impl News {
    /// Whether this line says something else than the last one, or after a long time.
    pub(crate) fn is_news(&mut self, line: &str, now: Monotonic) -> bool {
        match &mut self.last {
            Some((last, at)) if last == line && now.since(*at) < FORGOTTEN_AFTER => {
                *at = now;
                false
            }
            last => {
                *last = Some((line.to_owned(), now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_said_once() {
        let mut news = News::default();
        let mut said =
            |line, seconds: u64| news.is_news(line, Monotonic::from_nanos(seconds * 1_000_000_000));
        assert!(said("asking", 1));
        assert!((2..60).all(|seconds| !said("asking", seconds)), "for as long as it goes on");
        assert!(said("refused", 60));
        assert!(said("asking", 61));
        assert!(said("asking", 72));
    }
}
