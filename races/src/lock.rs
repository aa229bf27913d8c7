use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::thread;

/// A lock that the sanitizer sees all of: the standard library's is not compiled with it.
pub struct Lock<T> {
    /// How many read; -1 while one writes.
    readers: AtomicIsize,
    /// Whether one waits to write, before which no other begins to read.
    is_wanted: AtomicBool,
    value: UnsafeCell<T>,
    order: Ordering,
}

// SAFETY: many read or one writes, which `readers` sees to.
unsafe impl<T: Send + Sync> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// With `Relaxed`, threads still go one behind the other, but nothing says that what one
    /// wrote is seen by the next.
    pub fn new(value: T, order: Ordering) -> Self {
        Self {
            readers: AtomicIsize::new(0),
            is_wanted: AtomicBool::new(false),
            value: UnsafeCell::new(value),
            order,
        }
    }

    pub fn read<R>(&self, work: impl FnOnce(&T) -> R) -> R {
        let is_wanted = || self.is_wanted.load(Ordering::Relaxed);
        self.enter(|readers| readers >= 0 && !is_wanted(), 1);
        // SAFETY: none writes.
        let result = work(unsafe { &*self.value.get() });
        self.readers.fetch_sub(1, self.order);
        result
    }

    /// For one thread alone.
    pub fn write<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        self.is_wanted.store(true, Ordering::Relaxed);
        self.enter(|readers| readers == 0, -1);
        self.is_wanted.store(false, Ordering::Relaxed);
        // SAFETY: none reads or writes.
        let result = work(unsafe { &mut *self.value.get() });
        self.readers.fetch_add(1, self.order);
        result
    }

    fn enter(&self, may: impl Fn(isize) -> bool, change: isize) {
        loop {
            let readers = self.readers.load(Ordering::Relaxed);
            let next = readers + change;
            if may(readers)
                && self
                    .readers
                    .compare_exchange(readers, next, self.order, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            thread::yield_now();
        }
    }
}
