//! An allocator that counts what is asked of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    LARGEST.fetch_max(bytes, Relaxed);
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

#[allow(unsafe_code, reason = "an allocator is unsafe by nature; see SAFETY")]
// SAFETY: every call is the system allocator's own, with the same arguments; counting touches
// no memory but its counters, and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Relaxed);
        took(size);
        // SAFETY: `pointer` came from `System`, with this layout.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The bytes that are in use.
pub(crate) fn live() -> usize {
    LIVE.load(Relaxed)
}

/// What some work asked of the allocator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// The most bytes that were asked for at once.
    pub(crate) at_once: usize,
    /// The most bytes that were in use beside those before.
    pub(crate) at_peak: usize,
}

/// Counts what is asked for while `work` runs.
pub(crate) fn asked_by<T>(work: impl FnOnce() -> T) -> (T, Asked) {
    let before = live();
    LARGEST.store(0, Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    let asked = Asked {
        at_once: LARGEST.load(Relaxed),
        at_peak: PEAK.load(Relaxed).saturating_sub(before),
    };
    (result, asked)
}

#[test]
fn what_is_asked_for_is_counted() {
    let _alone = crate::alone();
    let (vector, asked) = asked_by(|| {
        drop(vec![1u8; 1 << 20]);
        vec![1u8; 3 << 20]
    });
    assert!((3 << 20..4 << 20).contains(&asked.at_once), "{asked:?}");
    // The harness's own threads give a few bytes back in the meantime.
    let most = (3 << 20) - (1 << 16)..4 << 20;
    assert!(most.contains(&asked.at_peak), "{asked:?}");
    drop(vector);
}
