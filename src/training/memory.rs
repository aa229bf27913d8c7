/// The most memory that this process has taken, in bytes; `None` where the system does not say.
#[cfg(unix)]
pub(super) fn peak_memory() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};

    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let peak = u64::try_from(usage.max_rss()).ok()?;
    // Apple's systems count bytes, the others KiB.
    Some(if cfg!(target_vendor = "apple") {
        peak
    } else {
        peak * 1024
    })
}

/// The most memory that this process has taken, in bytes; `None` where the system does not say.
#[cfg(not(unix))]
pub(super) fn peak_memory() -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_grows_by_what_is_taken() {
        const BYTES: usize = 64 << 20;
        let before = peak_memory().unwrap();
        let taken = vec![1u8; before as usize + BYTES];
        let after = peak_memory().unwrap();
        assert!(after >= before + BYTES as u64, "{before} to {after}");
        assert!(
            after < 4 * (before + taken.len() as u64),
            "{before} to {after}"
        );
    }
}
