//! The fence around `unsafe`: everything that touches Python's memory by hand.
//!
//! Ground rules, on which the safe code above this module relies:
//!
//! - Every function here runs with the GIL held. [`Python`](pyo3::Python) tokens and `Bound` references prove
//!   it; the trampolines in [`method`] and [`class`] make the token at the border with C.
//! - Native state is only ever reached through shared references. It consists of `Cell`s, `RefCell`s and
//!   [`Slot`]s, so a Python callback that re-enters finds whole values, never a broken borrow.
//! - A [`Slot`] owns one reference. Its old value is dropped after the new one is in place, because dropping
//!   runs destructors that may look at the slot again.
//! - No panic crosses into C: each trampoline catches it and raises `SystemError`.
//! - The memory of `asyncio`'s own futures and tasks is read and written only through [`base`], after
//!   [`base::verify`] has proven, once, at import, that its picture of that memory is true.

pub mod base;
pub mod bytes;
pub mod call;
pub mod callback;
pub mod class;
pub mod context;
pub mod coroutine_function;
pub mod file;
pub mod lifecycle;
pub mod method;
pub mod object;
pub mod registry;
pub mod slots;
pub mod socket;
pub mod special;
pub mod state;
pub mod stop;

pub use class::{Class, Native, Visit};
pub use object::{Reference, Slot};
