pub fn fit(
    _: &[crate::records::Measurement],
    _: &crate::records::MachineRecord,
    _: &str,
) -> crate::Result<crate::records::CostModel> {
    Err(crate::Error::machine("x", "y"))
}
