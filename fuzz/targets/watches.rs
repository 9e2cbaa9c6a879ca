//! The table of watched descriptors, beside an ordinary map: a token is good until its watch is removed, and never again.

#![no_main]

use std::collections::{BTreeMap, HashMap};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weft_reactor::WatchTable;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Watches a descriptor, unless it is watched; a small one, mostly.
    Insert(u8),
    InsertAnywhere(i32),
    /// One of the tokens that there have been.
    Remove(u16),
    Look(u16),
    /// A token that nobody has given out, or by accident.
    Invent(u64),
    Change(u16),
    Drain,
}

fuzz_target!(|steps: Vec<Step>| {
    let mut table = WatchTable::new();
    let mut tokens: Vec<u64> = Vec::new();
    let mut watched: BTreeMap<i32, u64> = BTreeMap::new();
    let mut payloads: HashMap<u64, (i32, usize)> = HashMap::new();
    for (number, step) in steps.into_iter().enumerate() {
        let known =
            |place: u16| (!tokens.is_empty()).then(|| tokens[usize::from(place) % tokens.len()]);
        match step {
            Step::Insert(_) | Step::InsertAnywhere(_) => {
                let descriptor = match step {
                    Step::Insert(small) => i32::from(small % 32),
                    Step::InsertAnywhere(any) => any,
                    _ => continue,
                };
                if watched.contains_key(&descriptor) {
                    continue;
                }
                let token = table.insert(descriptor, number);
                assert!(!tokens.contains(&token), "a token came back");
                tokens.push(token);
                watched.insert(descriptor, token);
                payloads.insert(token, (descriptor, number));
            }
            Step::Remove(place) => {
                let Some(token) = known(place) else { continue };
                let expected = payloads.remove(&token);
                if let Some((descriptor, _)) = expected {
                    watched.remove(&descriptor);
                }
                assert_eq!(table.remove(token), expected);
            }
            Step::Look(place) => {
                let Some(token) = known(place) else { continue };
                let expected = payloads.get(&token);
                assert_eq!(table.get(token), expected.map(|(_, payload)| payload));
                assert_eq!(table.fd(token), expected.map(|(descriptor, _)| *descriptor));
            }
            Step::Invent(token) => {
                let expected = payloads.get(&token).map(|(_, payload)| payload);
                assert_eq!(table.get(token), expected);
                if expected.is_none() {
                    assert_eq!(table.remove(token), None);
                }
            }
            Step::Change(place) => {
                let Some(token) = known(place) else { continue };
                if let Some(payload) = table.get_mut(token) {
                    *payload += 1;
                    payloads.get_mut(&token).expect("the table knows it").1 += 1;
                }
            }
            Step::Drain => {
                let mut all = table.drain();
                all.sort_unstable();
                let mut expected: Vec<_> = payloads.drain().map(|(_, entry)| entry).collect();
                expected.sort_unstable();
                assert_eq!(all, expected);
                watched.clear();
            }
        }
        assert_eq!(table.len(), payloads.len());
        assert_eq!(table.iter().count(), payloads.len());
        for (descriptor, token) in &watched {
            assert_eq!(table.by_fd(*descriptor), Some(*token));
        }
    }
});
