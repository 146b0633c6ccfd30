//! A connection from its first byte to its last: what is executed, what is sent before more is, and when it ends.
//!
//! Architecture invariant: no clock, no socket; the shell is [`crate::shell::resp`].

use bytes::{Bytes, BytesMut};
use keyward_proto::ids::ShardId;
use keyward_proto::resp::{ReplyWriter, Version, is_http};

use super::command::{AfterReply, Session};
use super::request::Requests;
use crate::rules::events::Event;

const CONNECTIONS_MAX: usize = 10_000;
/// Refused clients that are given the time to read why; others are cut off.
const REFUSALS_MAX: usize = 16;
/// Replies to a pipeline are sent in pieces of about this size.
const REPLY_BYTES: usize = 256 * 1024;

pub(crate) const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// What becomes of a new connection, by how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Served,
    /// It is told [`TOO_MANY`], and has time to read it. It counts as open until then, so that there are not many.
    Refused,
    /// It is told too, but not waited for.
    CutOff,
}

pub(crate) fn admit(open: usize) -> Admission {
    match open {
        0..CONNECTIONS_MAX => Admission::Served,
        _ if open < CONNECTIONS_MAX + REFUSALS_MAX => Admission::Refused,
        _ => Admission::CutOff,
    }
}

/// What the shell has to do before it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send what is there, and go on.
    Send,
    /// Send what is there, and wait for more.
    Wait,
    /// Send what is there; that is all.
    Close,
    /// A web page has a browser send commands: nothing more is said.
    Http,
    /// That is to be done beside; go on.
    FailOver(ShardId),
}

#[derive(Debug)]
pub(crate) struct Conversation {
    session: Session,
    requests: Requests,
    /// Received and not looked at.
    pub(crate) input: BytesMut,
}

impl Conversation {
    pub(crate) fn new(session: Session) -> Conversation {
        Conversation { session, requests: Requests::default(), input: BytesMut::new() }
    }

    /// Executes what has been received, until the shell has to do something.
    pub(crate) fn step(
        &mut self,
        output: &mut BytesMut,
        mut execute: impl FnMut(&mut Session, &[Bytes], &mut BytesMut) -> AfterReply,
    ) -> Step {
        while output.len() <= REPLY_BYTES {
            match self.requests.next(&mut self.input, self.session.trust()) {
                Ok(None) => return Step::Wait,
                Ok(Some(args)) if args.first().is_some_and(|name| is_http(name)) => return Step::Http,
                Ok(Some(args)) => match execute(&mut self.session, &args, output) {
                    AfterReply::Nothing => {}
                    AfterReply::Close => return Step::Close,
                    AfterReply::FailOver(shard) => return Step::FailOver(shard),
                },
                Err(e) => {
                    ReplyWriter::new(output, Version::Resp2).error(e.to_bytes());
                    return Step::Close;
                }
            }
        }
        Step::Send
    }

    /// Something has happened that the client may have subscribed to.
    pub(crate) fn deliver(&self, event: &Event, output: &mut BytesMut) {
        self.session.deliver(event, output);
    }

    /// Whether it matters that events were missed.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.session.is_subscribed()
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::time::Monotonic;
    use keyward_proto::topology::Transport;

    use super::*;

    /// What the shell is told, one step after another, when each command is answered by itself.
    fn steps(input: &[u8], password: Option<&str>) -> (Vec<Step>, BytesMut) {
        let session = Session::new(1, String::new(), Transport::Plain, Monotonic::ZERO, password);
        let (mut conversation, mut output, mut steps) =
            (Conversation::new(session), BytesMut::new(), Vec::new());
        conversation.input.extend_from_slice(input);
        loop {
            let step = conversation.step(&mut output, |_, args, output| {
                output.extend_from_slice(&args.concat());
                match &args[0][..] {
                    b"quit" => AfterReply::Close,
                    b"failover" => AfterReply::FailOver(ShardId::from_random([1; 20])),
                    _ => AfterReply::Nothing,
                }
            });
            let goes_on = matches!(step, Step::Send | Step::FailOver(_));
            if step == Step::Send {
                output.clear();
            }
            steps.push(step);
            if !goes_on {
                return (steps, output);
            }
        }
    }

    #[test]
    fn commands_are_executed_until_something_has_to_be_done() {
        assert_eq!(steps(b"", None), (vec![Step::Wait], BytesMut::new()));
        assert_eq!(steps(b"a\r\nb\r\nc", None), (vec![Step::Wait], BytesMut::from("ab")));
        assert_eq!(steps(b"a\r\nquit\r\nb\r\n", None), (vec![Step::Close], BytesMut::from("aquit")));
        assert_eq!(steps(b"a\r\nPOST / HTTP/1.1\r\n", None).0, [Step::Http]);
        let beside = Step::FailOver(ShardId::from_random([1; 20]));
        assert_eq!(
            steps(b"failover\r\nb\r\n", None),
            (vec![beside, Step::Wait], BytesMut::from("failoverb"))
        );
        let (steps_, output) = steps(b"a\r\n*1\r\n+\r\n", None);
        assert_eq!(steps_, [Step::Close]);
        assert!(output.starts_with(b"a-ERR Protocol error"), "{output:?}");
    }

    #[test]
    fn replies_leave_before_they_are_too_many() {
        let (steps, _) = steps(&[&b"x".repeat(30_000)[..], b"\r\n"].concat().repeat(20), None);
        assert_eq!(steps, [Step::Send, Step::Send, Step::Wait]);
    }

    #[test]
    fn a_stranger_has_less_room() {
        let input = b"*11\r\n".iter().chain(&b"$1\r\na\r\n".repeat(11)).copied().collect::<Vec<u8>>();
        assert_eq!(steps(&input, None).0, [Step::Wait]);
        assert_eq!(steps(&input, Some("secret")).0, [Step::Close]);
    }

    #[test]
    fn too_many_clients_are_told_so_and_few_of_them_are_waited_for() {
        let expected = [
            (0, Admission::Served),
            (9_999, Admission::Served),
            (10_000, Admission::Refused),
            (10_015, Admission::Refused),
            (10_016, Admission::CutOff),
        ];
        for (open, admission) in expected {
            assert_eq!(admit(open), admission, "{open}");
        }
    }
}
