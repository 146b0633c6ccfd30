//! A table that is saved piece by piece while it goes on changing: what is saved is what it was at the beginning.
//!
//! The saver walks over the hashes in ascending order. An element that is changed or removed before the walk has come
//! to it is kept as it was, once; one that is new there is noted as nothing to be saved. So a change costs no more than
//! a copy of the element that it changes, however large the table is.
//!
//! Invariants: of the elements of the beginning each is given exactly once: by the walk, or because it was kept; a name
//! is in `skipped` if and only if its hash is not walked over yet and it was changed, removed or added since.

use super::{Keyed, Order, ScanPosition, Table, hash_of};
use crate::entry::thin::ThinBytes;

/// See the module documentation.
pub struct Saving<T> {
    /// Whose saving this is.
    pub id: u64,
    /// The walk goes on here; `None`: it is over.
    position: Option<ScanPosition>,
    /// As they were, of names that are in `skipped`.
    kept: Vec<T>,
    /// Names at which the walk has to pass by.
    skipped: Table<ThinBytes>,
    copy: fn(&T) -> T,
}

impl<T> std::fmt::Debug for Saving<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saving")
            .field("id", &self.id)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl<T: Keyed> Saving<T> {
    /// `hash` is in the table's order here.
    fn is_walked(&self, hash: u64) -> bool {
        self.position.is_none_or(|position| (hash >> 32) < u64::from(position))
    }

    fn skips(&self, hash: u64, key: &[u8]) -> bool {
        self.skipped.get(hash, key).is_some()
    }

    /// Whether what has this name is still to be saved.
    fn is_due(&self, order: Order, hash: u64, key: &[u8]) -> bool {
        !self.is_walked(order.of(hash)) && !self.skips(hash, key)
    }

    fn skip(&mut self, hash: u64, key: &[u8]) {
        self.skipped.insert_new(hash, ThinBytes::new([key]));
    }

    /// Elements and names that are held only for the saving, about.
    pub fn held(&self) -> usize {
        self.kept.len() + self.skipped.len()
    }
}

impl<T: Keyed> Table<T> {
    /// From now on [`Table::save_some`] gives the elements as they are now.
    pub fn begin_saving(&mut self, id: u64)
    where
        T: Clone,
    {
        let skipped = Table::with_own_order();
        let saving = Saving { id, position: Some(0), kept: Vec::new(), skipped, copy: T::clone };
        self.extra().saving = Some(saving);
    }

    pub fn saving(&self) -> Option<&Saving<T>> {
        self.extra.as_ref()?.saving.as_ref()
    }

    /// Forgets what the table was. What this returns may take long to drop.
    pub fn end_saving(&mut self) -> Option<Saving<T>> {
        let saving = self.extra.as_mut()?.saving.take();
        self.drop_extra_if_unused();
        saving
    }

    /// Gives elements until `visit` says that it is enough, of one bucket at least; whether more are to come.
    pub fn save_some(&mut self, visit: &mut dyn FnMut(&T) -> bool) -> bool {
        let Some(mut saving) = self.extra.as_mut().and_then(|extra| extra.saving.take()) else {
            return false;
        };
        let mut goes_on = true;
        while goes_on {
            if let Some(position) = saving.position {
                let skipped = &saving.skipped;
                saving.position = self.scan(position, &mut |element| {
                    let key = element.key();
                    if skipped.is_empty() || skipped.get(hash_of(key), key).is_none() {
                        goes_on &= visit(element);
                    }
                });
            } else if let Some(element) = saving.kept.pop() {
                goes_on = visit(&element);
            } else {
                break;
            }
        }
        let more = saving.position.is_some() || !saving.kept.is_empty();
        self.extra().saving = Some(saving);
        more
    }

    /// Before an element is changed or removed.
    #[cold]
    pub(super) fn note_change(&mut self, hash: u64, key: &[u8]) {
        let order = self.order();
        if !self.saving().is_some_and(|saving| saving.is_due(order, hash, key)) {
            return;
        }
        let Some(element) = self.get(hash, key) else { return };
        let copy = self.saving().map(|saving| (saving.copy)(element));
        if let (Some(copy), Some(saving)) = (copy, &mut self.extra().saving) {
            saving.kept.push(copy);
            saving.skip(hash, key);
        }
    }

    /// Before an element is added.
    #[cold]
    pub(super) fn note_insertion(&mut self, hash: u64, key: &[u8]) {
        let order = self.order();
        if let Some(saving) = self.extra.as_mut().and_then(|extra| extra.saving.as_mut())
            && saving.is_due(order, hash, key)
        {
            saving.skip(hash, key);
        }
    }
}
