//! Finding the end of a message.

use memchr::memchr;
use memchr::memmem;

/// Where a separator is: its first byte, and the one behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub start: usize,
    pub end: usize,
}

/// The first place of `separator` in `data`, from `offset` on.
#[inline]
fn find(data: &[u8], separator: &[u8], offset: usize) -> Option<Match> {
    let rest = data.get(offset..)?;
    let place = match separator {
        [byte] => memchr(*byte, rest),
        several => memmem::find(rest, several),
    }?;
    let start = offset + place;
    Some(Match {
        start,
        end: start + separator.len(),
    })
}

/// The match that ends first; of those that end together, that of the separator that comes first.
#[inline]
pub(super) fn find_first<'a>(
    data: &[u8],
    separators: impl Iterator<Item = &'a [u8]>,
    offset: usize,
) -> Option<Match> {
    separators
        .filter_map(|separator| find(data, separator, offset))
        .reduce(|best, other| if other.end < best.end { other } else { best })
}
