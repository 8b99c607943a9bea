//! The element types of a buffer, as records and case names spell them.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Element {
    #[serde(rename = "f32")]
    F32,
    #[serde(rename = "f16")]
    F16,
    #[serde(rename = "bf16")]
    Bf16,
    #[serde(rename = "f8e4m3")]
    F8E4m3,
    #[serde(rename = "f8e5m2")]
    F8E5m2,
}

impl Element {
    pub const ALL: [Element; 5] = [Element::F32, Element::F16, Element::Bf16, Element::F8E4m3, Element::F8E5m2];

    pub const fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::Bf16 => 2,
            Element::F8E4m3 | Element::F8E5m2 => 1,
        }
    }

    /// As in `nccl/all_reduce/r8/bf16/64MiB`.
    pub const fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::Bf16 => "bf16",
            Element::F8E4m3 => "f8e4m3",
            Element::F8E5m2 => "f8e5m2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_spell_an_element_as_case_names_do() {
        for element in Element::ALL {
            assert_eq!(serde_json::to_string(&element).unwrap(), format!("\"{}\"", element.name()));
        }
    }
}
