//! One subscriber. It is never silently short of events: when its queue is full, or what follows does not join what came
//! before, it is told why and its connection ends.

use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::SubscriptionSink;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::outbox::{Told, Way};
use crate::subscriptions::connection::ConnectionHandle;

/// The sending side of one subscription.
#[derive(Debug)]
pub(super) struct Member {
    stage: Stage,
    end: Option<oneshot::Sender<&'static str>>,
}

/// Whether results reach the client.
#[derive(Debug)]
enum Stage {
    /// It does not have its subscription's id yet: they wait, in order.
    Waiting(Vec<Arc<RawValue>>),
    /// They do.
    Open(Way),
}

/// What stays with whoever answers the id, until it is answered.
#[derive(Debug)]
pub(super) struct Early(oneshot::Receiver<&'static str>);

/// What the subscription's own task waits for.
#[derive(Debug)]
pub(super) struct Watch {
    sink: SubscriptionSink,
    ended: oneshot::Receiver<&'static str>,
    connection: Option<ConnectionHandle>,
}

/// Results that wait for a client that does not have its id yet.
const WAITING: usize = 1024;
/// What a client is told that reads too slowly.
const SLOW: &str = "the client does not keep up";
/// Time for the last words to reach the client before its connection ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) fn pair(sink: SubscriptionSink, connection: Option<ConnectionHandle>) -> (Member, Watch) {
    let (mut member, early) = early();
    member.open(sink.clone(), connection.clone());
    (member, early.watch(sink, connection))
}

/// A member before its id is answered.
pub(super) fn early() -> (Member, Early) {
    let (end, ended) = oneshot::channel();
    (Member { stage: Stage::Waiting(Vec::new()), end: Some(end) }, Early(ended))
}

impl Early {
    /// The id is answered: this is what its task waits for.
    pub(super) fn watch(self, sink: SubscriptionSink, connection: Option<ConnectionHandle>) -> Watch {
        Watch { sink, ended: self.0, connection }
    }
}

impl Member {
    /// Sends one result; answers whether the member is still there.
    pub(super) fn send(&mut self, result: &Arc<RawValue>) -> bool {
        match &mut self.stage {
            Stage::Waiting(results) if results.len() < WAITING => {
                results.push(Arc::clone(result));
                true
            }
            Stage::Waiting(_) => self.too_slow(),
            Stage::Open(way) => match way.tell(result) {
                Told::Yes => true,
                Told::Gone => false,
                Told::TooMuch => self.too_slow(),
            },
        }
    }

    /// The client has its id: what waited goes first.
    pub(super) fn open(&mut self, sink: SubscriptionSink, connection: Option<ConnectionHandle>) {
        if let Stage::Waiting(results) = std::mem::replace(&mut self.stage, Stage::Open(Way::new(sink, connection))) {
            // One that does not get through ends the member, or the client is gone.
            let _open = results.iter().all(|result| self.send(result));
        }
    }

    fn too_slow(&mut self) -> bool {
        self.end(SLOW);
        false
    }

    /// Ends the subscription and its connection, and says why.
    pub(super) fn end(&mut self, why: &'static str) {
        if let Some(end) = self.end.take() {
            let _gone = end.send(why);
        }
    }
}

impl Watch {
    /// Waits until the client unsubscribes or goes, or until the member is ended: then the reason is the answer, to be sent as the
    /// subscription's error, and the connection ends right after it.
    pub(super) async fn over(self) -> Result<(), &'static str> {
        tokio::select! {
            () = self.sink.closed() => Ok(()),
            ended = self.ended => match ended {
                Ok(why) => {
                    if let Some(connection) = self.connection {
                        connection.outbox().close(connection.outbox_used());
                        tokio::spawn(async move {
                            tokio::time::sleep(LAST_WORDS).await;
                            connection.end();
                        });
                    }
                    Err(why)
                }
                Err(_) => Ok(()),
            },
        }
    }
}
