//! Who watches which descriptor.
//!
//! A slab with generations. A token is `generation << 32 | index`; removing a watch ends its
//! generation, so that no token ever resolves to a later watch in the same slot.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

/// Descriptors below this are looked up in a vector; those above, in a map.
const DENSE: usize = 1 << 16;

/// In the vector, and at the end of the list of free slots: none.
const NONE: u32 = u32::MAX;

/// Watched descriptors with their payloads, found by token or by descriptor.
///
/// At most one watch per descriptor: who wants to hear of both directions holds both in one
/// payload, since epoll knows a descriptor only once.
pub struct WatchTable<W> {
    slots: Vec<Slot<W>>,
    /// The first slot of the list of free ones, or [`NONE`].
    free: u32,
    len: usize,
    /// Index by descriptor, or [`NONE`]; for descriptors below [`DENSE`].
    dense: Vec<u32>,
    /// The same for all others.
    sparse: BTreeMap<RawFd, u32>,
}

struct Slot<W> {
    /// Starts at 1, and grows by one with each removal. At `u32::MAX` the slot is never used
    /// again, so that no token comes back, and none equals `u64::MAX`.
    generation: u32,
    state: State<W>,
}

enum State<W> {
    Watched { fd: RawFd, watch: W },
    Free { next: u32 },
}

impl<W> WatchTable<W> {
    /// An empty table; allocates nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            len: 0,
            dense: Vec::new(),
            sparse: BTreeMap::new(),
        }
    }

    /// How many descriptors are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a watch, and returns its token.
    ///
    /// # Panics
    ///
    /// If `fd` is in the table already; ask [`by_fd`](Self::by_fd) first.
    pub fn insert(&mut self, fd: RawFd, watch: W) -> u64 {
        assert!(
            self.index_of(fd).is_none(),
            "descriptor {fd} is watched already"
        );
        let state = State::Watched { fd, watch };
        let index = if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let index = self.free;
            if let State::Free { next } = std::mem::replace(&mut slot.state, state) {
                self.free = next;
            }
            index
        } else {
            let index = u32::try_from(self.slots.len())
                .ok()
                .filter(|&index| index != NONE)
                .expect("a process has fewer than 2^32 descriptors");
            self.slots.push(Slot {
                generation: 1,
                state,
            });
            index
        };
        self.len += 1;
        self.set_index(fd, index);
        token(self.slots[index as usize].generation, index)
    }

    /// The payload of `token`, unless its watch is gone.
    #[must_use]
    pub fn get(&self, token: u64) -> Option<&W> {
        match self.state(token)? {
            State::Watched { watch, .. } => Some(watch),
            State::Free { .. } => None,
        }
    }

    /// The payload of `token`, unless its watch is gone.
    #[must_use]
    pub fn get_mut(&mut self, token: u64) -> Option<&mut W> {
        let (generation, index) = parts(token);
        let slot = self.slots.get_mut(index as usize)?;
        match &mut slot.state {
            State::Watched { watch, .. } if slot.generation == generation => Some(watch),
            _ => None,
        }
    }

    /// The token of the watch on `fd`.
    #[must_use]
    pub fn by_fd(&self, fd: RawFd) -> Option<u64> {
        let index = self.index_of(fd)?;
        let slot = self.slots.get(index as usize)?;
        Some(token(slot.generation, index))
    }

    /// The descriptor that `token` watches, unless its watch is gone.
    #[must_use]
    pub fn fd(&self, token: u64) -> Option<RawFd> {
        match self.state(token)? {
            State::Watched { fd, .. } => Some(*fd),
            State::Free { .. } => None,
        }
    }

    /// Ends a watch, and returns its descriptor and payload. The token is void from now on.
    pub fn remove(&mut self, token: u64) -> Option<(RawFd, W)> {
        let (generation, index) = parts(token);
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != generation || matches!(slot.state, State::Free { .. }) {
            return None;
        }
        let state = std::mem::replace(&mut slot.state, State::Free { next: self.free });
        slot.generation += 1;
        if slot.generation < u32::MAX {
            self.free = index;
        }
        match state {
            State::Watched { fd, watch } => {
                self.len -= 1;
                self.set_index(fd, NONE);
                Some((fd, watch))
            }
            State::Free { .. } => None,
        }
    }

    /// All watches, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (RawFd, &W)> {
        self.slots.iter().filter_map(|slot| match &slot.state {
            State::Watched { fd, watch } => Some((*fd, watch)),
            State::Free { .. } => None,
        })
    }

    /// Ends all watches, and returns them in no particular order.
    #[must_use = "the payloads are the caller's to free, once nothing borrows the table"]
    pub fn drain(&mut self) -> Vec<(RawFd, W)> {
        let watched: Vec<RawFd> = self.iter().map(|(fd, _)| fd).collect();
        watched
            .into_iter()
            .filter_map(|fd| self.remove(self.by_fd(fd)?))
            .collect()
    }

    fn state(&self, token: u64) -> Option<&State<W>> {
        let (generation, index) = parts(token);
        let slot = self.slots.get(index as usize)?;
        (slot.generation == generation).then_some(&slot.state)
    }

    fn index_of(&self, fd: RawFd) -> Option<u32> {
        match dense_index(fd) {
            Some(place) => self
                .dense
                .get(place)
                .copied()
                .filter(|&index| index != NONE),
            None => self.sparse.get(&fd).copied(),
        }
    }

    fn set_index(&mut self, fd: RawFd, index: u32) {
        match dense_index(fd) {
            Some(place) => {
                if place >= self.dense.len() {
                    self.dense.resize(place + 1, NONE);
                }
                self.dense[place] = index;
            }
            None if index == NONE => {
                self.sparse.remove(&fd);
            }
            None => {
                self.sparse.insert(fd, index);
            }
        }
    }
}

impl<W> Default for WatchTable<W> {
    fn default() -> Self {
        Self::new()
    }
}

fn dense_index(fd: RawFd) -> Option<usize> {
    usize::try_from(fd).ok().filter(|&place| place < DENSE)
}

const fn token(generation: u32, index: u32) -> u64 {
    ((generation as u64) << 32) | index as u64
}

/// The generation and the index of a token.
#[allow(clippy::cast_possible_truncation)]
const fn parts(token: u64) -> (u32, u32) {
    ((token >> 32) as u32, token as u32)
}

#[cfg(test)]
mod tests;
