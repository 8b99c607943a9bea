//! Memory, kernel and host name, and small readers that answer `None` instead of failing.

use std::ffi::CStr;
use std::fs;
use std::path::Path;
use std::process::Command;

pub fn read_trimmed(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_string())
}

/// A value of macOS's (or a BSD's) kernel state.
pub fn sysctl(name: &str) -> Option<String> {
    if cfg!(target_os = "linux") {
        return None;
    }
    let output = Command::new("sysctl").args(["-n", name]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Ends the process at once: nothing that an orderly exit would run can wait for a device that does not answer.
pub fn leave(code: i32) -> ! {
    // SAFETY: ends the process; whatever is half done is what a kill would leave, which the records are made for.
    unsafe { libc::_exit(code) }
}

pub fn memory_bytes() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).or_else(|| sysctl("hw.memsize")?.parse().ok())
}

/// `Linux 6.1.0`
pub fn kernel() -> String {
    // SAFETY: all zeros is a valid utsname.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: uname fills the structure it is given.
    if unsafe { libc::uname(&mut name) } != 0 {
        return std::env::consts::OS.to_string();
    }
    let text = |field: &[libc::c_char]| {
        // SAFETY: uname ends every field with a NUL inside it.
        unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned()
    };
    format!("{} {}", text(&name.sysname), text(&name.release))
}

/// The name this machine gives itself; `None` where it has none or the system does not tell.
pub fn hostname() -> Option<String> {
    let mut name = [0u8; 256];
    // SAFETY: the length leaves room for the NUL, whatever the name.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0;
    let text = CStr::from_bytes_until_nul(&name).ok()?.to_string_lossy().into_owned();
    (!failed && !text.is_empty()).then_some(text)
}
