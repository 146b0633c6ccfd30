//! The format of what Keyward's processes say to each other and keep: messages, effects in the log, slots of a full sync,
//! the topology.
//!
//! One number for all of it, and one rule: **neighbours understand each other.** A program reads its own format and the
//! one before, so of two that meet and are one apart the newer one uses that of the older. Who opens a stream or registers
//! says its format and is told the other's; who says none is of format 1. Who is further away is refused in words, and
//! nothing but that conversation ends: a cluster is upgraded through each format.
//!
//! What is new and would not be understood (an effect, a kind of record) is written only when everybody who may read it
//! has said a format that has it. That this was forgotten is noticed where it arrives: a replica looks at the effects of a
//! primary with a newer format before it takes them.
//!
//! Fields of messages that an older program may leave out or pass over need no new format.

/// The format of this program. Raised with each effect, kind of record, or change of a meaning.
pub const FORMAT: u32 = 3;
/// Of who says none.
const UNSAID: u32 = 1;

/// Another process, or a file, is of a format that this program does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is of format {theirs} and this program of format {FORMAT}, which understands the ones next to it: {}",
    remedy(*theirs)
)]
pub struct Foreign {
    theirs: u32,
}

fn remedy(theirs: u32) -> &'static str {
    if theirs < FORMAT { "upgrade the other first" } else { "upgrade this program first" }
}

/// The format that is used with a process of this one.
///
/// # Errors
/// There is none.
pub fn agree(theirs: u32) -> Result<u32, Foreign> {
    let theirs = theirs.max(UNSAID);
    if theirs.abs_diff(FORMAT) <= 1 { Ok(theirs.min(FORMAT)) } else { Err(Foreign { theirs }) }
}

/// Whether a process of this format may say what this program does not know.
pub fn is_newer(theirs: u32) -> bool {
    FORMAT < theirs
}

/// Whether a file of this format can be read: of this one and of the one before.
///
/// # Errors
/// It can not.
pub fn check_file(theirs: u32) -> Result<(), Foreign> {
    let foreign = agree(theirs).is_err() || is_newer(theirs);
    if foreign { Err(Foreign { theirs: theirs.max(UNSAID) }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_understand_each_other() {
        for (theirs, agreed, newer) in [
            (0, None, false),
            (FORMAT - 2, None, false),
            (FORMAT - 1, Some(FORMAT - 1), false),
            (FORMAT, Some(FORMAT), false),
            (FORMAT + 1, Some(FORMAT), true),
            (FORMAT + 2, None, true),
            (u32::MAX, None, true),
        ] {
            assert_eq!((agree(theirs).ok(), is_newer(theirs)), (agreed, newer), "{theirs}");
            assert_eq!(check_file(theirs).is_ok(), agreed.is_some() && !newer, "{theirs}");
        }
        let words = agree(FORMAT + 2).unwrap_err().to_string();
        assert!(words.ends_with("upgrade this program first"), "{words}");
    }
}
