use std::thread;
use std::time::Duration;

/// The first wait before another try; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait that is not the hub's own wish.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// The longest wait that the hub is granted.
pub(super) const LONGEST_WISH: Duration = Duration::from_secs(300);

/// How a request failed, as far as trying again is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chance {
    /// The next try may succeed, at the earliest after what the hub asks for.
    MayPass(Option<Duration>),
    /// The next try would fail alike.
    Stays,
}

impl Chance {
    /// Whether an answer of that status may be another one the next time.
    pub(super) fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            408 | 429 | 500 | 502 | 503 | 504 => Self::MayPass(retry_after),
            _ => Self::Stays,
        }
    }
}

/// The tries of one request.
#[derive(Debug)]
pub(super) struct Retries {
    most: usize,
    failures: usize,
}

impl Retries {
    /// After the first try, `most` further ones.
    pub(super) fn new(most: usize) -> Self {
        Self { most, failures: 0 }
    }

    /// Waits before another try; `false` where there is none.
    pub(super) fn wait(&mut self, chance: Chance) -> bool {
        match wait(self.most, self.failures, chance) {
            Some(wait) => {
                self.failures += 1;
                log::debug!("trying again in {wait:?}");
                thread::sleep(wait);
                true
            }
            None => false,
        }
    }

    /// Counts from the beginning: something was achieved.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// How long to wait after so many failures before the last; `None` is not to try again.
fn wait(most: usize, failures: usize, chance: Chance) -> Option<Duration> {
    let Chance::MayPass(wish) = chance else {
        return None;
    };
    if failures >= most || wish.is_some_and(|wish| wish > LONGEST_WISH) {
        return None;
    }
    let doublings = u32::try_from(failures).unwrap_or(u32::MAX);
    let factor = 2u32.checked_pow(doublings).unwrap_or(u32::MAX);
    let backoff = FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT);
    Some(backoff.max(wish.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<_> = (0..9).map(|n| wait(8, n, Chance::MayPass(None))).collect();
        let millis = [100, 200, 400, 800, 1600, 3200, 6400, 8000];
        let expected = millis.map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!(waits[..8], expected);
        assert_eq!(waits[8], None);
        assert_eq!(wait(1000, 999, Chance::MayPass(None)), Some(LONGEST_WAIT));
    }

    #[test]
    fn the_hub_s_wish_is_granted_if_it_is_not_too_long() {
        let wait = |seconds| {
            let wish = Duration::from_secs(seconds);
            wait(5, 0, Chance::MayPass(Some(wish)))
        };
        assert_eq!(wait(0), Some(FIRST_WAIT));
        assert_eq!(wait(120), Some(Duration::from_secs(120)));
        assert_eq!(wait(301), None);
    }

    #[test]
    fn what_would_fail_again_is_not_tried_again() {
        for status in [400, 401, 403, 404, 409, 416, 501] {
            assert_eq!(Chance::of_status(status, None), Chance::Stays);
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(Chance::of_status(status, None), Chance::MayPass(None));
        }
        assert_eq!(wait(5, 0, Chance::Stays), None);
    }
}
