//! Links the shared libraries into `<target>/softgpu`, where tests and scripts look for them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io, process};

pub struct Libraries {
    folder: PathBuf,
}

impl Libraries {
    pub fn new(out: &Path) -> io::Result<Self> {
        let folder = crate::target::folder(out).map_err(io::Error::other)?.join("softgpu");
        fs::create_dir_all(&folder)?;
        Ok(Libraries { folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Written beside its place and renamed: a test that runs meanwhile keeps the old one.
    pub fn link(&self, soname: &str, objects: &[PathBuf]) -> io::Result<()> {
        let compiler = cc::Build::new().cpp(true).debug(false).opt_level(2).try_get_compiler();
        let compiler = compiler.map_err(|e| io::Error::other(e.to_string()))?;
        let part = self.folder.join(format!("{soname}.{}", process::id()));
        let mut command = compiler.to_command();
        command.args(["-shared", "-pthread", "-Wl,--no-undefined"]).arg(format!("-Wl,-soname,{soname}"));
        let status = command.args(objects).arg("-o").arg(&part).args(["-ldl", "-lm"]).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{soname} does not link")));
        }
        place(&part, &self.folder.join(soname))
    }
}

/// Renames a finished library to its place. It is dated back: cargo watches it, and one newer than the build that made it
/// would be built again every time.
pub fn place(part: &Path, library: &Path) -> io::Result<()> {
    fs::File::options().write(true).open(part)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))?;
    fs::rename(part, library)
}
