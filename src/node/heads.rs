//! The head of one endpoint: announced by `newHeads`, asked for on connect and after a silence that is too long. A subscription can
//! die on a socket that lives; then the head that was asked for is news, and everything on that connection is subscribed again.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alloy_primitives::{B256, U64, U128};
use prometheus::IntGauge;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::endpoint::{Endpoint, EndpointStream};
use super::frame::{Ids, Request};
use super::{CallError, Head, StreamItem};
use crate::config::NodeClocks;

/// Time for a late announcement of a head that was found by asking.
const GRACE: Duration = Duration::from_secs(2);
/// An interval between blocks counts as no longer than this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    number: U64,
    hash: B256,
    parent_hash: B256,
    timestamp: U64,
    #[serde(default)]
    base_fee_per_gas: Option<U128>,
}

/// Reads a header as `newHeads` and `eth_getBlockByNumber` write it; everything else in it is passed over.
pub(super) fn parse_head(raw: &RawValue) -> Option<Head> {
    let header: Header = serde_json::from_str(raw.get()).ok()?;
    Some(Head {
        number: header.number.to(),
        hash: header.hash,
        parent_hash: header.parent_hash,
        timestamp: header.timestamp.to(),
        base_fee: header.base_fee_per_gas.map(|fee| fee.to()),
    })
}

/// What the silence asks for.
#[derive(Debug, PartialEq, Eq)]
enum Alarm {
    /// Ask for the head.
    Ask,
    /// A new head was found by asking, and it was never announced.
    Renew,
}

/// Times of announced heads: values in, values out.
#[derive(Debug)]
struct Silence {
    clocks: NodeClocks,
    /// Whether heads are announced at all.
    streaming: bool,
    announced: Option<Instant>,
    interval: Option<Duration>,
    due: Instant,
    suspect: bool,
}

impl Silence {
    fn new(clocks: NodeClocks, streaming: bool, now: Instant) -> Self {
        let mut silence = Self { clocks, streaming, announced: None, interval: None, due: now, suspect: false };
        silence.due = now + silence.patience();
        silence
    }

    /// Three times the usual interval, at least `head_silence`; where nothing is announced, `poll`.
    fn patience(&self) -> Duration {
        if self.streaming { self.clocks.head_silence.max(self.interval.unwrap_or_default() * 3) } else { self.clocks.poll }
    }

    /// A head was announced.
    fn announced(&mut self, now: Instant) {
        if let Some(last) = self.announced.replace(now) {
            let latest = now.saturating_duration_since(last).min(LONGEST_INTERVAL);
            self.interval = Some(self.interval.map_or(latest, |usual| (usual * 3 + latest) / 4));
        }
        self.suspect = false;
        self.due = now + self.patience();
    }

    /// The head was asked for; `news` if the answer had not been announced.
    fn asked(&mut self, news: bool, now: Instant) {
        self.suspect = news && self.streaming;
        self.due = now + if self.suspect { GRACE.min(self.clocks.head_silence) } else { self.patience() };
    }

    /// The silence has lasted until `due`.
    fn alarm(&self) -> Alarm {
        if self.suspect { Alarm::Renew } else { Alarm::Ask }
    }
}

/// Follows the head of one endpoint until it is told to stop.
pub(super) struct Follower {
    pub(super) board: Arc<Board>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) ids: Ids,
    pub(super) clocks: NodeClocks,
    pub(super) number: IntGauge,
    pub(super) stop: CancellationToken,
}

impl Follower {
    /// Runs until it is told to stop; every change of the endpoint's status reaches the board.
    pub(super) async fn run(self) {
        let mut status = self.endpoint.status.subscribe();
        let mut of_session = None;
        while !self.stop.is_cancelled() {
            let session = status.borrow_and_update().session();
            if session.is_some() && session != of_session {
                // What an earlier connection said is no sign of being behind, and the chain may have been reorganised since.
                self.endpoint.head.send_replace(None);
                of_session = session;
            }
            self.board.refresh();
            if session.is_some() {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => {}
                    _ = status.changed() => {}
                    () = self.connection() => {}
                }
            } else {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => {}
                    _ = status.changed() => {}
                }
            }
        }
        self.board.refresh();
    }

    /// One subscription's life.
    async fn connection(&self) {
        let Ok(params) = to_raw_value(&["newHeads"]) else { return };
        let mut stream = match self.endpoint.subscribe(Request::new(self.ids.next(), "eth_subscribe", Some(&params))).await {
            Ok(stream) => Some(stream),
            Err(CallError::NoStreams) => None,
            Err(CallError::Node(error)) => {
                tracing::warn!(endpoint = %self.endpoint.label, code = error.code, "node has no newHeads: its head is asked for");
                None
            }
            // Down by now, or it does not answer: not at full speed.
            Err(_) => return tokio::time::sleep(self.clocks.poll).await,
        };
        let mut silence = Silence::new(self.clocks, stream.is_some(), Instant::now());
        self.ask(&mut stream, &mut silence, true).await;
        loop {
            let next = async {
                match &mut stream {
                    Some(stream) => stream.next().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                item = next => match item {
                    Some(StreamItem::Item(raw)) => {
                        if let Some(head) = self.announced(&raw, &mut silence) {
                            self.observe(head);
                        }
                    }
                    Some(StreamItem::Lost | StreamItem::Gap) => self.ask(&mut stream, &mut silence, false).await,
                    None => return,
                },
                () = sleep_until(silence.due) => match silence.alarm() {
                    Alarm::Ask => self.ask(&mut stream, &mut silence, false).await,
                    Alarm::Renew => {
                        tracing::warn!(endpoint = %self.endpoint.label, "subscriptions of a living connection are silent: made again");
                        return self.endpoint.renew();
                    }
                },
            }
        }
    }

    /// Asks for the latest head. An answer below what is known on this connection is an older view of the same node (or of its
    /// neighbour behind a load balancer).
    async fn ask(&self, stream: &mut Option<EndpointStream>, silence: &mut Silence, first: bool) {
        let Ok(params) = to_raw_value(&("latest", false)) else { return };
        let answer = self.endpoint.call(Request::new(self.ids.next(), "eth_getBlockByNumber", Some(&params))).await;
        let asked = answer.ok().and_then(|raw| self.read(&raw));
        if let Some(head) = &asked {
            self.hear(head);
        }
        // What was announced before the answer is in the queue already.
        while let Some(item) = stream.as_mut().and_then(EndpointStream::queued) {
            if let StreamItem::Item(raw) = item
                && let Some(head) = self.announced(&raw, silence)
            {
                self.observe(head);
            }
        }
        let known = self.endpoint.head.borrow().clone();
        let fresh = asked.filter(|asked| known.as_ref().is_none_or(|known| asked.hash != known.hash && asked.number >= known.number));
        silence.asked(fresh.is_some() && !first, Instant::now());
        if let Some(head) = fresh {
            self.observe(head);
        }
    }

    /// A head that the endpoint told by itself.
    fn announced(&self, raw: &Arc<RawValue>, silence: &mut Silence) -> Option<Head> {
        let head = self.read(raw)?;
        silence.announced(Instant::now());
        if self.hear(&head) {
            self.look_for(head.hash);
        }
        if self.endpoint.reading().is_some() {
            self.board.announced(head.hash, raw);
        }
        Some(head)
    }

    /// Compares a head with what was told before. Answers whether it is worth asking if the block is there.
    fn hear(&self, head: &Head) -> bool {
        let heard = self.endpoint.record().hear(head);
        match heard {
            Ok(jumps) => jumps,
            Err(lie) => {
                self.board.put_out(&self.endpoint, lie);
                false
            }
        }
    }

    /// A head that does not follow the one before is asked for, beside everything else: a node has what it announces.
    fn look_for(&self, hash: B256) {
        let Ok(params) = to_raw_value(&[hash]) else { return };
        let answer = self.endpoint.call(Request::new(self.ids.next(), "eth_getBlockTransactionCountByHash", Some(&params)));
        let (board, endpoint) = (self.board.clone(), self.endpoint.clone());
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(async move {
            // Not every node knows the method, and an answer that is late says nothing.
            let Ok(answer) = answer.await else { return };
            let has = endpoint.record().has(answer.get() != "null");
            if let Err(lie) = has {
                board.put_out(&endpoint, lie);
            }
        }));
    }

    fn read(&self, raw: &RawValue) -> Option<Head> {
        let head = parse_head(raw);
        if head.is_none() {
            self.endpoint.stray_frames.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(endpoint = %self.endpoint.label, "a head that could not be read");
        }
        head
    }

    fn observe(&self, head: Head) {
        self.number.set(i64::try_from(head.number).unwrap_or(i64::MAX));
        self.endpoint.head.send_replace(Some(Arc::new(head)));
        self.board.refresh();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_with_and_without_a_base_fee() {
        let text = r#"{"number":"0x10","hash":"0x1111111111111111111111111111111111111111111111111111111111111111",
            "parentHash":"0x2222222222222222222222222222222222222222222222222222222222222222","timestamp":"0x64","extra":[{"a":1}]"#;
        let head = |tail: &str| parse_head(&RawValue::from_string(format!("{text}{tail}}}")).unwrap());
        let with = head(r#","baseFeePerGas":"0x3b9aca00""#).unwrap();
        assert_eq!((with.number, with.timestamp, with.base_fee), (16, 100, Some(1_000_000_000)));
        assert_eq!((with.hash, with.parent_hash), (B256::repeat_byte(0x11), B256::repeat_byte(0x22)));
        assert_eq!(head("").unwrap().base_fee, None);
        assert_eq!(head(r#","baseFeePerGas":null"#).unwrap().base_fee, None);
        assert_eq!(parse_head(&RawValue::from_string("null".into()).unwrap()), None);
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn patience_is_three_intervals_and_at_least_its_minimum() {
        let start = Instant::now();
        let mut silence = Silence::new(NodeClocks::default(), true, start);
        assert_eq!(silence.due, start + seconds(15));
        silence.announced(start);
        silence.announced(start + seconds(2));
        assert_eq!(silence.due, start + seconds(17));
        (1..200).for_each(|n| silence.announced(start + seconds(2 + 12 * n)));
        let patience = silence.due - (start + seconds(2 + 12 * 199));
        assert!((35..=36).contains(&patience.as_secs()), "{patience:?}");
        assert_eq!(silence.alarm(), Alarm::Ask);
    }

    #[test]
    fn a_head_found_by_asking_is_suspicious_until_one_is_announced() {
        let start = Instant::now();
        let mut silence = Silence::new(NodeClocks::default(), true, start);
        silence.asked(false, start);
        assert_eq!(silence.alarm(), Alarm::Ask);
        silence.asked(true, start);
        assert_eq!((silence.alarm(), silence.due), (Alarm::Renew, start + GRACE));
        silence.announced(start + seconds(1));
        assert_eq!((silence.alarm(), silence.due), (Alarm::Ask, start + seconds(16)));
    }

    #[test]
    fn without_announcements_the_head_is_asked_for_and_never_suspicious() {
        let start = Instant::now();
        let mut silence = Silence::new(NodeClocks::default(), false, start);
        silence.asked(true, start);
        assert_eq!((silence.alarm(), silence.due), (Alarm::Ask, start + seconds(1)));
    }
}
