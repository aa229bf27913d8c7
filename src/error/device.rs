/// What can go wrong on a device while it computes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device could not do what it was given, for which it mostly lacks memory.
    #[error("the device failed at {action}: {reason}; if it ran out of memory, {advice}")]
    Failed {
        /// What it was to do.
        action: &'static str,
        /// What its driver says.
        reason: String,
        /// What takes less memory.
        advice: String,
    },
    /// The device failed, and Burn's thread that serves it with it, as it does where memory
    /// runs out while a kernel is chosen by trying: this process cannot use it again.
    #[error(
        "the device failed at {action}, and this process cannot use it again; if it ran out of \
         memory, after a restart {advice}"
    )]
    Lost {
        /// What it was to do.
        action: &'static str,
        /// What takes less memory.
        advice: String,
    },
}
