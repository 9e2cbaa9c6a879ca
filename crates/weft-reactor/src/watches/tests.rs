use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[test]
fn a_new_table_is_empty() {
    let mut table = WatchTable::<u32>::default();
    assert!(table.is_empty());
    assert_eq!(table.by_fd(0), None);
    assert_eq!(table.get(0), None);
    assert_eq!(table.get(u64::MAX), None);
    assert_eq!(table.remove(0), None);
    assert!(table.drain().is_empty());
}

#[test]
fn can_be_a_constant() {
    const TABLE: WatchTable<u32> = WatchTable::new();
    assert!(TABLE.is_empty());
}

#[test]
fn finds_a_watch_by_token_and_by_descriptor() {
    let mut table = WatchTable::new();
    let token = table.insert(5, "five");
    assert_eq!(table.len(), 1);
    assert_eq!(table.by_fd(5), Some(token));
    assert_eq!(table.fd(token), Some(5));
    assert_eq!(table.get(token), Some(&"five"));
    *table.get_mut(token).unwrap() = "changed";
    assert_eq!(table.iter().collect::<Vec<_>>(), [(5, &"changed")]);
    assert_eq!(table.remove(token), Some((5, "changed")));
    assert!(table.is_empty());
    assert_eq!(table.by_fd(5), None);
}

#[test]
fn a_token_is_generation_and_index() {
    let mut table = WatchTable::new();
    assert_eq!(table.insert(9, ()), 1 << 32);
    let second = table.insert(8, ());
    assert_eq!(second, 1 << 32 | 1);
    table.remove(second);
    assert_eq!(table.insert(8, ()), 2 << 32 | 1);
}

#[test]
fn a_stale_token_does_not_find_its_successor() {
    let mut table = WatchTable::new();
    let stale = table.insert(5, "old");
    table.remove(stale);
    let token = table.insert(5, "new");
    assert_ne!(stale, token);
    assert_eq!(table.get(stale), None);
    assert_eq!(table.get_mut(stale), None);
    assert_eq!(table.fd(stale), None);
    assert_eq!(table.remove(stale), None);
    assert_eq!(table.get(token), Some(&"new"));
}

#[test]
fn slots_are_used_again() {
    let mut table = WatchTable::new();
    for round in 0..100 {
        let token = table.insert(round, ());
        table.insert(round + 1000, ());
        table.remove(token);
        let other = table.by_fd(round + 1000).unwrap();
        table.remove(other);
    }
    assert_eq!(table.slots.len(), 2);
}

#[test]
fn a_slot_whose_generations_are_used_up_is_given_up() {
    let mut table = WatchTable::new();
    let first = table.insert(5, "first");
    table.slots[0].generation = u32::MAX - 1;
    let last = table.by_fd(5).unwrap();
    assert_eq!(table.get(first), None);
    assert_eq!(table.remove(last), Some((5, "first")));

    let next = table.insert(5, "next");
    assert_eq!(next, 1 << 32 | 1);
    for generation in [0, 1, u64::from(u32::MAX) - 1, u64::from(u32::MAX)] {
        let token = generation << 32;
        assert_eq!(table.get(token), None);
        assert_eq!(table.remove(token), None);
    }
    assert_eq!(table.drain(), [(5, "next")]);
}

#[test]
fn takes_any_number_for_a_descriptor() {
    let mut table = WatchTable::new();
    let descriptors = [0, 65_535, 65_536, i32::MAX, -1, i32::MIN];
    let tokens = descriptors.map(|fd| table.insert(fd, fd));
    for (fd, token) in descriptors.into_iter().zip(tokens) {
        assert_eq!(table.by_fd(fd), Some(token));
        assert_eq!(table.remove(token), Some((fd, fd)));
        assert_eq!(table.by_fd(fd), None);
    }
    assert!(table.sparse.is_empty());
}

#[test]
#[should_panic(expected = "descriptor 5 is watched already")]
fn a_descriptor_has_one_watch() {
    let mut table = WatchTable::new();
    table.insert(5, ());
    table.insert(5, ());
}

#[test]
fn no_payload_is_dropped_inside() {
    let payload = Rc::new(());
    let mut table = WatchTable::new();
    let token = table.insert(0, Rc::clone(&payload));
    for fd in 1..10 {
        table.insert(fd, Rc::clone(&payload));
    }
    let removed = table.remove(token);
    let drained = table.drain();
    assert_eq!(drained.len(), 9);
    assert_eq!(Rc::strong_count(&payload), 11);
    drop((removed, drained));
    assert_eq!(Rc::strong_count(&payload), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(RawFd),
    Change(Index),
    Remove(Index),
    Drain,
}

/// Few descriptors, so that they come back; some of them not in the vector.
fn descriptors() -> impl Strategy<Value = RawFd> {
    prop_oneof![0..12, 65_530..65_542, Just(i32::MAX), Just(-1)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => descriptors().prop_map(Step::Insert),
        2 => any::<Index>().prop_map(Step::Change),
        6 => any::<Index>().prop_map(Step::Remove),
        1 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 0..if cfg!(miri) { 30 } else { 200 })
}

fn sorted(watches: impl IntoIterator<Item = (RawFd, u32)>) -> Vec<(RawFd, u32)> {
    let mut watches: Vec<_> = watches.into_iter().collect();
    watches.sort_unstable();
    watches
}

proptest! {
    #![proptest_config(crate::testing::proptest_config())]

    #[test]
    fn behaves_like_a_map(steps in steps()) {
        let mut table = WatchTable::new();
        let mut model = HashMap::<RawFd, (u64, u32)>::new();
        let mut tokens = Vec::<u64>::new(); // every one that was ever given out
        for (payload, step) in (0..).zip(steps) {
            match step {
                Step::Insert(fd) => {
                    prop_assert_eq!(table.by_fd(fd), model.get(&fd).map(|(token, _)| *token));
                    if let Entry::Vacant(place) = model.entry(fd) {
                        let token = table.insert(fd, payload);
                        prop_assert!(!tokens.contains(&token), "a token came back");
                        tokens.push(token);
                        place.insert((token, payload));
                    }
                }
                Step::Change(_) | Step::Remove(_) if tokens.is_empty() => {}
                Step::Change(which) => {
                    let token = *which.get(&tokens);
                    let mut known = model.values_mut().find(|(known, _)| *known == token);
                    let watch = table.get_mut(token);
                    prop_assert_eq!(watch.as_deref(), known.as_deref().map(|(_, watch)| watch));
                    if let (Some(watch), Some((_, known))) = (watch, &mut known) {
                        *watch = payload;
                        *known = payload;
                    }
                }
                Step::Remove(which) => {
                    let token = *which.get(&tokens);
                    let known = model.iter().find(|(_, (known, _))| *known == token);
                    let known = known.map(|(fd, (_, watch))| (*fd, *watch));
                    prop_assert_eq!(table.remove(token), known);
                    if let Some((fd, _)) = known {
                        model.remove(&fd);
                    }
                }
                Step::Drain => {
                    let known = model.drain().map(|(fd, (_, watch))| (fd, watch));
                    prop_assert_eq!(sorted(table.drain()), sorted(known));
                }
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.is_empty(), model.is_empty());
            prop_assert_eq!(
                sorted(table.iter().map(|(fd, watch)| (fd, *watch))),
                sorted(model.iter().map(|(fd, (_, watch))| (*fd, *watch)))
            );
            let live: HashMap<u64, (RawFd, u32)> =
                model.iter().map(|(fd, (token, watch))| (*token, (*fd, *watch))).collect();
            for token in &tokens {
                let known = live.get(token);
                prop_assert_eq!(table.fd(*token), known.map(|(fd, _)| *fd));
                prop_assert_eq!(table.get(*token), known.map(|(_, watch)| watch));
            }
        }
    }
}
