//! One endpoint over HTTP. It is up while its answers come: it is asked for its chain id at every ping, and a lost connection or a silence
//! means that the chain is proven anew. There are no subscriptions: whoever follows its head asks for it.

mod answers;
mod client;
mod lanes;

use std::future::{Future, pending};
use std::pin::{Pin, pin};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use self::answers::read;
pub(super) use self::client::{Client, Trouble};
pub(super) use self::lanes::Lanes;
use self::lanes::{Flying, READS};
use super::CallError;
use super::clocks::{Beat, Clocks};
use super::command::Answered;
use super::connection::Connection;
use super::frame::{Request, batch};
use super::handshake::{Fault, down};
use crate::telemetry::crash::{self, Point, Side};

/// A request that is under way.
type Flight<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What came of one request; `None` when its deadline passed.
type Landed = (Flying, Option<Result<(StatusCode, Bytes), Trouble>>);

impl Connection {
    /// Asks and answers until the endpoint is lost, and says why it is.
    pub(super) async fn converse(&mut self, client: &Client, lanes: &mut Lanes) -> Fault {
        let mut clocks = Clocks::new(self.clocks, Instant::now());
        let mut reading = FuturesUnordered::new();
        let mut sending: Option<Flight<'_, Landed>> = None;
        let mut pinging: Option<Flight<'_, Result<Option<Answered>, Fault>>> = None;
        let mut alarm = pin!(tokio::time::sleep_until(clocks.due()));
        loop {
            while reading.len() < READS
                && let Some(flying) = lanes.read()
            {
                reading.push(self.fly(client, flying));
            }
            if sending.is_none() {
                sending = lanes.send().map(|flying| Box::pin(self.fly(client, flying)) as _);
            }
            let due = lanes.due().map_or(clocks.due(), |due| due.min(clocks.due()));
            alarm.as_mut().reset(due);
            // In this order, so that chance has no part in it.
            let landed = tokio::select! {
                biased;
                () = self.stop.cancelled() => return down("stopped"),
                () = &mut alarm => {
                    let now = Instant::now();
                    lanes.expire(now);
                    match clocks.beat(now) {
                        Beat::Wait => {}
                        Beat::Ping if pinging.is_some() => {}
                        Beat::Ping => pinging = Some(self.ping(client)),
                        Beat::Dead(why) => return down(why),
                    }
                    continue;
                }
                pong = flown(&mut pinging) => {
                    match pong.and_then(|answer| answer.map_or(Ok(()), |answer| self.chain.still(&answer))) {
                        Ok(()) => {
                            clocks.frame(Instant::now());
                            clocks.pong();
                        }
                        Err(fault) => return fault,
                    }
                    continue;
                }
                landed = flown(&mut sending) => landed,
                Some(landed) = reading.next(), if !reading.is_empty() => landed,
                // The endpoint holds a sender: the queue never ends before the task.
                Some(command) = self.commands.recv() => {
                    lanes.command(command);
                    while let Ok(command) = self.commands.try_recv() {
                        lanes.command(command);
                    }
                    continue;
                }
            };
            lanes.landed(&landed.0);
            match landed {
                (flying, Some(Ok((status, body)))) => {
                    clocks.frame(Instant::now());
                    let (answers, is_once) = (read(&flying.ids(), status, &body), flying.once());
                    // What is said to a transaction never counts against the endpoint; nor does a limit of what it may be asked. Of anything else
                    // it may be this one question that it does not take: what it says to its ping decides.
                    if let Some(why) = lanes.answered(flying, answers)
                        && !is_once
                        && status != StatusCode::TOO_MANY_REQUESTS
                    {
                        tracing::debug!(endpoint = %self.endpoint.label, why, "no answer: the node is asked whether it is there");
                        pinging = pinging.or_else(|| Some(self.ping(client)));
                    }
                }
                (flying, Some(Err(Trouble::NotSent(why)))) => {
                    flying.fail(&CallError::Unavailable);
                    return Fault::Down(why);
                }
                (flying, Some(Err(Trouble::Lost { why, stale }))) => {
                    let is_in_order = flying.is_in_order();
                    flying.fail(&CallError::Lost);
                    if !stale && is_in_order {
                        // What waits behind it must not arrive before it: it is not sent, and told so.
                        return Fault::Down(why);
                    }
                    if !stale {
                        tracing::debug!(endpoint = %self.endpoint.label, %why, "no answer: the node is asked whether it is there");
                        pinging = pinging.or_else(|| Some(self.ping(client)));
                    }
                }
                (flying, None) => flying.fail(&CallError::Deadline(self.deadline)),
            }
        }
    }

    /// The question that says how the endpoint is.
    fn ping<'a>(&self, client: &'a Client) -> Flight<'a, Result<Option<Answered>, Fault>> {
        let question = Request::new(self.ids.next(), "eth_chainId", None);
        Box::pin(async move { client.ping(&question).await })
    }

    /// One request on its way.
    fn fly<'a>(&self, client: &'a Client, flying: Flying) -> impl Future<Output = Landed> + Send + use<'a> {
        let deadline = flying.deadline(self.deadline);
        let text: Bytes = match flying.calls.as_slice() {
            [call] => call.request.text.clone(),
            calls => batch(calls.iter().map(|call| &call.request)),
        }
        .into();
        async move {
            let response = if flying.once() {
                crash::edge(Side::Before, Point::Send);
                let response = timeout_at(deadline, client.post_once(text)).await;
                crash::edge(Side::After, Point::Send);
                response
            } else {
                timeout_at(deadline, client.read(&text)).await
            };
            (flying, response.ok())
        }
    }
}

/// What is under way, if something is; cancel safe.
async fn flown<T>(flight: &mut Option<Flight<'_, T>>) -> T {
    match flight {
        Some(flying) => {
            let landed = flying.await;
            *flight = None;
            landed
        }
        None => pending().await,
    }
}
