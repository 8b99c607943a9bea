//! Tensors in a file, in the layout that the field's tools read: safetensors.
//!
//! ```text
//! 8 bytes   length of the header in bytes, little-endian
//! header    JSON: {"__metadata__":{"key":"text",…},"name":{"dtype":"F32","shape":[640,512],"data_offsets":[0,1310720]},…},
//!           filled up with blanks to a multiple of 8 bytes
//! data      the tensors' elements, little-endian, row by row, without gaps; offsets count from its start
//! ```
//!
//! Written here are tensors of type F32 only, and only those are read. In Python `safetensors.numpy.load_file` reads the
//! same file.

use super::files;
use crate::shape::NamedTensor;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// The header's entry that is no tensor.
const METADATA: &str = "__metadata__";
/// A longer header is taken for damage: this is that of 10,000 tensors.
const LONGEST_HEADER: u64 = 1 << 20;

/// The content of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensors {
    /// What the file says of itself: texts by name.
    pub metadata: Map<String, Value>,
    /// The tensors in the order of their data.
    pub tensors: Vec<NamedTensor>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Writes the file: whole, or the one that stood there before stays. An error where it cannot be written.
pub fn write(path: &Path, content: &Tensors) -> Result<()> {
    let mut header = Map::new();
    header.insert(METADATA.into(), content.metadata.clone().into());
    let mut at = 0;
    for NamedTensor { name, shape, values } in &content.tensors {
        let end = at + size_of_val(values.as_slice());
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = files::to_line(&header)?;
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    files::write_atomic_with(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        let mut values = content.tensors.iter().flat_map(|tensor| &tensor.values);
        values.try_for_each(|value| out.write_all(&value.to_le_bytes()))
    })
}

/// Reads a file; an error where it cannot be read, is damaged, holds another type than F32, or where `check` refuses what it
/// says of itself, before its data are read.
pub fn read(path: &Path, check: impl FnOnce(&Map<String, Value>) -> Result<()>) -> Result<Tensors> {
    let failed = |source| Error::io("read", path, source);
    let damaged = |what: String| {
        Error::input(
            format!("{} is not a whole safetensors file: {what}", path.display()),
            "give a file that was written as a checkpoint",
        )
    };
    // What is no file may have no end.
    let known = std::fs::metadata(path).map_err(failed)?;
    if !known.is_file() {
        return Err(damaged("it is not a file".into()));
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut length = [0; 8];
    if known.len() < 8 {
        return Err(damaged(format!("it has {} bytes", known.len())));
    }
    file.read_exact(&mut length).map_err(failed)?;
    let (length, rest) = (u64::from_le_bytes(length), known.len() - 8);
    if length > rest.min(LONGEST_HEADER) {
        return Err(damaged(format!("its header would have {length} bytes, {rest} are there")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let mut header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|e| damaged(format!("its header is no JSON: {e}")))?;
    let metadata = match header.shift_remove(METADATA) {
        Some(Value::Object(metadata)) => metadata,
        None => Map::new(),
        Some(_) => return Err(damaged(format!("its {METADATA} is no object"))),
    };
    check(&metadata)?;
    let mut tensors = Vec::with_capacity(header.len());
    let (mut at, data) = (0, rest - length);
    for (name, entry) in header {
        let entry: Entry = serde_json::from_value(entry)
            .map_err(|e| damaged(format!("its tensor `{name:.60}` is not described: {e}")))?;
        let bytes = entry.bytes().map_err(|what| damaged(format!("its tensor `{name:.60}` {what}")))?;
        if entry.data_offsets[0] != at || bytes > data - at {
            let [start, end] = entry.data_offsets;
            return Err(damaged(format!("its tensor `{name:.60}` would lie at {start} to {end} of {data} bytes")));
        }
        let mut raw = Vec::new();
        let room = raw.try_reserve_exact(bytes as usize);
        room.map_err(|e| Error::machine(format!("{}: no memory for {bytes} bytes: {e}", path.display()), "free some"))?;
        raw.resize(bytes as usize, 0);
        file.read_exact(&mut raw).map_err(failed)?;
        let (words, _) = raw.as_chunks();
        let values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        tensors.push(NamedTensor { name, shape: entry.shape, values });
        at += bytes;
    }
    if at != data {
        return Err(damaged(format!("{} bytes behind its last tensor", data - at)));
    }
    Ok(Tensors { metadata, tensors })
}

impl Entry {
    /// The bytes of its data; what is wrong with it otherwise.
    fn bytes(&self) -> Result<u64, String> {
        let [start, end] = self.data_offsets;
        let product = self.shape.iter().try_fold(4u64, |product, &n| product.checked_mul(n as u64));
        match product {
            _ if self.dtype != "F32" => Err(format!("has type {:.20}, not F32", self.dtype)),
            Some(bytes) if end.checked_sub(start) == Some(bytes) => Ok(bytes),
            _ => Err(format!("of shape {:?} would lie at {start} to {end}", self.shape)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: &Map<String, Value>) -> Result<()> {
        Ok(())
    }

    fn content() -> Tensors {
        let tensor = |name: &str, shape: &[usize], values: &[f32]| NamedTensor {
            name: name.into(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        let metadata = json!({ "model": "mlp-b32", "steps": "7" }).as_object().unwrap().clone();
        let tensors = vec![
            tensor("w", &[2, 3], &[1.0, -0.0, f32::MIN_POSITIVE, f32::MAX, 1.0e-45, 0.1]),
            tensor("nothing", &[0], &[]),
            tensor("b", &[1], &[f32::INFINITY]),
        ];
        Tensors { metadata, tensors }
    }

    #[test]
    fn what_is_written_is_read_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        write(&path, &content()).unwrap();
        let back = read(&path, any).unwrap();
        assert_eq!(back, content());
        assert!(back.tensors[0].values[1].is_sign_negative());
        let bytes = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!((header % 8, bytes.len()), (0, 8 + header + 28));
        assert!(bytes[8..].starts_with(br#"{"__metadata__":{"model":"mlp-b32","#));
    }

    /// Cut anywhere, or with one byte of its header changed, it is refused in one line, or at least read without a panic.
    #[test]
    fn damaged_files_are_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        write(&path, &content()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = read(&path, any).unwrap_err().to_string();
            assert!(error.contains("a.safetensors is not a whole") && !error.contains('\n'), "{cut}: {error}");
        }
        for at in 0..whole.len() - 28 {
            for other in [0, b'9', b'"', 0xff] {
                let mut changed = whole.clone();
                changed[at] = other;
                std::fs::write(&path, &changed).unwrap();
                let _ = read(&path, any);
            }
        }
        std::fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(read(&path, any).unwrap_err().to_string().contains("4 bytes behind its last tensor"));
        let other = String::from_utf8_lossy(&whole[8..whole.len() - 28]).replacen("F32", "F16", 1);
        let bytes = [&whole[..8], other.as_bytes(), &whole[whole.len() - 28..]].concat();
        std::fs::write(&path, bytes).unwrap();
        assert!(read(&path, any).unwrap_err().to_string().contains("has type F16"));
        assert!(read(folder.path(), any).unwrap_err().to_string().contains("it is not a file"));
        assert!(read(&folder.path().join("none"), any).unwrap_err().to_string().starts_with("cannot read"));
    }
}
