//! Each client's refusals, as its own words and codes.

use alloy_consensus::TxLegacy;
use alloy_primitives::Bytes;

use super::*;
use crate::sim_node::settings::Client::{Anvil, Besu, Erigon, Geth, Nethermind, Reth};

/// What is wrong with the transaction that a node is asked to take.
#[derive(Debug, Clone, Copy)]
enum Case {
    TooLow,
    Known,
    Replacement,
    Minimum,
    BaseFee,
    Funds,
    Intrinsic,
    Floor,
    BlockGas,
    GasCap,
    TipAboveCap,
    Gap,
    Distant,
    FeeCap,
    WrongChain,
    Unprotected,
    PoolFull,
    AccountFull,
    Syncing,
    Garbage,
}

fn outcome(client: Client, case: Case) -> Result<B256, RpcError> {
    let mut settings = settings(client);
    match case {
        Case::Minimum if client == Reth => settings.least_tip = 1_000,
        Case::PoolFull => settings.limits.pool = 1,
        Case::BlockGas => settings.gas_limit = 10_000_000,
        Case::Gap if client == Besu => settings.limits.gaps = false,
        _ => {}
    }
    let (mut node, wallet) = (Node::new(settings), wallet(0));
    let other = |nonce| TxEip1559 { value: U256::from(2), ..transfer(nonce) };
    match case {
        Case::TooLow => {
            send(&mut node, &wallet, transfer(0)).unwrap();
            node.mine(second(1));
            send(&mut node, &wallet, other(0))
        }
        Case::Known => {
            node.set_automine(false);
            send(&mut node, &wallet, transfer(0)).unwrap();
            send(&mut node, &wallet, transfer(0))
        }
        Case::Replacement => {
            node.set_automine(false);
            send(&mut node, &wallet, transfer(0)).unwrap();
            send(&mut node, &wallet, other(0))
        }
        Case::Minimum => send(
            &mut node,
            &wallet,
            TxEip1559 { max_priority_fee_per_gas: 0, max_fee_per_gas: if client == Besu { 999 } else { 10 * GWEI }, ..transfer(0) },
        ),
        Case::BaseFee => send(&mut node, &wallet, TxEip1559 { max_priority_fee_per_gas: 1_000, max_fee_per_gas: 1_000, ..transfer(0) }),
        Case::Funds => send(&mut node, &wallet, TxEip1559 { value: ether(1_000), ..transfer(0) }),
        Case::Intrinsic => send(&mut node, &wallet, TxEip1559 { gas_limit: 20_999, ..transfer(0) }),
        Case::Floor => send(&mut node, &wallet, TxEip1559 { gas_limit: 22_600, input: Bytes::from(vec![1; 100]), ..transfer(0) }),
        Case::BlockGas => send(&mut node, &wallet, TxEip1559 { gas_limit: 10_000_001, ..transfer(0) }),
        Case::GasCap => send(&mut node, &wallet, TxEip1559 { gas_limit: 16_777_217, ..transfer(0) }),
        Case::TipAboveCap => send(&mut node, &wallet, TxEip1559 { max_priority_fee_per_gas: 10 * GWEI + 1, ..transfer(0) }),
        Case::Gap => send(&mut node, &wallet, transfer(1)),
        Case::Distant => send(&mut node, &wallet, transfer(1_025)),
        Case::FeeCap => send(&mut node, &wallet, TxEip1559 { gas_limit: 1_000_000, max_fee_per_gas: 1_234 * GWEI, ..transfer(0) }),
        Case::WrongChain => send(&mut node, &wallet, TxEip1559 { chain_id: 1, ..transfer(0) }),
        Case::Unprotected => send(
            &mut node,
            &wallet,
            TxLegacy { gas_price: 10 * GWEI, gas_limit: 21_000, chain_id: None, to: transfer(0).to, ..TxLegacy::default() },
        ),
        Case::PoolFull => {
            node.set_automine(false);
            send(&mut node, &wallet, transfer(0)).unwrap();
            send(&mut node, &wallet, transfer(1))
        }
        Case::AccountFull => {
            node.set_automine(false);
            fill(&mut node, &wallet, 16);
            send(&mut node, &wallet, transfer(16))
        }
        Case::Syncing => {
            node.set_syncing(true);
            send(&mut node, &wallet, transfer(0))
        }
        Case::Garbage => call(&mut node, "eth_sendRawTransaction", json!(["0x02c0"])).map(|_| B256::ZERO),
    }
}

#[test]
fn every_client_refuses_in_its_own_words() {
    let balance = "1000000000000000000000";
    let cost = "1000000210000000000000";
    let table: Vec<(Case, Client, i64, String)> = [
        (Case::TooLow, Geth, -32000, "nonce too low: next nonce 1, tx nonce 0".to_owned()),
        (Case::TooLow, Reth, -32000, "nonce too low: next nonce 1, tx nonce 0".into()),
        (Case::TooLow, Besu, -32001, "Nonce too low".into()),
        (Case::TooLow, Nethermind, -32010, "nonce too low".into()),
        (Case::TooLow, Erigon, -32000, "nonce too low".into()),
        (Case::TooLow, Anvil, -32003, "nonce too low".into()),
        (Case::Known, Geth, -32000, "already known".into()),
        (Case::Known, Reth, -32000, "already known".into()),
        (Case::Known, Besu, -32000, "Known transaction".into()),
        (Case::Known, Nethermind, -32010, "already known".into()),
        (Case::Known, Erigon, -32000, "existing txn with same hash".into()),
        (Case::Known, Anvil, -32003, "transaction already imported".into()),
        (Case::Replacement, Geth, -32000, "replacement transaction underpriced".into()),
        (Case::Replacement, Reth, -32000, "replacement transaction underpriced".into()),
        (Case::Replacement, Besu, -32000, "Replacement transaction underpriced".into()),
        (Case::Replacement, Nethermind, -32010, "replacement transaction underpriced".into()),
        (Case::Replacement, Erigon, -32000, "could not replace existing tx".into()),
        (Case::Replacement, Anvil, -32003, "replacement transaction underpriced".into()),
        (Case::Minimum, Geth, -32000, "transaction gas price below minimum: gas tip cap 0, minimum needed 1".into()),
        (Case::Minimum, Reth, -32003, "transaction priority fee below minimum required priority fee 1000".into()),
        (Case::Minimum, Erigon, -32000, "underpriced".into()),
        (Case::BaseFee, Besu, -32009, "Gas price below current base fee".into()),
        (Case::BaseFee, Nethermind, -32010, "transaction underpriced".into()),
        (Case::BaseFee, Anvil, -32003, "max fee per gas less than block base fee".into()),
        (
            Case::Funds,
            Geth,
            -32000,
            format!("insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot 210000000000000"),
        ),
        (Case::Funds, Reth, -32003, format!("insufficient funds for gas * price + value: have {balance} want {cost}")),
        (Case::Funds, Besu, -32004, "Upfront cost exceeds account balance".into()),
        (Case::Funds, Nethermind, -32010, "insufficient funds for gas * price + value".into()),
        (Case::Funds, Erigon, -32000, "insufficient funds".into()),
        (Case::Funds, Anvil, -32003, "Insufficient funds for gas * price + value".into()),
        (Case::Intrinsic, Geth, -32000, "intrinsic gas too low: gas 20999, minimum needed 21000".into()),
        (Case::Intrinsic, Besu, -32003, "Intrinsic gas exceeds gas limit".into()),
        (Case::Intrinsic, Erigon, -32000, "IntrinsicGas".into()),
        (Case::Intrinsic, Anvil, -32000, "intrinsic gas too low".into()),
        (Case::Floor, Geth, -32000, "insufficient gas for floor data gas cost: gas 22600, minimum needed 25000".into()),
        (Case::BlockGas, Geth, -32000, "exceeds block gas limit".into()),
        (Case::BlockGas, Besu, -32005, "Transaction gas limit exceeds block gas limit".into()),
        (Case::BlockGas, Nethermind, -32010, "gas limit reached".into()),
        (Case::BlockGas, Anvil, -32000, "intrinsic gas too high -- tx.gas_limit > env.block.gas_limit".into()),
        (Case::GasCap, Geth, -32000, "transaction gas limit too high (cap: 16777216, tx: 16777217)".into()),
        (Case::GasCap, Reth, -32000, "exceeds max transaction gas limit".into()),
        (Case::GasCap, Besu, -32005, "Transaction gas limit cap exceeded".into()),
        (Case::GasCap, Nethermind, -32010, "TxGasLimitCapExceeded: Gas limit 16777217 exceeded cap of 16777216.".into()),
        (Case::TipAboveCap, Geth, -32000, "max priority fee per gas higher than max fee per gas".into()),
        (Case::TipAboveCap, Reth, -32003, "max priority fee per gas higher than max fee per gas".into()),
        (Case::TipAboveCap, Besu, -32000, "Max priority fee per gas exceeds max fee per gas".into()),
        (Case::Gap, Besu, -32006, "Nonce too high".into()),
        (Case::Gap, Nethermind, -32010, "nonce too high".into()),
        (Case::Distant, Besu, -32000, "Transaction nonce is too distant from current sender nonce".into()),
        (Case::Distant, Nethermind, -32010, "nonce too far in future".into()),
        (Case::FeeCap, Geth, -32000, "tx fee (1.23 ether) exceeds the configured cap (1.00 ether)".into()),
        (Case::FeeCap, Reth, -32000, "tx fee (1234000000000000000 wei) exceeds the configured cap (1000000000000000000 wei)".into()),
        (Case::FeeCap, Besu, -32000, "Transaction fee cap exceeded".into()),
        (Case::WrongChain, Geth, -32000, "invalid sender: invalid chain id for signer: have 1 want 31337".into()),
        (Case::WrongChain, Reth, -32000, "invalid chain ID".into()),
        (Case::WrongChain, Besu, -32000, "Wrong chainId".into()),
        (Case::WrongChain, Nethermind, -32010, "InvalidTxChainId: expected 31337, got 1".into()),
        (Case::WrongChain, Anvil, -32003, "invalid chain id for signer".into()),
        (Case::Unprotected, Geth, -32000, "only replay-protected (EIP-155) transactions allowed over RPC".into()),
        (Case::PoolFull, Geth, -32000, "txpool is full".into()),
        (Case::PoolFull, Reth, -32003, "txpool is full".into()),
        (Case::PoolFull, Erigon, -32000, "pending sub-pool is full".into()),
        (Case::AccountFull, Reth, -32003, "txpool is full".into()),
        (Case::Syncing, Besu, -32002, "Transaction pool not enabled, (Either txpool explicitly disabled, or node not yet in sync).".into()),
        (Case::Syncing, Nethermind, -32010, "node is syncing".into()),
        (Case::Garbage, Geth, -32602, "failed to decode signed transaction".into()),
    ]
    .into();
    for (case, client, code, message) in table {
        assert_eq!(outcome(client, case), Err(RpcError::new(code, message)), "{case:?} {client:?}");
    }
    // A price of besu below 1,000 wei is also below the base fee; where there is none, its own minimum counts.
    let mut free = Node::new(Settings { base_fee: crate::sim_node::BaseFee::Fixed(0), ..settings(Besu) });
    let cheap = TxEip1559 { max_priority_fee_per_gas: 0, max_fee_per_gas: 999, ..transfer(0) };
    assert_eq!(send(&mut free, &wallet(0), cheap), Err(RpcError::new(-32009, "Gas price below configured minimum gas price")));
}

#[test]
fn what_a_client_takes_it_takes() {
    let taken = [
        (Case::BaseFee, vec![Geth, Reth, Erigon]),
        (Case::Gap, vec![Geth, Reth, Erigon, Anvil]),
        (Case::Distant, vec![Geth, Reth, Erigon, Anvil]),
        (Case::AccountFull, vec![Geth, Besu, Nethermind, Erigon, Anvil]),
        (Case::Syncing, vec![Geth, Reth, Erigon, Anvil]),
        (Case::FeeCap, vec![Nethermind, Erigon, Anvil]),
        (Case::Minimum, vec![Nethermind, Anvil]),
        (Case::GasCap, vec![Anvil]),
        (Case::Floor, vec![Anvil]),
        (Case::Unprotected, vec![Anvil]),
    ];
    for (case, clients) in taken {
        for client in clients {
            assert!(outcome(client, case).is_ok(), "{case:?} {client:?}: {:?}", outcome(client, case));
        }
    }
}
