use super::*;

fn head(number: u64, hash: u8, parent: u8) -> Head {
    let (hash, parent_hash) = (B256::repeat_byte(hash), B256::repeat_byte(parent));
    Head { number, hash, parent_hash, timestamp: number, base_fee: None }
}

#[test]
fn a_head_may_fall_as_far_as_a_reorg_goes_and_no_further() {
    let mut record = Record::new(64);
    assert_eq!(record.hear(&head(100, 1, 0)), Ok(false));
    assert_eq!(record.hear(&head(36, 2, 9)), Ok(true));
    assert_eq!(record.hear(&head(35, 3, 9)), Err(Lie::Backwards { head: 35, before: 100 }));
    assert_eq!(record.hear(&head(101, 4, 1)), Ok(false), "what was told first is remembered");
    assert_eq!(Lie::Backwards { head: 35, before: 100 }.to_string(), "runs backwards: its head was 100 and is 35");
}

#[test]
fn what_does_not_fit_what_was_told_before_is_a_contradiction() {
    let mut record = Record::new(64);
    assert_eq!(record.hear(&head(10, 1, 0)), Ok(false));
    assert_eq!(record.hear(&head(11, 2, 1)), Ok(false));
    assert_eq!(record.hear(&head(11, 2, 1)), Ok(false), "told twice");
    for (number, hash, parent) in [(12, 2, 1), (11, 2, 9), (13, 3, 2), (11, 3, 2)] {
        assert!(matches!(record.hear(&head(number, hash, parent)), Err(Lie::Contradiction(_))), "{number} {hash} {parent}");
    }
    assert_eq!(record.hear(&head(12, 3, 2)), Ok(false));
    assert_eq!(record.hear(&head(12, 4, 2)), Ok(false), "a reorg is none");
    assert_eq!(record.hear(&head(14, 5, 9)), Ok(true), "nor is a block that was left out");
}

#[test]
fn heads_that_are_not_there_are_a_lie_when_they_are_many() {
    let mut record = Record::new(64);
    assert_eq!([record.has(false), record.has(false), record.has(true), record.has(false), record.has(false)], [const { Ok(()) }; 5]);
    assert!(matches!(record.has(false), Err(Lie::Contradiction(_))));
}

#[test]
fn an_endpoint_comes_back_when_it_is_forward_again_or_where_the_others_are() {
    let mut record = Record::new(64);
    record.hear(&head(100, 1, 0)).unwrap();
    record.hear(&head(20, 2, 9)).unwrap_err();
    assert!(!record.returns(&head(35, 3, 9), None));
    assert!(record.returns(&head(36, 3, 9), None));
    // It had told what no chain can be.
    let mut record = Record::new(64);
    record.hear(&head(1_000_000, 1, 0)).unwrap();
    assert!(!record.returns(&head(500, 2, 9), Some(1000)));
    assert!(record.returns(&head(990, 2, 9), Some(1000)));
    assert_eq!(record.hear(&head(991, 3, 2)), Ok(false));
}

#[test]
fn one_false_head_does_not_keep_the_only_endpoint_out_for_good() {
    let mut record = Record::new(64);
    record.hear(&head(1_000_000, 1, 0)).unwrap();
    record.hear(&head(500, 2, 9)).unwrap_err();
    assert_eq!((500..520).position(|number| record.returns(&head(number, 2, 9), None)), Some(8));
    assert_eq!(record.hear(&head(520, 3, 2)), Ok(false));
    // One that goes up and down is not believed, and where others are trusted they are the measure.
    let mut record = Record::new(64);
    record.hear(&head(1_000_000, 1, 0)).unwrap();
    assert!((0..100_u64).all(|look| !record.returns(&head(500 - look % 3, 2, 9), None)));
    assert!((500..600).all(|number| !record.returns(&head(number, 2, 9), Some(1000))));
}

const A: B256 = B256::repeat_byte(0xa);
const B: B256 = B256::repeat_byte(0xb);
const C: B256 = B256::repeat_byte(0xc);

fn says(old: impl Into<Option<B256>>, new: impl Into<Option<B256>>) -> Testimony {
    Testimony { old: old.into(), new: new.into() }
}

#[test]
fn who_differs_from_what_is_known_lies_as_long_as_somebody_vouches_for_it() {
    let found = judge(Some(A), &[says(B, C), says(A, B)], 2);
    assert_eq!(found, Findings { liars: vec![Some((false, B, A)), None], new: Some(B), is_rewritten: false });
    // Or somebody might, who is away.
    let found = judge(Some(A), &[says(B, C)], 2);
    assert_eq!(found, Findings { liars: vec![Some((false, B, A))], new: None, is_rewritten: false });
    // Who has pruned it says nothing.
    let found = judge(Some(A), &[says(B, C), says(None, C)], 2);
    assert_eq!((found.liars, found.is_rewritten), (vec![Some((false, B, A)), None], false));
}

#[test]
fn what_everybody_tells_is_the_chain() {
    for testimonies in [vec![says(B, C)], vec![says(B, C), says(B, C)]] {
        let found = judge(Some(A), &testimonies, testimonies.len());
        assert_eq!(found, Findings { liars: vec![None; testimonies.len()], new: Some(C), is_rewritten: true });
    }
    assert!(!judge(Some(A), &[says(B, None), says(C, None)], 2).is_rewritten);
}

#[test]
fn a_new_block_is_what_most_say_and_the_best_where_they_are_even() {
    let found = judge(Some(A), &[says(A, B), says(A, C), says(A, C)], 3);
    assert_eq!((found.new, found.liars), (Some(C), vec![Some((true, B, C)), None, None]));
    let found = judge(None, &[says(None, B), says(None, C)], 2);
    assert_eq!((found.new, found.liars), (Some(B), vec![None, Some((true, C, B))]));
    let found = judge(None, &[says(None, None), says(None, C)], 2);
    assert_eq!((found.new, found.liars), (Some(C), vec![None, None]));
    assert_eq!(judge(None, &[], 0), Findings { liars: vec![], new: None, is_rewritten: false });
}

#[test]
fn one_voice_while_others_are_away_makes_no_block_known() {
    assert_eq!(judge(Some(A), &[says(A, B)], 2).new, None, "the other may come back and differ");
    assert_eq!(judge(Some(A), &[says(A, B)], 1).new, Some(B));
    let found = judge(Some(A), &[says(A, B), says(A, B)], 3);
    assert_eq!((found.new, found.liars), (Some(B), vec![None, None]), "more than half");
    let found = judge(Some(A), &[says(A, B), says(A, C)], 3);
    assert_eq!((found.new, found.liars), (None, vec![None, None]), "nobody lies for want of a third");
}
