use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What a file's content is known by: the hub lists it, and the cache names the file so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Digest {
    /// Of a file that git itself keeps: SHA-1 of git's header and the content.
    Git(String),
    /// Of a large file: SHA-256 of the content.
    Sha256(String),
}

impl Digest {
    /// Reads what the hub lists, which is one of 40 or 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        match text.len() {
            40 => Some(Self::Git(text.to_ascii_lowercase())),
            64 => Some(Self::Sha256(text.to_ascii_lowercase())),
            _ => None,
        }
    }

    /// The digest of the same kind of a file on this machine.
    pub(super) fn of_file(&self, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        match self {
            Self::Git(_) => {
                let header = format!("blob {}\0", file.metadata()?.len());
                let hash = hash(Sha1::new_with_prefix(header), file)?;
                Ok(Self::Git(hash))
            }
            Self::Sha256(_) => Ok(Self::Sha256(hash(Sha256::new(), file)?)),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git(hash) | Self::Sha256(hash) => f.write_str(hash),
        }
    }
}

fn hash<H: sha2::Digest>(mut hasher: H, mut file: File) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let hash = hasher.finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_git_s_and_sha_256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello");
        std::fs::write(&path, "hello\n").unwrap();
        // `git hash-object hello`, `sha256sum hello`
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for digest in [git, sha256] {
            let digest = Digest::parse(digest).unwrap();
            assert_eq!(digest.of_file(&path).unwrap(), digest);
            std::fs::write(&path, "hello").unwrap();
            assert_ne!(digest.of_file(&path).unwrap(), digest);
            std::fs::write(&path, "hello\n").unwrap();
        }
    }

    #[test]
    fn what_is_no_digest_is_none() {
        let letters = "g".repeat(40);
        let dots = format!("../{}", "a".repeat(37));
        for text in ["", "0", "abc", &letters, &dots] {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }
}
