//! The ground floor: sizes, number formats, layers and operations as plain values, which devices and cost models speak of
//! alike. Pure arithmetic: nothing here knows a device, a record or a file.
//!
//! [`layer`] is the GPT layer of one tensor-parallel rank and all that follows from its shape; [`operation`] a single
//! operation with its FLOPs and bytes; [`params`] what a record says of either; [`sizes`] the element types and the
//! dimensions of each operation; [`collective`] what a collective's name alone says about it; [`tensor`] a tensor off its device. Each fact of this kind stands
//! here once: how a number format is spelled, a layer's parameters in a record, the bus bandwidth factor by name (each
//! collective's own file derives it, and a test holds the two together).

pub mod collective;
pub mod layer;
pub mod operation;
pub mod params;
pub mod sizes;
pub mod tensor;

pub use layer::{AttentionKind, LayerShape, Normalization, Phase, Positions, Recompute};
pub use sizes::{Attention, Conv, DType, Embedding, GroupNorm, Linear, LstmCell, Pool, Rows};
pub use tensor::NamedTensor;
