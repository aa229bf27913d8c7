use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::batches::is_on_host;

/// Where the texts of a batch lie among the rows of its packed `[rows, hidden]` tensors.
///
/// On the CPU, back to back and with no row more than there are tokens. A GPU chooses and
/// compiles kernels by the shapes that it sees, so that there rows and widths are rounded up
/// to one of few numbers; and gathering costs it a kernel each time, so that texts of nearly
/// one length, and a text alone, lie as far apart as they are wide: spreading them out is a
/// reshape then. What fills the rows between and behind the texts, nobody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    lengths: Arc<[usize]>,
    /// The places of each text when it is spread out.
    width: usize,
    /// The rows of each text, where all have as many: `width`.
    is_spread: bool,
    rows: usize,
}

impl Layout {
    /// The layout of texts of these lengths on this backend.
    pub fn new<B: Backend>(lengths: Arc<[usize]>) -> Self {
        match is_on_host::<B>() {
            true => Self::exact(lengths),
            false => Self::rounded(lengths),
        }
    }

    /// Back to back: a row for each token.
    pub fn exact(lengths: Arc<[usize]>) -> Self {
        let width = lengths.iter().copied().max().unwrap_or(0);
        Self {
            is_spread: lengths.iter().all(|&length| length == width),
            rows: lengths.iter().sum(),
            width,
            lengths,
        }
    }

    /// Rows and width of which there are few different ones.
    pub fn rounded(lengths: Arc<[usize]>) -> Self {
        let exact = Self::exact(lengths);
        if exact.rows == 0 {
            return exact;
        }
        let (tokens, texts) = (exact.rows, exact.lengths.len());
        // Eight widths from one power of two to the next, sixteen numbers of rows.
        let width = round_up(exact.width, 8);
        let is_spread = texts == 1 || texts * width <= tokens + tokens / 16;
        if exact.is_spread && !is_spread {
            return exact;
        }
        Self {
            is_spread,
            rows: match is_spread {
                true => texts * width,
                false => round_up(tokens, 16),
            },
            width,
            lengths: exact.lengths,
        }
    }

    /// Every text as long as the longest: the padded way.
    #[cfg(test)]
    pub(super) fn padded(lengths: Arc<[usize]>) -> Self {
        let exact = Self::exact(lengths);
        Self {
            is_spread: true,
            rows: exact.texts() * exact.width,
            ..exact
        }
    }

    /// The number of tokens of each text.
    pub fn lengths(&self) -> &Arc<[usize]> {
        &self.lengths
    }

    /// The number of texts.
    pub fn texts(&self) -> usize {
        self.lengths.len()
    }

    /// The number of tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The rows of packed tensors: at least one for each token.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The places of each text where texts are spread out: at least the longest's tokens.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether texts are spread out as they lie.
    pub fn is_spread(&self) -> bool {
        self.is_spread
    }

    /// Whether there is a place without a token where texts are spread out.
    pub fn is_ragged(&self) -> bool {
        self.lengths.iter().any(|&length| length != self.width)
    }

    /// The row of each text's first token.
    pub fn starts(&self) -> impl Iterator<Item = usize> {
        let mut next = 0;
        self.lengths.iter().map(move |&length| {
            let start = next;
            next += if self.is_spread { self.width } else { length };
            start
        })
    }

    /// A value for each row, of one for each token: 0 where there is none.
    pub fn to_rows<T: Copy + Default>(&self, values: Vec<T>) -> Vec<T> {
        if values.len() == self.rows {
            return values;
        }
        let mut rows = vec![T::default(); self.rows];
        let mut rest = &values[..];
        for (start, &length) in self.starts().zip(self.lengths.iter()) {
            let (text, behind) = rest.split_at(length);
            rows[start..start + length].copy_from_slice(text);
            rest = behind;
        }
        rows
    }
}

/// The next multiple of a power of two that is `n` over `parts` or less, and at least 8.
fn round_up(n: usize, parts: usize) -> usize {
    let below = 1 << n.max(1).ilog2();
    n.next_multiple_of((below / parts).max(8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{BatchLimits, plan};
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::collections::BTreeSet;

    #[test]
    fn rows_are_few_numbers_and_not_many_more_than_tokens() {
        for n in 1..10_000 {
            let (width, rows) = (round_up(n, 8), round_up(n, 16));
            assert!(width >= n && width < n + (n / 8).max(8));
            assert!(rows >= n && rows < n + (n / 16).max(8));
        }
        let widths: BTreeSet<usize> = (1..=512).map(|n| round_up(n, 8)).collect();
        assert_eq!(widths.len(), 32);
    }

    #[test]
    fn every_token_has_a_row_of_its_own_in_order() {
        let mut rng = StdRng::seed_from_u64(11);
        for _ in 0..300 {
            let texts = rng.random_range(1..40);
            let longest = rng.random_range(1..90);
            let lengths: Vec<usize> = (0..texts).map(|_| rng.random_range(1..=longest)).collect();
            for layout in [
                Layout::exact(lengths.clone().into()),
                Layout::rounded(lengths.clone().into()),
            ] {
                let rows: Vec<usize> = layout
                    .starts()
                    .zip(&lengths)
                    .flat_map(|(start, &length)| start..start + length)
                    .collect();
                assert!(rows.is_sorted_by(|a, b| a < b));
                assert!(rows.last().is_some_and(|&last| last < layout.rows()));
                let values: Vec<usize> = (1..=layout.tokens()).collect();
                let found = layout.to_rows(values.clone());
                assert_eq!(found.len(), layout.rows());
                let kept: Vec<usize> = found.iter().copied().filter(|&v| v > 0).collect();
                assert_eq!(kept, values);
                assert!(rows.iter().zip(&values).all(|(&row, &v)| found[row] == v));
            }
        }
    }

    #[test]
    fn a_text_alone_and_texts_of_like_length_are_spread_out_as_they_lie() {
        let rounded = |lengths: &[usize]| Layout::rounded(lengths.into());
        let alone = rounded(&[5]);
        assert!(alone.is_spread() && (alone.rows(), alone.width()) == (8, 8));
        let alike = rounded(&[16, 16, 16, 15]);
        assert!(alike.is_spread() && alike.is_ragged() && alike.rows() == 64);
        assert_eq!(alike.starts().collect::<Vec<_>>(), [0, 16, 32, 48]);
        let ragged = rounded(&[16, 3]);
        assert!(!ragged.is_spread() && (ragged.rows(), ragged.width()) == (24, 16));
        assert_eq!(ragged.starts().collect::<Vec<_>>(), [0, 16]);
        // Of one length that is none of the widths: no place is empty as it is.
        let uniform = rounded(&[13, 13, 13]);
        assert_eq!(uniform, Layout::exact([13, 13, 13].into()));
        assert!(uniform.is_spread() && !uniform.is_ragged());
        assert_eq!(rounded(&[0, 0]).rows(), 0);
    }

    /// Texts as a call has them: many short ones, few long ones, of one kind or another.
    fn mixed_lengths(call: u64, texts: usize) -> Vec<usize> {
        let mut rng = StdRng::seed_from_u64(call);
        let scale = [4.0, 8.0, 12.0, 20.0][rng.random_range(0..4)];
        let length = |u: f64| (4.0 + scale * (-u.max(1e-9).ln()).powf(1.6)) as usize;
        (0..texts)
            .map(|_| length(rng.random::<f64>()).clamp(3, 256))
            .collect()
    }

    #[test]
    fn mixed_texts_are_computed_with_few_shapes_and_little_padding() {
        let limits = BatchLimits {
            texts: 32,
            cost: 8192,
            hidden_size: 384,
        };
        let (mut sorted, mut as_they_come) = (Vec::new(), Vec::new());
        for call in 0..100 {
            let lengths = mixed_lengths(call, 320);
            for batch in plan(&lengths, &limits) {
                sorted.push(batch.iter().map(|&i| lengths[i]).collect::<Vec<_>>());
            }
            as_they_come.extend(lengths.chunks(32).map(<[usize]>::to_vec));
        }
        for (name, batches) in [("sorted", sorted), ("as they come", as_they_come)] {
            let layouts = |of: fn(Arc<[usize]>) -> Layout| -> Vec<Layout> {
                batches
                    .iter()
                    .map(|lengths| of(lengths[..].into()))
                    .collect()
            };
            let count = |layouts: &[Layout]| {
                let shape = |l: &Layout| (l.rows(), l.texts(), l.width(), l.is_spread());
                layouts.iter().map(shape).collect::<BTreeSet<_>>().len()
            };
            let (rounded, exact) = (layouts(Layout::rounded), layouts(Layout::exact));
            let tokens = batches.iter().flatten().sum::<usize>() as f64;
            let rows: usize = rounded.iter().map(Layout::rows).sum();
            let padded: usize = exact.iter().map(|l| l.texts() * l.width()).sum();
            let (few, many) = (count(&rounded), count(&exact));
            let computed = rows as f64 / tokens;
            println!(
                "{name}: {few} shapes, {many} if nothing was rounded; {computed:.3} rows a token, \
                 {:.3} if all was padded",
                padded as f64 / tokens
            );
            assert!(computed <= 1.05, "{name}: {computed}");
            assert!(few * 2 < many, "{name}: {few} of {many}");
        }
    }
}
