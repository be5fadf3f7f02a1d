//! A value that several tasks follow. Each has a channel of its own and they are told in the order in which they came: the receivers of
//! one `watch` channel are woken in an order of chance.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The value, and who follows it.
pub struct Followed<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    newest: T,
    followers: Vec<watch::Sender<T>>,
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").finish_non_exhaustive()
    }
}

impl<T: Clone> Followed<T> {
    /// With its first value.
    pub fn new(newest: T) -> Self {
        Self { inner: Mutex::new(Inner { newest, followers: Vec::new() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        // A value that is half told is told again with the next one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest value.
    pub fn newest(&self) -> T {
        self.inner().newest.clone()
    }

    /// Follows it from now on; the value of now counts as seen.
    pub fn follow(&self) -> watch::Receiver<T> {
        let mut inner = self.inner();
        let (follower, receiver) = watch::channel(inner.newest.clone());
        inner.followers.retain(|follower| !follower.is_closed());
        inner.followers.push(follower);
        receiver
    }

    /// A new value, told to everybody.
    pub fn tell(&self, value: T) {
        let mut inner = self.inner();
        inner.newest = value.clone();
        inner.followers.retain(|follower| follower.send(value.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_is_told_and_who_is_gone_is_forgotten() {
        let followed = Followed::new(0);
        let (mut one, other) = (followed.follow(), followed.follow());
        drop(other);
        assert!(!one.has_changed().unwrap());
        followed.tell(1);
        followed.tell(2);
        one.changed().await.unwrap();
        assert_eq!((*one.borrow(), followed.newest(), followed.inner().followers.len()), (2, 2, 1));
        assert_eq!(*followed.follow().borrow(), 2);
    }
}
