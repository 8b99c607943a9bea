//! The element types of a buffer, as records and case names spell them.

use serde::{Deserialize, Serialize};

/// The element type of a collective's buffers; in records and case names it is spelled as [`Element::name`] gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Element {
    /// IEEE 754 binary32, 4 bytes.
    #[serde(rename = "f32")]
    F32,
    /// IEEE 754 binary16, 2 bytes.
    #[serde(rename = "f16")]
    F16,
    /// bfloat16, 2 bytes: the exponent of binary32 with 7 mantissa bits.
    #[serde(rename = "bf16")]
    Bf16,
    /// 8-bit float with 4 exponent bits (bias 7) and 3 mantissa bits, 1 byte.
    #[serde(rename = "f8e4m3")]
    F8E4m3,
    /// 8-bit float with 5 exponent bits (bias 15) and 2 mantissa bits, 1 byte.
    #[serde(rename = "f8e5m2")]
    F8E5m2,
}

impl Element {
    /// Every element type, each once.
    pub const ALL: [Element; 5] = [Element::F32, Element::F16, Element::Bf16, Element::F8E4m3, Element::F8E5m2];

    /// Size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::Bf16 => 2,
            Element::F8E4m3 | Element::F8E5m2 => 1,
        }
    }

    /// The largest integer up to which the type holds every integer from 0 on exactly.
    pub const fn exact(self) -> u32 {
        match self {
            Element::F32 => 1 << 24,
            Element::F16 => 2048,
            Element::Bf16 => 256,
            Element::F8E4m3 => 16,
            Element::F8E5m2 => 8,
        }
    }

    /// Writes numbers that the type holds exactly into `out`, one behind another in the host's byte order.
    pub fn encode(self, values: &[f32], out: &mut [u8]) {
        match self {
            Element::F32 => each(values, out, f32::to_ne_bytes),
            Element::F16 => each(values, out, |v| half::f16::from_f32(v).to_ne_bytes()),
            Element::Bf16 => each(values, out, |v| half::bf16::from_f32(v).to_ne_bytes()),
            Element::F8E4m3 => each(values, out, |v| [eight_bits(v, 3, 7)]),
            Element::F8E5m2 => each(values, out, |v| [eight_bits(v, 2, 15)]),
        }
    }

    /// The element type of this name (`bf16`, see [`Element::name`]); `None` for any other text.
    pub fn parse(text: &str) -> Option<Element> {
        Element::ALL.into_iter().find(|element| element.name() == text)
    }

    /// The type's name in records and case names, such as `bf16` in `nccl/all_reduce/r8/bf16/64MiB`.
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

fn each<const N: usize>(values: &[f32], out: &mut [u8], one: impl Fn(f32) -> [u8; N]) {
    for (to, &value) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *to = one(value);
    }
}

/// A whole number that is not negative, with `mantissa` bits behind the leading one.
fn eight_bits(value: f32, mantissa: u32, bias: u32) -> u8 {
    let number = value as u32;
    if number == 0 {
        return 0;
    }
    let exponent = number.ilog2();
    let rest = if exponent <= mantissa {
        (number << (mantissa - exponent)) & ((1 << mantissa) - 1)
    } else {
        (number >> (exponent - mantissa)) & ((1 << mantissa) - 1)
    };
    ((exponent + bias) << mantissa | rest) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of known numbers, exponent and mantissa: 3 and 16 in E4M3 are 1.5 · 2 and 1 · 2⁴ with a bias of 7; 6
    /// in E5M2 is 1.5 · 2² with a bias of 15.
    #[test]
    fn whole_numbers_have_the_bytes_of_their_type() {
        let bytes = |element: Element, value: f32| {
            let mut out = vec![0; element.bytes()];
            element.encode(&[value], &mut out);
            out
        };
        assert_eq!(bytes(Element::F8E4m3, 3.0), [8 << 3 | 4]);
        assert_eq!(bytes(Element::F8E4m3, 16.0), [11 << 3]);
        assert_eq!(bytes(Element::F8E5m2, 6.0), [17 << 2 | 2]);
        assert_eq!(bytes(Element::F8E5m2, 0.0), [0]);
        assert_eq!(bytes(Element::Bf16, 1.0), 0x3f80u16.to_ne_bytes());
        assert_eq!(bytes(Element::F16, 1.0), 0x3c00u16.to_ne_bytes());
        assert_eq!(bytes(Element::F32, 7.0), 7.0f32.to_ne_bytes());
    }

    /// Up to the limit no two integers share their bytes, so a wrong element shows.
    #[test]
    fn every_integer_up_to_the_limit_differs() {
        for element in Element::ALL {
            let values: Vec<f32> = (0..=element.exact().min(2048)).map(|v| v as f32).collect();
            let mut out = vec![0; values.len() * element.bytes()];
            element.encode(&values, &mut out);
            let distinct: std::collections::HashSet<&[u8]> = out.chunks(element.bytes()).collect();
            assert_eq!(distinct.len(), values.len(), "{element:?}");
        }
    }

    #[test]
    fn records_spell_an_element_as_case_names_do() {
        for element in Element::ALL {
            assert_eq!(serde_json::to_string(&element).unwrap(), format!("\"{}\"", element.name()));
        }
    }
}
