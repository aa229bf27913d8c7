use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A file mapped into memory: its bytes are read when they are used.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    /// Where the file cannot be opened or mapped.
    #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; see SAFETY")]
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private to this process and never written through. Another
        // process that truncates the file while it is mapped would make reads fault; weights
        // are replaced by renaming a new file into place (as this crate's own `save` does),
        // which leaves the mapped one whole.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
