use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

thread_local! {
    /// Whether this thread is one of several that each do a whole batch.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// The threads that one operation may use.
pub(super) fn available() -> usize {
    match ALONE.get() {
        true => 1,
        false => rayon::current_num_threads(),
    }
}

/// Runs `run` over `0..length` in `parts` nearly equal parts, each on a thread.
pub(super) fn split(length: usize, parts: usize, run: impl Fn(Range<usize>) + Sync) {
    let parts = parts.min(length).max(1);
    let part = |index: usize| length * index / parts..length * (index + 1) / parts;
    if parts == 1 {
        return run(0..length);
    }
    (0..parts)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|index| run(part(index)));
}

/// Runs `run` over every item, in order of the items where there is one thread.
///
/// With two items or more a thread, each item is done by one thread from beginning to
/// end, so that no thread waits for another between layers; with fewer, the operations
/// inside use all threads.
pub(super) fn map<T: Sync, R: Send>(items: &[T], run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 * available() || available() == 1 {
        return items.iter().map(run).collect();
    }
    items
        .par_iter()
        .with_max_len(1)
        .map(|item| {
            let _alone = Alone::new();
            run(item)
        })
        .collect()
}

/// While it lives, this thread's operations use no other thread.
struct Alone {
    before: bool,
}

impl Alone {
    fn new() -> Self {
        Self {
            before: ALONE.replace(true),
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        ALONE.set(self.before);
    }
}

/// Runs `run` over a matrix in `parts` nearly equal parts of whole rows, given the index of
/// each part's first row.
pub(super) fn split_rows(
    values: &mut [f32],
    columns: usize,
    parts: usize,
    run: impl Fn(usize, &mut [f32]) + Sync,
) {
    let rows = values.len().checked_div(columns).unwrap_or(0);
    if parts <= 1 || rows < parts {
        return run(0, values);
    }
    let each = rows.div_ceil(parts);
    values
        .par_chunks_mut(each * columns)
        .enumerate()
        .for_each(|(index, part)| run(index * each, part));
}
