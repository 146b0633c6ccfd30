//! The files that together have the log on disk without a gap up to its end, as a list. Who reads them:
//! [`super::history`].

use keyward_proto::ids::LogIndex;

use super::manifest::AofFile;

/// A file of the write log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub file: AofFile,
    /// The entry before its first.
    pub follows: LogIndex,
    /// Of one that is not written any more.
    pub bytes: u64,
}

impl Segment {
    /// A file that is being written.
    pub fn new(file: &AofFile, follows: LogIndex) -> Segment {
        Segment { file: file.clone(), follows, bytes: 0 }
    }
}

/// See the module documentation.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// Oldest first; the last one is being written.
    pub(super) segments: Vec<Segment>,
}

impl History {
    pub fn new(segments: Vec<Segment>) -> History {
        History { segments }
    }

    /// The first entry that can be read.
    pub fn first(&self) -> Option<LogIndex> {
        self.segments.first().map(|segment| segment.follows.next())
    }

    /// The log goes on in this file; the one before has `bytes`.
    pub fn push(&mut self, segment: Segment, bytes: u64) {
        if let Some(last) = self.segments.last_mut() {
            last.bytes = bytes;
        }
        self.segments.push(segment);
    }

    /// The files before number `seq` are not needed any more but for replicas: forgets the oldest of them, so that the
    /// others take at most so many bytes.
    pub fn trim(&mut self, seq: u64, bytes_max: u64) {
        let mut bytes = 0;
        let is_kept = |segment: &&Segment| {
            bytes += if segment.file.seq < seq { segment.bytes } else { 0 };
            bytes <= bytes_max
        };
        let kept = self.segments.iter().rev().take_while(is_kept).count();
        self.segments.drain(..self.segments.len() - kept);
    }

    /// The files before number `seq`.
    pub fn before(&self, seq: u64) -> impl Iterator<Item = &AofFile> {
        self.segments.iter().map(|segment| &segment.file).filter(move |file| file.seq < seq)
    }
}
