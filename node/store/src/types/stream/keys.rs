//! How a command gets at the stream of a key.

use super::Stream;
use crate::entry::{Entry, NewValue, Value, ValueRef, ValueType};
use crate::keys::{Keys, WrongType};
use crate::rdb::VERSION_STREAMS;

impl Keys<'_> {
    /// The stream at a key. Counted as a hit or a miss.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn stream(&self, key: &[u8]) -> Result<Option<&Stream>, WrongType> {
        self.typed(key, |value| match value {
            ValueRef::Stream(stream) => Some(stream),
            _ => None,
        })
    }

    /// The stream at a key, for changing it.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn stream_mut(&mut self, key: &[u8]) -> Result<Option<&mut Stream>, WrongType> {
        let entry = self.typed_mut(key, ValueType::Stream)?;
        Ok(entry.and_then(Entry::boxed_mut))
    }

    /// As [`Keys::stream_mut`]; an empty one is created, and may stay.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn stream_or_new(&mut self, key: &[u8]) -> Result<&mut Stream, WrongType> {
        if self.get_mut(key).is_none() {
            let stream = Value::boxed(Box::new(Stream::default()));
            self.space().note_version(VERSION_STREAMS);
            self.insert_new(key, NewValue::Value(stream), None);
        }
        Ok(self.stream_mut(key)?.expect("it was just created"))
    }
}
