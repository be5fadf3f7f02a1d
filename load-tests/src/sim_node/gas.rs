//! Gas that a transaction takes before any code runs.

use alloy_eips::eip2930::AccessList;

/// What it takes to begin: EIP-2, EIP-2028, EIP-2930, EIP-3860 and EIP-7702.
pub(super) fn intrinsic(input: &[u8], is_create: bool, access_list: Option<&AccessList>, authorisations: usize) -> u64 {
    let mut gas = 21_000 + 4 * tokens(input);
    if is_create {
        gas += 32_000 + 2 * (input.len() as u64).div_ceil(32);
    }
    for item in access_list.into_iter().flat_map(|list| list.iter()) {
        gas += 2_400 + 1_900 * item.storage_keys.len() as u64;
    }
    gas + 25_000 * authorisations as u64
}

/// What the data costs at least (EIP-7623).
pub(super) fn floor(input: &[u8]) -> u64 {
    21_000 + 10 * tokens(input)
}

fn tokens(input: &[u8]) -> u64 {
    input.iter().map(|byte| if *byte == 0 { 1 } else { 4 }).sum()
}
