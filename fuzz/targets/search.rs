//! The search for separators of a stream reader, beside the plainest one: every place, in order.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/weft-py/src/streams/search.rs"]
mod search;

use search::{Match, find_first};

#[derive(Arbitrary, Debug)]
struct Input {
    data: Vec<u8>,
    /// Few different bytes, so that there is something to find.
    letters: u8,
    separators: Vec<Vec<u8>>,
    offset: u8,
}

fuzz_target!(|input: Input| {
    let few = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| byte % (input.letters % 5 + 1))
            .collect::<Vec<_>>()
    };
    let data = few(&input.data);
    let mut separators: Vec<_> = input.separators.iter().map(|one| few(one)).collect();
    separators.retain(|separator| !separator.is_empty());
    // As the reader has them.
    separators.sort_by_key(Vec::len);
    let offset = usize::from(input.offset);
    let firsts = separators.iter().filter_map(|separator| {
        let start = (offset..=data.len()).find(|&place| data[place..].starts_with(separator))?;
        Some(Match {
            start,
            end: start + separator.len(),
        })
    });
    // Of those that end together min_by_key() gives the first.
    let expected = firsts.min_by_key(|found| found.end);
    assert_eq!(
        find_first(&data, separators.iter().map(Vec::as_slice), offset),
        expected
    );
});
