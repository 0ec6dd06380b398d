//! What is said once: thousands of packets pass the same hops, at the same devices, with the same remarks.

use std::collections::HashMap;
use std::hash::Hash;

/// Values in the order in which they came, each once.
#[derive(Debug)]
pub(super) struct Table<T> {
    places: HashMap<T, usize>,
    all: Vec<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { places: HashMap::new(), all: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Table<T> {
    /// The number that stands for a value, from 0.
    pub(super) fn place(&mut self, value: T) -> usize {
        if let Some(place) = self.places.get(&value) {
            return *place;
        }
        let place = self.all.len();
        self.all.push(value.clone());
        self.places.insert(value, place);
        place
    }

    /// The number of a value that came before.
    pub(super) fn find(&self, value: &T) -> Option<usize> {
        self.places.get(value).copied()
    }

    /// The values, by their numbers.
    pub(super) fn all(&self) -> &[T] {
        &self.all
    }
}
