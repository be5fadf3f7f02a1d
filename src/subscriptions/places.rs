//! How many subscriptions each principal has open, over all its connections to a service.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

/// A service, and who uses it.
type Whose = (Arc<str>, Arc<str>);

/// The counts; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<DashMap<Whose, u32>>);

/// One subscription that is counted, until it is dropped.
#[derive(Debug)]
#[must_use = "the place is free again when it is dropped"]
pub struct Place {
    places: Places,
    whose: Whose,
}

impl Places {
    /// A place for one more; `None` if `most` are taken.
    pub fn take(&self, service: &Arc<str>, principal: &Arc<str>, most: u32) -> Option<Place> {
        let whose = (Arc::clone(service), Arc::clone(principal));
        let mut taken = self.0.entry(whose.clone()).or_insert(0);
        if *taken >= most {
            return None;
        }
        *taken += 1;
        drop(taken);
        Some(Place { places: self.clone(), whose })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.places.0.entry(self.whose.clone()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_of_a_service_has_places_of_its_own_and_gets_them_back() {
        let places = Places::default();
        let name = |name: &str| Arc::<str>::from(name);
        let (pay, other, one, two) = (name("pay"), name("other"), name("one"), name("two"));
        let first = places.take(&pay, &one, 2).unwrap();
        let _second = places.take(&pay, &one, 2).unwrap();
        assert!(places.take(&pay, &one, 2).is_none());
        let _others = [places.take(&pay, &two, 1).unwrap(), places.clone().take(&other, &one, 1).unwrap()];
        drop(first);
        assert!(places.take(&pay, &one, 1).is_none(), "a bound that came down holds for those who come");
        drop(places.take(&pay, &one, 2).unwrap());
        drop((_others, _second));
        assert!(places.0.is_empty(), "nothing is kept of those who are gone");
    }
}
