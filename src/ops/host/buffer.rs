//! The host's memory: f32 on cache-line boundaries, or token identifiers.

use crate::ops::DType;
use crate::{Error, Result};

/// Floats start on a cache line, so that no vector load of a whole row straddles two.
const ALIGNMENT: usize = 64;
const PADDING: usize = ALIGNMENT / size_of::<f32>();

/// Memory of the host device; opaque to models.
#[derive(Debug)]
pub struct HostBuffer(Store);

#[derive(Debug)]
enum Store {
    Floats { padded: Vec<f32>, start: usize, len: usize },
    Ids(Vec<u32>),
}

/// Why a buffer does not fit the operation; [`super::Host`] adds the operation's name.
#[derive(Debug)]
pub struct BufferMisfit(pub String);

pub type BufferResult<T = ()> = Result<T, BufferMisfit>;

impl HostBuffer {
    /// `len` elements of f32, poisoned with NaN, or of u32, poisoned with `u32::MAX` (no vocabulary has it).
    pub(super) fn poisoned(len: usize, dtype: DType) -> Result<Self> {
        match dtype {
            DType::F32 => {
                let mut padded = reserve(len.saturating_add(PADDING))?;
                padded.resize(len + PADDING, f32::NAN);
                let start = padded.as_ptr().align_offset(ALIGNMENT).min(PADDING);
                Ok(HostBuffer(Store::Floats { padded, start, len }))
            }
            DType::U32 => {
                let mut ids = reserve(len)?;
                ids.resize(len, u32::MAX);
                Ok(HostBuffer(Store::Ids(ids)))
            }
            other => Err(Error::input(
                format!("the host computes in f32 and has no {} buffers", other.name()),
                "ask for f32, or for u32 to hold token identifiers",
            )),
        }
    }

    /// The number of elements.
    pub const fn len(&self) -> usize {
        match &self.0 {
            Store::Floats { len, .. } => *len,
            Store::Ids(ids) => ids.len(),
        }
    }

    /// Whether there is no element.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `len` floats; `role` is the buffer's name in the operation.
    pub(super) fn floats(&self, role: &str, len: usize) -> BufferResult<&[f32]> {
        self.fits(role, len)?;
        match &self.0 {
            Store::Floats { padded, start, .. } => Ok(&padded[*start..*start + len]),
            Store::Ids(_) => Err(BufferMisfit(format!("`{role}` holds identifiers, not floats"))),
        }
    }

    pub(super) fn floats_mut(&mut self, role: &str, len: usize) -> BufferResult<&mut [f32]> {
        self.fits(role, len)?;
        match &mut self.0 {
            Store::Floats { padded, start, .. } => Ok(&mut padded[*start..*start + len]),
            Store::Ids(_) => Err(BufferMisfit(format!("`{role}` holds identifiers, not floats"))),
        }
    }

    /// The first `len` identifiers, each below `bound`.
    pub(super) fn ids(&self, role: &str, len: usize, bound: usize) -> BufferResult<&[u32]> {
        self.fits(role, len)?;
        let Store::Ids(ids) = &self.0 else {
            return Err(BufferMisfit(format!("`{role}` holds floats, not identifiers")));
        };
        let ids = &ids[..len];
        match ids.iter().position(|&id| id as usize >= bound) {
            Some(at) => Err(BufferMisfit(format!("`{role}[{at}]` is {}, outside the vocabulary of {bound}", ids[at]))),
            None => Ok(ids),
        }
    }

    pub(super) fn ids_mut(&mut self) -> BufferResult<&mut [u32]> {
        match &mut self.0 {
            Store::Ids(ids) => Ok(ids),
            Store::Floats { .. } => Err(BufferMisfit("the buffer holds floats, not identifiers".into())),
        }
    }

    /// What it holds as f64, whatever the type.
    pub(super) fn to_f64(&self) -> Vec<f64> {
        match &self.0 {
            Store::Floats { padded, start, len } => padded[*start..*start + *len].iter().map(|&v| v.into()).collect(),
            Store::Ids(ids) => ids.iter().map(|&id| id.into()).collect(),
        }
    }

    /// Larger buffers are welcome (a workspace shared by several shapes), smaller ones are not.
    fn fits(&self, role: &str, len: usize) -> BufferResult {
        if self.len() >= len {
            return Ok(());
        }
        Err(BufferMisfit(format!("`{role}` has {} elements, the shape needs {len}", self.len())))
    }
}

fn reserve<T>(len: usize) -> Result<Vec<T>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(len).map_err(|_| {
        Error::machine(
            format!("the host has no memory for a buffer of {len} elements"),
            "choose a smaller shape, or a machine with more memory",
        )
    })?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_aligned_and_poisoned() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let buffer = HostBuffer::poisoned(len, DType::F32).unwrap();
            let floats = buffer.floats("x", len).unwrap();
            assert_eq!(floats.as_ptr() as usize % ALIGNMENT, 0);
            assert!(floats.len() == len && floats.iter().all(|v| v.is_nan()));
        }
    }

    #[test]
    fn wrong_lengths_types_and_identifiers_are_named() {
        let floats = HostBuffer::poisoned(8, DType::F32).unwrap();
        let mut ids = HostBuffer::poisoned(2, DType::U32).unwrap();
        assert!(floats.floats("gamma", 9).unwrap_err().0.contains("`gamma` has 8 elements, the shape needs 9"));
        assert!(floats.ids("tokens", 2, 5).is_err() && ids.floats("x", 1).is_err());
        assert!(ids.ids("tokens", 2, 5).unwrap_err().0.contains("outside the vocabulary of 5"), "poisoned");
        ids.ids_mut().unwrap().copy_from_slice(&[4, 0]);
        assert_eq!(ids.ids("tokens", 2, 5).unwrap(), [4, 0]);
        assert_eq!(ids.to_f64(), [4.0, 0.0]);
        for dtype in [DType::Bf16, DType::F16, DType::F64] {
            assert!(HostBuffer::poisoned(1, dtype).is_err());
        }
        assert!(
            HostBuffer::poisoned(usize::MAX, DType::F32).is_err() && HostBuffer::poisoned(1 << 60, DType::U32).is_err()
        );
    }
}
