//! Bugs that can be planted into the state machines, to prove that the tests would find them.
//!
//! Outside tests every fault is constantly off and nothing can turn one on.

/// Which bugs are planted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// The server forgets names that a resuming client has and that no longer exist.
    #[cfg(test)]
    pub lost_removal_on_resume: bool,
    /// The server takes a nack of an older response for one of the latest.
    #[cfg(test)]
    pub accept_stale_nack: bool,
    /// The client applies what an earlier stream delivers late.
    #[cfg(test)]
    pub apply_reordered: bool,
}

#[cfg(not(test))]
impl Faults {
    pub(crate) const fn lost_removal_on_resume(self) -> bool {
        false
    }
    pub(crate) const fn accept_stale_nack(self) -> bool {
        false
    }
    pub(crate) const fn apply_reordered(self) -> bool {
        false
    }
}

#[cfg(test)]
impl Faults {
    pub(crate) fn lost_removal_on_resume(self) -> bool {
        self.lost_removal_on_resume
    }
    pub(crate) fn accept_stale_nack(self) -> bool {
        self.accept_stale_nack
    }
    pub(crate) fn apply_reordered(self) -> bool {
        self.apply_reordered
    }
}
