//! The join token. It never crosses the network: each side proves that it knows it by an HMAC over numbers that the
//! other has just made up. It keeps strangers and mix-ups out; it encrypts nothing.
//!
//! Ranks on several hosts are given the same `BUBBLEBENCH_TOKEN`. Where all are on one host and none is set, rank 0
//! makes one, prints it, and leaves it in a file that only its own user can read.

use super::protocol::to_hex;
use crate::{Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The environment variable that gives every rank the same join token.
pub const VARIABLE: &str = "BUBBLEBENCH_TOKEN";
/// Shorter ones can be guessed by trying.
const SHORTEST: usize = 4;

/// The secret that all ranks of a run share; it is never sent, and its debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    /// Leaves the secret out, because debug output may end in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The token with this text; an error where that is shorter than 4 bytes or longer than 4096.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.len() < SHORTEST || text.len() > 4096 {
            return Err(Error::input(
                format!("{VARIABLE} has {} bytes", text.len()),
                "give 4 to 4096, the same on every rank: export BUBBLEBENCH_TOKEN=$(openssl rand -hex 16)",
            ));
        }
        Ok(Token(text))
    }

    /// A token of 16 random bytes as 32 hexadecimal digits; an error where the system gives no random numbers.
    pub fn random() -> Result<Self> {
        Ok(Token(to_hex(&nonce()?)))
    }

    /// Proof that its maker knows the token, for one purpose and one conversation: the HMAC-SHA256 (RFC 2104) of
    /// `purpose` and `parts`, each preceded by its length, as 64 hexadecimal digits.
    pub fn proof(&self, purpose: &str, parts: &[&str]) -> String {
        to_hex(&self.mac(purpose, parts).finalize().into_bytes())
    }

    /// Whether `proof` is the one that [`Token::proof`] makes of these; compared in constant time.
    pub fn proves(&self, proof: &str, purpose: &str, parts: &[&str]) -> bool {
        let Some(proof) = super::protocol::from_hex::<32>(proof) else { return false };
        self.mac(purpose, parts).verify_slice(&proof).is_ok()
    }

    fn mac(&self, purpose: &str, parts: &[&str]) -> Hmac<Sha256> {
        // HMAC takes a key of any length: the error cannot happen, and a MAC of nothing would prove nothing.
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).unwrap_or_else(|_| unreachable!());
        for part in [purpose].iter().chain(parts) {
            // With their lengths, so that no two lists of parts run together into the same bytes.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }

    /// The secret itself, for showing it to the user who is to pass it on.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// 16 random bytes, made anew for every conversation; an error where the system gives no random numbers.
pub fn nonce() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::machine(format!("no random numbers: {e}"), format!("set {VARIABLE} by hand")))?;
    Ok(bytes)
}

/// The file in which rank 0 leaves the token of one rendezvous port for this host's ranks of the same user.
#[derive(Debug)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// The file in the system's folder for temporary files; its path depends on the user and on the port, and nothing
    /// is opened.
    pub fn of_port(port: u16) -> Self {
        // SAFETY: getuid cannot fail and touches no memory.
        let user = unsafe { libc::getuid() };
        TokenFile(std::env::temp_dir().join(format!("bubblebench-{user}")).join(format!("{port}.token")))
    }

    /// The file at a path of a test's own.
    #[cfg(test)]
    pub fn at(path: PathBuf) -> Self {
        TokenFile(path)
    }

    /// Writes the token so that only this user can read it; rank 0 calls this once the port is its own. An error where
    /// the folder is not this user's own or the file cannot be written.
    pub fn write(&self, token: &Token) -> Result<()> {
        let folder = self.own_folder()?;
        let io = |source| Error::io("write", &self.0, source);
        let mut file = tempfile_in(&folder, std::process::id()).map_err(io)?;
        file.1.write_all(token.0.as_bytes()).map_err(io)?;
        fs::rename(&file.0, &self.0).map_err(io)
    }

    /// The token in the file, or `None` while rank 0 has not written it; an error where the folder is not this user's
    /// own, or the file cannot be read or holds no token.
    pub fn read(&self) -> Result<Option<Token>> {
        if !self.0.exists() {
            return Ok(None);
        }
        self.own_folder()?;
        match fs::read_to_string(&self.0) {
            Ok(text) => Token::new(text).map(Some),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io("read", &self.0, source)),
        }
    }

    /// Deletes the file; one that is not there, or cannot be deleted, is no error.
    pub fn remove(&self) {
        // Whoever reads a file that stayed is refused and looks again.
        let _ = fs::remove_file(&self.0);
    }

    /// The folder lies where everyone may write: it must be the user's own, and closed to others.
    fn own_folder(&self) -> Result<PathBuf> {
        let folder = self.0.parent().unwrap_or(Path::new(".")).to_path_buf();
        let io = |source| Error::io("open", &folder, source);
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => return Err(io(source)),
            _ => {}
        }
        let about = fs::symlink_metadata(&folder).map_err(io)?;
        // SAFETY: as above.
        let user = unsafe { libc::getuid() };
        if about.is_dir() && about.uid() == user && about.mode() & 0o077 == 0 {
            return Ok(folder);
        }
        Err(Error::machine(
            format!("{} is not this user's own folder, or open to others", folder.display()),
            format!("remove it, or set {VARIABLE} on every rank"),
        ))
    }
}

fn tempfile_in(folder: &Path, process: u32) -> std::io::Result<(PathBuf, fs::File)> {
    let path = folder.join(format!(".{process}.token"));
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Known answer: RFC 4231, test case 2 (without our length prefixes).
    #[test]
    fn the_mac_is_hmac_sha256() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?");
        let text = to_hex(&mac.finalize().into_bytes());
        assert_eq!(text, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_proof_holds_for_its_token_purpose_and_parts_only() {
        let (token, other) = (Token::new("secret").unwrap(), Token::new("secreu").unwrap());
        let proof = token.proof("member", &["nonce", "body"]);
        assert!(token.proves(&proof, "member", &["nonce", "body"]));
        assert!(!other.proves(&proof, "member", &["nonce", "body"]));
        assert!(!token.proves(&proof, "rank 0", &["nonce", "body"]));
        assert!(!token.proves(&proof, "member", &["nonceb", "ody"]));
        for wrong in ["", "00", &proof[1..], &"0".repeat(64)] {
            assert!(!token.proves(wrong, "member", &["nonce", "body"]));
        }
        assert!(!format!("{token:?}").contains("secret"));
        assert!(Token::new("abc").is_err());
    }

    #[test]
    fn the_file_is_private_and_a_strangers_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("own");
        let file = TokenFile::at(folder.join("29500.token"));
        assert_eq!(file.read().unwrap(), None);
        let token = Token::random().unwrap();
        file.write(&token).unwrap();
        assert_eq!(file.read().unwrap(), Some(token.clone()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file.0)), (0o700, 0o600));
        file.remove();
        assert_eq!(file.read().unwrap(), None);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(file.write(&token).unwrap_err().to_string().contains(VARIABLE));
    }
}
