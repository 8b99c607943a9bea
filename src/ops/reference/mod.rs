//! The vocabulary in f64, written as plainly as the formulas are: what everything else is held against.
