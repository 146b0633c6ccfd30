//! What Valkey's types do, as far as the workloads use them.

use super::Model;

/// An answer of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Ok,
    /// A string that does not exist.
    Nil,
    Integer(i64),
    /// A string that holds a number.
    Value(i64),
    Values(Vec<i64>),
}

/// SET, GET, INCR, and a compare-and-set by WATCH, MULTI and EXEC, on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringOperation {
    Set(i64),
    Get,
    Incr,
    /// Sets the second value if the first is there: `Ok`, or `Nil` when the transaction was refused.
    CompareAndSet(Option<i64>, i64),
}

#[derive(Debug)]
pub struct StringModel;

impl Model for StringModel {
    type State = Option<i64>;
    type Operation = StringOperation;
    type Reply = Reply;

    fn step(state: &Self::State, operation: &StringOperation, reply: Option<&Reply>) -> Option<Self::State> {
        let (after, answer) = match operation {
            StringOperation::Set(value) => (Some(*value), Reply::Ok),
            StringOperation::Get => (*state, state.map_or(Reply::Nil, Reply::Value)),
            StringOperation::Incr => {
                let value = state.unwrap_or(0) + 1;
                (Some(value), Reply::Integer(value))
            }
            // A refusal proves nothing: a write of the same value refuses as well.
            StringOperation::CompareAndSet(_, _) if reply == Some(&Reply::Nil) => return Some(*state),
            StringOperation::CompareAndSet(expected, value) if expected == state => (Some(*value), Reply::Ok),
            // Without an answer it may have been refused.
            StringOperation::CompareAndSet(_, _) => return reply.is_none().then_some(*state),
        };
        reply.is_none_or(|reply| *reply == answer).then_some(after)
    }
}

/// RPUSH, LPOP and LRANGE 0 -1 on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListOperation {
    Append(i64),
    Pop,
    Read,
}

#[derive(Debug)]
pub struct ListModel;

impl Model for ListModel {
    type State = Vec<i64>;
    type Operation = ListOperation;
    type Reply = Reply;

    fn step(state: &Self::State, operation: &ListOperation, reply: Option<&Reply>) -> Option<Self::State> {
        let mut after = state.clone();
        let answer = match operation {
            ListOperation::Append(value) => {
                after.push(*value);
                Reply::Integer(i64::try_from(after.len()).unwrap_or(i64::MAX))
            }
            ListOperation::Pop if after.is_empty() => Reply::Nil,
            ListOperation::Pop => Reply::Value(after.remove(0)),
            ListOperation::Read => Reply::Values(after.clone()),
        };
        reply.is_none_or(|reply| *reply == answer).then_some(after)
    }
}

/// Two lists: RPUSH to the first, LMOVE from there to the second, BLPOP from the second, LRANGE 0 -1 of either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueOperation {
    Push(i64),
    /// `Nil` if the first list was empty.
    Move,
    /// `Nil` if the second list was empty all the time: then also at some moment of it.
    Take,
    ReadFirst,
    ReadSecond,
}

#[derive(Debug)]
pub struct QueueModel;

impl Model for QueueModel {
    type State = (Vec<i64>, Vec<i64>);
    type Operation = QueueOperation;
    type Reply = Reply;

    fn step(state: &Self::State, operation: &QueueOperation, reply: Option<&Reply>) -> Option<Self::State> {
        let (mut first, mut second) = state.clone();
        let answer = match operation {
            QueueOperation::Push(value) => {
                first.push(*value);
                Reply::Integer(i64::try_from(first.len()).unwrap_or(i64::MAX))
            }
            QueueOperation::Move if first.is_empty() => Reply::Nil,
            QueueOperation::Move => {
                let element = first.remove(0);
                second.push(element);
                Reply::Value(element)
            }
            QueueOperation::Take if second.is_empty() => Reply::Nil,
            QueueOperation::Take => Reply::Value(second.remove(0)),
            QueueOperation::ReadFirst => Reply::Values(first.clone()),
            QueueOperation::ReadSecond => Reply::Values(second.clone()),
        };
        reply.is_none_or(|reply| *reply == answer).then_some((first, second))
    }
}
