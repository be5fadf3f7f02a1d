//! One subscriber. It is never silently short of events: when its queue is full, or what follows does not join what came
//! before, it is told why and its connection ends.

use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::SubscriptionSink;
use jsonrpsee::core::server::TrySendError;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::subscriptions::connection::ConnectionHandle;

/// The sending side of one subscription.
#[derive(Debug)]
pub(super) struct Member {
    sink: SubscriptionSink,
    end: Option<oneshot::Sender<&'static str>>,
}

/// What the subscription's own task waits for.
#[derive(Debug)]
pub(super) struct Watch {
    sink: SubscriptionSink,
    ended: oneshot::Receiver<&'static str>,
    connection: Option<ConnectionHandle>,
}

/// Time for the last words to reach the client before its connection ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) fn pair(sink: SubscriptionSink, connection: Option<ConnectionHandle>) -> (Member, Watch) {
    let (end, ended) = oneshot::channel();
    (Member { sink: sink.clone(), end: Some(end) }, Watch { sink, ended, connection })
}

impl Member {
    /// Sends one result; answers whether the member is still there.
    pub(super) fn send(&mut self, result: &Arc<RawValue>) -> bool {
        match self.sink.try_send((**result).to_owned()) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.end("the client does not keep up");
                false
            }
        }
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
