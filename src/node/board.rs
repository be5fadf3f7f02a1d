//! Which endpoint is best, and which head the environment has: decided from who is connected and how far each chain has come.
//! What a node says about a transaction has no part in it (I6).

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::B256;
use prometheus::{Gauge, IntGauge};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};

use super::endpoint::{Endpoint, Status};
use super::followed::Followed;
use super::truth::Lie;
use super::{CallError, Head};

/// An endpoint further behind the highest head than this many blocks loses to those that are not.
const LAG: u64 = 3;
/// Headers that are kept as they were announced.
const ANNOUNCED: usize = 128;
/// Heads that wait for a listener; what does not fit it finds by the parents of the next.
const HEADS: usize = 256;

/// One endpoint at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct View {
    /// The connection's number, if reads may go to it.
    session: Option<u64>,
    head: Option<u64>,
}

/// An endpoint's place in the configuration, and the connection on which something was tried.
pub(super) type Try = (usize, u64);

fn highest(views: &[View]) -> Option<u64> {
    views.iter().filter(|view| view.session.is_some()).filter_map(|view| view.head).max()
}

fn lags(view: &View, highest: Option<u64>) -> bool {
    highest.is_some_and(|highest| view.head.is_none_or(|head| highest.saturating_sub(head) > LAG))
}

/// Usable endpoints, best first: those near the highest head in the order of the configuration, then the others, highest first.
fn rank(views: &[View]) -> Vec<Try> {
    let highest = highest(views);
    let mut usable: Vec<_> = views.iter().enumerate().filter_map(|(index, view)| Some((index, view, view.session?))).collect();
    usable.sort_by_key(|(index, view, _)| match lags(view, highest) {
        false => (false, Reverse(None), *index),
        true => (true, Reverse(view.head), *index),
    });
    usable.into_iter().map(|(index, _, session)| (index, session)).collect()
}

/// Whether the best endpoint's head replaces the one that was published. From the endpoint that announced the last one every
/// change counts, also one to a lower or equal number: a reorg. Another endpoint that is a block behind is no reorg.
fn replaces(new: &Head, old: Option<&Head>, same_endpoint: bool) -> bool {
    let Some(old) = old else { return true };
    if same_endpoint { new != old } else { new.number > old.number || (new.number == old.number && new.hash != old.hash) }
}

/// The endpoints of an environment and what is known over them all.
pub(super) struct Board {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    heads: Followed<Option<Arc<Head>>>,
    news: Followed<()>,
    memory: Mutex<Memory>,
    /// Who wants each head that is published, and not the newest alone.
    listeners: Mutex<Vec<mpsc::Sender<Arc<Head>>>>,
    /// Headers as endpoints announced them, oldest first, each once.
    announced: Mutex<VecDeque<(B256, Arc<RawValue>)>>,
    head_number: IntGauge,
    head_timestamp: Gauge,
}

/// What an endpoint is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Answer,
    /// Only where the node can push.
    Stream,
}

impl Want {
    fn is_met_by(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Answer => true,
            Self::Stream => endpoint.transport.pushes(),
        }
    }
}

/// `None` if one of these is connected and on the chain, else why none is; a wrong chain says more than no connection.
fn fault<'a>(endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) -> Option<CallError> {
    let mut fault = CallError::Unavailable;
    for endpoint in endpoints {
        match &*endpoint.status.borrow() {
            Status::Up(_) => return None,
            status @ Status::WrongChain(_) => fault = status.fault(),
            Status::Down(_) => {}
        }
    }
    Some(fault)
}

#[derive(Default)]
struct Memory {
    /// Who announced the published head.
    source: Option<usize>,
    /// Who lagged when it was last looked.
    lagging: Vec<bool>,
}

impl Board {
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>, head_number: IntGauge, head_timestamp: Gauge) -> Self {
        let memory = Mutex::new(Memory { source: None, lagging: vec![false; endpoints.len()] });
        let (heads, news) = (Followed::new(None), Followed::new(()));
        let (listeners, announced) = (Mutex::default(), Mutex::default());
        Self { endpoints, heads, news, memory, listeners, announced, head_number, head_timestamp }
    }

    fn views(&self) -> Vec<View> {
        let view =
            |endpoint: &Arc<Endpoint>| View { session: endpoint.reading(), head: endpoint.head.borrow().as_ref().map(|head| head.number) };
        self.endpoints.iter().map(view).collect()
    }

    /// The best usable endpoint that can do this, and on whose connection it was not tried yet.
    pub(super) fn best(&self, want: Want, tried: &[Try]) -> Option<(Try, &Arc<Endpoint>)> {
        let untried = rank(&self.views()).into_iter().filter(|place| !tried.contains(place));
        let endpoints = untried.filter_map(|place| Some((place, self.endpoints.get(place.0)?)));
        endpoints.into_iter().find(|(_, endpoint)| want.is_met_by(endpoint))
    }

    /// Every endpoint that can do this is up, and it was tried there.
    pub(super) fn is_exhausted(&self, want: Want, tried: &[Try]) -> bool {
        let mut able = self.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.roles.read && want.is_met_by(endpoint));
        able.all(|(place, endpoint)| endpoint.reading().is_some_and(|session| tried.contains(&(place, session))))
    }

    /// The endpoints that read, in the order of the configuration.
    pub(super) fn readers(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.roles.read)
    }

    fn senders(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.roles.takes_transactions())
    }

    /// `None` if an endpoint that can do this is usable, else why none is.
    pub(super) fn fault(&self, want: Want) -> Option<CallError> {
        let able: Vec<_> = self.readers().filter(|endpoint| want.is_met_by(endpoint)).collect();
        if able.iter().any(|endpoint| endpoint.reading().is_some()) {
            return None;
        }
        let untrue = able.iter().filter(|endpoint| endpoint.session().is_some()).find_map(|endpoint| endpoint.distrust());
        untrue.map(|why| CallError::WrongChain(format!("a node {why}").into())).or_else(|| fault(able.into_iter()))
    }

    /// Number of the newest head of those that can be asked.
    pub(super) fn trusted_head(&self) -> Option<u64> {
        highest(&self.views())
    }

    /// It told what is not true: it is asked nothing, and its head counts for nothing, until it is let back.
    pub(super) fn put_out(&self, endpoint: &Endpoint, lie: Lie) {
        if endpoint.set_distrust(Some(&lie)) {
            tracing::error!(endpoint = %endpoint.label, kind = lie.kind(), "a node {lie}: it is not asked any more");
            // Its streams go where the truth is.
            endpoint.renew();
            self.refresh();
        }
    }

    /// It tells the truth again.
    pub(super) fn let_back(&self, endpoint: &Endpoint) {
        if endpoint.set_distrust(None) {
            tracing::info!(endpoint = %endpoint.label, "the node tells the truth again");
            self.refresh();
        }
    }

    /// The same of those that take transactions.
    pub(super) fn send_fault(&self) -> Option<CallError> {
        fault(self.senders())
    }

    /// The fault, if waiting for an endpoint to come back is no use: no endpoint can ever do this, or all that can are on a wrong chain.
    pub(super) fn hopeless(&self, want: Want) -> Option<CallError> {
        let mut able = self.readers().filter(|endpoint| want.is_met_by(endpoint)).peekable();
        if able.peek().is_none() {
            return Some(CallError::NoStreams);
        }
        let wrong = able.all(|endpoint| matches!(*endpoint.status.borrow(), Status::WrongChain(_)));
        if wrong { self.fault(want) } else { None }
    }

    /// Changes whenever an endpoint's status or head changes.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.follow()
    }

    /// The published head.
    pub(super) fn heads(&self) -> watch::Receiver<Option<Arc<Head>>> {
        self.heads.follow()
    }

    /// Each head that is published from now on, in order.
    pub(super) fn each_head(&self) -> mpsc::Receiver<Arc<Head>> {
        let (listener, heads) = mpsc::channel(HEADS);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        heads
    }

    /// An endpoint announced this header.
    pub(super) fn announced(&self, hash: B256, header: &Arc<RawValue>) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.iter().any(|(known, _)| *known == hash) {
            return;
        }
        if announced.len() == ANNOUNCED {
            announced.pop_front();
        }
        announced.push_back((hash, Arc::clone(header)));
    }

    /// The header of this block, if it was announced lately.
    pub(super) fn header(&self, hash: B256) -> Option<Arc<RawValue>> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.iter().rev().find(|(known, _)| *known == hash).map(|(_, header)| Arc::clone(header))
    }

    /// The newest header that was announced.
    pub(super) fn newest_header(&self) -> Option<Arc<RawValue>> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.back().map(|(_, header)| Arc::clone(header))
    }

    /// Looks again after an endpoint's status or head has changed.
    pub(super) fn refresh(&self) {
        {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let views = self.views();
            self.publish(&mut memory, &views);
            self.leave_laggards(&mut memory, &views);
        }
        self.news.tell(());
    }

    fn publish(&self, memory: &mut Memory, views: &[View]) {
        let Some(&(index, _)) = rank(views).first() else { return };
        let Some(new) = self.endpoints.get(index).and_then(|endpoint| endpoint.head.borrow().clone()) else { return };
        let old = self.heads.newest();
        // What was heard from one that was put out is no measure.
        let source = memory.source.and_then(|source| self.endpoints.get(source));
        let same = memory.source == Some(index) || source.is_some_and(|source| source.distrust().is_some());
        if old.as_ref().is_some_and(|old| old.hash == new.hash) {
            memory.source = Some(index);
        } else if replaces(&new, old.as_deref(), same) {
            memory.source = Some(index);
            self.head_number.set(i64::try_from(new.number).unwrap_or(i64::MAX));
            self.head_timestamp.set(new.timestamp as f64);
            let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.retain(|listener| !matches!(listener.try_send(Arc::clone(&new)), Err(mpsc::error::TrySendError::Closed(_))));
            drop(listeners);
            self.heads.tell(Some(new));
        }
    }

    /// A connected endpoint that falls behind delivers nothing new: its subscriptions go where the head is.
    fn leave_laggards(&self, memory: &mut Memory, views: &[View]) {
        let highest = highest(views);
        for ((endpoint, view), lagging) in self.endpoints.iter().zip(views).zip(&mut memory.lagging) {
            let now = view.session.is_some() && view.head.is_some() && lags(view, highest);
            if now && !*lagging {
                tracing::warn!(endpoint = %endpoint.label, head = view.head, highest, "node is behind");
                endpoint.renew();
            }
            *lagging = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(head: u64) -> View {
        View { session: Some(1), head: Some(head) }
    }

    const DOWN: View = View { session: None, head: Some(1000) };
    const NEW: View = View { session: Some(1), head: None };

    fn order(views: &[View]) -> Vec<usize> {
        rank(views).into_iter().map(|(index, _)| index).collect()
    }

    #[test]
    fn near_heads_keep_the_configured_order_and_laggards_lose() {
        assert_eq!(order(&[up(10), up(13)]), [0, 1]);
        assert_eq!(order(&[up(9), up(13)]), [1, 0]);
        assert_eq!(order(&[up(1), up(2), up(13), up(12)]), [2, 3, 1, 0]);
    }

    #[test]
    fn what_is_down_counts_for_nothing_and_what_has_no_head_comes_last() {
        assert_eq!(order(&[DOWN, up(5)]), [1]);
        assert_eq!(order(&[NEW, up(5), DOWN]), [1, 0]);
        assert_eq!(order(&[NEW, NEW]), [0, 1]);
        assert_eq!(order(&[DOWN]), Vec::<usize>::new());
    }

    fn head(number: u64, hash: u8) -> Head {
        Head { number, hash: B256::repeat_byte(hash), parent_hash: B256::ZERO, timestamp: number, base_fee: None }
    }

    #[test]
    fn a_reorg_counts_from_the_same_endpoint_and_a_late_block_of_another_does_not() {
        assert!(replaces(&head(5, 1), None, false));
        for (new, same, other) in
            [(head(6, 2), true, true), (head(5, 2), true, true), (head(4, 2), true, false), (head(5, 1), false, false)]
        {
            assert_eq!(replaces(&new, Some(&head(5, 1)), true), same, "{new:?}");
            assert_eq!(replaces(&new, Some(&head(5, 1)), false), other, "{new:?}");
        }
    }
}
