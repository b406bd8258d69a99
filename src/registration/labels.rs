//! Labels in little memory: strings and whole label sets that many objects share are kept once.
//!
//! Matching labels is [`super::selector`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Sweeping starts at this many values, and again whenever their number has doubled.
const FIRST_SWEEP: usize = 1024;

/// The labels of an object, sorted by key. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self
            .0
            .binary_search_by(|(other, _)| (**other).cmp(key))
            .ok()?;
        self.0.get(found).map(|(_, value)| &**value)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let sorted: BTreeMap<_, _> = pairs.into_iter().collect();
        Self(
            sorted
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

/// Hands out one shared copy of equal strings and equal label sets.
#[derive(Debug, Default)]
pub struct Interner {
    texts: BTreeSet<Arc<str>>,
    labels: BTreeSet<Labels>,
    next_sweep: usize,
}

impl Interner {
    /// The shared copy of `text`.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        self.sweep();
        let new: Arc<str> = text.into();
        self.texts.insert(new.clone());
        new
    }

    /// The shared copy of `labels`.
    pub fn labels(&mut self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        let pairs = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| (self.text(key), self.text(value)))
            .collect();
        let labels = Labels(pairs);
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        self.labels.insert(labels.clone());
        labels
    }

    /// Forgets what nobody else holds any more, at a cost that is constant per new value.
    fn sweep(&mut self) {
        if self.texts.len() + self.labels.len() < self.next_sweep.max(FIRST_SWEEP) {
            return;
        }
        self.labels
            .retain(|labels| Arc::strong_count(&labels.0) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.next_sweep = 2 * (self.texts.len() + self.labels.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_kept_once_and_forgotten_when_unused() {
        let mut interner = Interner::default();
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let kept = interner.labels(Some(&labels));
        assert!(Arc::ptr_eq(&kept.0, &interner.labels(Some(&labels)).0));
        for number in 0..10 * FIRST_SWEEP {
            let _ = interner.text(&number.to_string());
        }
        assert!(
            interner.texts.len() <= 2 * FIRST_SWEEP,
            "{}",
            interner.texts.len()
        );
        assert!(Arc::ptr_eq(&kept.0, &interner.labels(Some(&labels)).0));
    }

    #[test]
    fn labels_are_found_by_key() {
        let labels: Labels = [("b", "2"), ("a", "1")].into_iter().collect();
        assert_eq!(
            (labels.get("a"), labels.get("b"), labels.get("c")),
            (Some("1"), Some("2"), None)
        );
    }
}
