//! What an endpoint proves before it counts as usable: that it is on the pinned chain.

use std::sync::{Arc, OnceLock};

use alloy_primitives::{B256, U64};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::CallError;
use super::command::Answered;
use super::endpoint::Status;
use super::frame::{Ids, Incoming, Request, parse};
use super::socket::words;

/// The chain that every endpoint of an environment must be on.
#[derive(Debug)]
pub(super) struct Chain {
    /// Name of the environment.
    pub(super) environment: String,
    /// Configured chain id.
    pub(super) chain_id: u64,
    /// The pinned genesis hash; the first endpoint's, if there was no pin.
    pub(super) genesis: OnceLock<B256>,
}

/// Why an endpoint is not usable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No connection, or no sensible answer.
    Down(Arc<str>),
    /// Another chain.
    WrongChain(Arc<str>),
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Down(why) => Self::Down(why),
            Fault::WrongChain(why) => Self::WrongChain(why),
        }
    }
}

#[derive(Deserialize)]
struct Genesis {
    hash: B256,
}

impl Chain {
    /// Judges what an endpoint says about its chain; the first genesis seen becomes the pin if there was none. Clients are told the
    /// words, so they do not say which endpoint it is: the log and /status do.
    fn judge(&self, chain_id: u64, genesis: B256) -> Result<(), Fault> {
        self.judge_id(chain_id)?;
        let environment = &self.environment;
        let pinned = *self.genesis.get_or_init(|| genesis);
        if genesis != pinned {
            return Err(Fault::WrongChain(
                format!(
                    "environment {environment}: expected genesis {pinned}, but a node has genesis {genesis}; \
                     if a development chain was restarted, `sluice journal forget-chain` makes Sluice forget the old one"
                )
                .into(),
            ));
        }
        Ok(())
    }

    fn judge_id(&self, chain_id: u64) -> Result<(), Fault> {
        let (environment, expected) = (&self.environment, self.chain_id);
        if chain_id == expected {
            return Ok(());
        }
        Err(Fault::WrongChain(
            format!("environment {environment}: expected chain id {expected}, but a node has chain id {chain_id}").into(),
        ))
    }

    /// What an endpoint is asked: its chain id and its genesis.
    pub(super) fn questions(ids: &Ids) -> Result<[Request; 2], Fault> {
        let first_block = serde_json::value::to_raw_value(&("0x0", false)).map_err(|error| down(&error.to_string()))?;
        Ok([Request::new(ids.next(), "eth_chainId", None), Request::new(ids.next(), "eth_getBlockByNumber", Some(&first_block))])
    }

    /// Judges the answers to [`Self::questions`].
    pub(super) fn verdict(&self, [chain_id, genesis]: [&Answered; 2]) -> Result<(), Fault> {
        let chain_id: U64 = read(chain_id, "eth_chainId")?;
        let genesis: Genesis = read(genesis, "the genesis block")?;
        self.judge(chain_id.to(), genesis.hash)
    }

    /// Judges a later answer of an endpoint to the question for its chain id; an error says nothing.
    pub(super) fn still(&self, answer: &Answered) -> Result<(), Fault> {
        if matches!(answer, Err(CallError::Node(_))) {
            return Ok(());
        }
        let chain_id: U64 = read(answer, "eth_chainId")?;
        self.judge_id(chain_id.to())
    }

    /// Asks the endpoint both at once, and judges the answers. Other frames are passed over.
    pub(super) async fn check<S>(&self, socket: &mut S, ids: &Ids) -> Result<(), Fault>
    where
        S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin + ?Sized,
    {
        let requests = Self::questions(ids)?;
        for request in &requests {
            socket.feed(Message::Text(request.text.clone())).await.map_err(|error| down(&words(&error)))?;
        }
        socket.flush().await.map_err(|error| down(&words(&error)))?;
        let mut answers = [None, None];
        loop {
            if let [Some(chain_id), Some(genesis)] = &answers {
                return self.verdict([chain_id, genesis]);
            }
            let message = match socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(down(&words(&error))),
                None => return Err(down("the node closed the connection")),
            };
            let Ok(text) = message.to_text() else { continue };
            let Some(Incoming::Answer { id, outcome }) = parse(text) else { continue };
            if let Some(place) = requests.iter().position(|request| request.id == id) {
                answers[place] = Some(outcome.into_owned());
            }
        }
    }
}

pub(super) fn down(why: &str) -> Fault {
    Fault::Down(why.into())
}

fn read<T: DeserializeOwned>(answer: &Answered, what: &str) -> Result<T, Fault> {
    let raw = answer.as_ref().map_err(|error| down(&format!("{what}: {error}")))?;
    serde_json::from_str(raw.get()).map_err(|_| down(&format!("{what}: the node's answer could not be read")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(pin: Option<B256>) -> Chain {
        Chain { environment: "dev".into(), chain_id: 31337, genesis: pin.map_or_else(OnceLock::new, OnceLock::from) }
    }

    #[test]
    fn the_first_genesis_becomes_the_pin() {
        let chain = chain(None);
        assert!(matches!(chain.judge(1, B256::repeat_byte(9)), Err(Fault::WrongChain(_))));
        assert_eq!(chain.genesis.get(), None);
        assert_eq!(chain.judge(31337, B256::repeat_byte(1)), Ok(()));
        assert_eq!(chain.genesis.get(), Some(&B256::repeat_byte(1)));
        assert!(matches!(chain.judge(31337, B256::repeat_byte(2)), Err(Fault::WrongChain(_))));
    }

    #[test]
    fn a_wrong_chain_is_told_by_name() {
        let chain = chain(Some(B256::repeat_byte(1)));
        let Err(Fault::WrongChain(text)) = chain.judge(1, B256::repeat_byte(1)) else { panic!("accepted") };
        assert_eq!(&*text, "environment dev: expected chain id 31337, but a node has chain id 1");
        let Err(Fault::WrongChain(text)) = chain.judge(31337, B256::repeat_byte(2)) else { panic!("accepted") };
        for part in ["environment dev", "0x0101", "0x0202", "`sluice journal forget-chain`"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
