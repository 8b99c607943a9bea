//! A tensor as a plain value: what a device's memory holds, off the device.

/// A tensor with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Its name, such as `fc1.weight`.
    pub name: String,
    /// Its dimensions, the outermost first.
    pub shape: Vec<usize>,
    /// Its elements, row by row: as many as the product of the dimensions.
    pub values: Vec<f32>,
}
