pub enum DeviceChoice {
    Host,
}
impl DeviceChoice {
    pub fn parse(_: &str) -> crate::Result<Self> {
        Ok(Self::Host)
    }
    pub fn resolve(self) -> crate::Result<Self> {
        Ok(self)
    }
    pub fn backend(&self) -> crate::records::measurement::Backend {
        crate::records::measurement::Backend::Host
    }
}
impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("host")
    }
}
pub fn record(_: &DeviceChoice) -> crate::Result<crate::records::MachineRecord> {
    Err(crate::Error::machine("x", "y"))
}
