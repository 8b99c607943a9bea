//! Collectives and send/recv: what each operation *is* (a file each, shared by every transport), and the transports
//! that run them, between the threads of one process and by NCCL between GPUs.
//!
//! An [`Exchange`] is one operation at one size: how many elements a rank gives and gets ([`RankPlacement`]), the
//! inputs and the exactly predictable results, its bytes ([`Exchange::bytes`]) and the bus-bandwidth factor. [`threads`]
//! runs it on the host; [`Session`] keeps the ranks of one case alive, checks an exchange and times it. [`nccl`] runs it
//! between GPUs, where [`ranks`] are threads or processes, on one host or several. The factors are derived in `docs/collectives.md`.

mod all_gather;
mod all_reduce;
mod all_to_all;
mod broadcast;
mod check;
mod element;
mod exchange;
pub mod nccl;
mod operation;
pub mod pipeline;
pub mod ranks;
mod reduce;
mod reduce_scatter;
pub mod send_recv;
mod session;
pub mod threads;
mod values;

pub use check::{count_wrong, load, wrong_elements};
pub use element::Element;
pub use exchange::{BufferSpan, EXACT, Exchange, RankBuffer, RankPlacement, part};
pub use operation::{CollectiveOperation, Definition, Pattern};
pub use session::{Session, Timing};
