#![allow(unsafe_code, reason = "outputs are written in parts; see SAFETY")]

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use rten_simd::{Isa, SimdOp};

use super::attention_scores::{Block, Places, ScoreSlopes, Softmax, drop_out};
use super::destination::{Destination, filled};
use super::elementwise::add_vectors;
use super::linear::Store;
use super::matrix::{MatrixView, PackedMatrix};
use super::product::{Epilogue, Term, Vectors, product_on};
use super::random::Dropout;
use super::tensor::Floats;
use super::threads;

/// The queries whose scores are computed at once: a few tiles high, so that the scores of
/// a long text still fit in the second-level cache.
const QUERIES: usize = 84;

/// Below this many multiplications attention is not worth a second thread.
const PARALLEL_WORK: usize = 1 << 20;

/// Attention within each text of a packed batch, ready to run.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    pub(super) lengths: Arc<[usize]>,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) scale: f32,
    pub(super) window: Option<usize>,
    pub(super) causal: bool,
    /// `[heads, width, width]`
    pub(super) bias: Option<Floats>,
    pub(super) dropout: Option<Dropout>,
}

/// The query, the key and the value, `[tokens, heads * head_dim]`.
pub(super) type Inputs<'a> = [&'a Floats; 3];

/// One text's one key head, with the query heads that read it.
struct Unit {
    start: usize,
    length: usize,
    group: usize,
}

/// What one thread keeps from unit to unit.
#[derive(Debug)]
struct Workspace {
    keys: PackedMatrix,
    values: PackedMatrix,
    /// Backward only: keys and values in the other order, and a block's queries and
    /// gradients.
    keys_straight: PackedMatrix,
    values_transposed: PackedMatrix,
    queries: PackedMatrix,
    gradients: PackedMatrix,
    /// Probabilities, their gradients, and probabilities after dropout.
    scores: Vec<f32>,
    slopes: Vec<f32>,
    dropped: Vec<f32>,
    /// The inverse sum of each query's exponentials.
    scales: Vec<f32>,
    key_gradients: Vec<f32>,
    value_gradients: Vec<f32>,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            keys: PackedMatrix::empty(),
            values: PackedMatrix::empty(),
            keys_straight: PackedMatrix::empty(),
            values_transposed: PackedMatrix::empty(),
            queries: PackedMatrix::empty(),
            gradients: PackedMatrix::empty(),
            scores: Vec::new(),
            slopes: Vec::new(),
            dropped: Vec::new(),
            scales: Vec::new(),
            key_gradients: Vec::new(),
            value_gradients: Vec::new(),
        }
    }
}

thread_local! {
    static WORKSPACE: RefCell<Option<Box<Workspace>>> = const { RefCell::new(None) };
}

impl Attention {
    /// Every token's context, `[tokens, heads * head_dim]`.
    pub(super) fn forward(&self, inputs: Inputs<'_>) -> Floats {
        let shape: [usize; 2] = inputs[0].dims();
        // SAFETY: the units are all texts and heads, and each writes the context of its own.
        let (output, ()) = unsafe {
            filled(shape, |output| {
                self.for_each_unit(shape[1] / self.heads, |unit, workspace| {
                    self.forward_unit(inputs, unit, workspace, output);
                });
            })
        };
        Floats::from_vec(output, &shape)
    }

    /// The gradients of query, key and value.
    ///
    /// The probabilities are computed again: keeping them would take as many times the
    /// memory of the inputs as a head has more tokens than dimensions.
    pub(super) fn backward(&self, inputs: Inputs<'_>, gradient: &Floats) -> [Floats; 3] {
        let shapes: [[usize; 2]; 3] = inputs.map(Floats::dims);
        // SAFETY: the units are all texts and key heads; each writes the gradients of its
        // own key head and of the query heads that read it.
        let (query, (key, (value, ()))) = unsafe {
            filled(shapes[0], |query| {
                filled(shapes[1], |key| {
                    filled(shapes[2], |value| {
                        let outputs = [query, key, value];
                        self.for_each_unit(shapes[0][1] / self.heads, |unit, workspace| {
                            self.backward_unit(inputs, gradient, unit, workspace, outputs);
                        });
                    })
                })
            })
        };
        [
            Floats::from_vec(query, &shapes[0]),
            Floats::from_vec(key, &shapes[1]),
            Floats::from_vec(value, &shapes[2]),
        ]
    }

    fn for_each_unit(&self, head_dim: usize, run: impl Fn(&Unit, &mut Workspace) + Sync) {
        let mut units = Vec::with_capacity(self.lengths.len() * self.key_value_heads);
        let (mut start, mut work) = (0, 0);
        for &length in &*self.lengths {
            units.extend((0..self.key_value_heads).map(|group| Unit {
                start,
                length,
                group,
            }));
            start += length;
            work += 2 * self.heads * length * length * head_dim;
        }
        let threads = match work < PARALLEL_WORK {
            true => 1,
            false => threads::available(),
        };
        // Several shares a thread, as texts differ in length.
        let shares = if threads == 1 { 1 } else { 4 * threads };
        threads::split(units.len(), shares, |part| {
            // Taken rather than borrowed: whatever runs below finds none and makes its own.
            let mut workspace = WORKSPACE.take().unwrap_or_default();
            for unit in &units[part] {
                run(unit, &mut workspace);
            }
            WORKSPACE.set(Some(workspace));
        });
    }

    fn forward_unit(
        &self,
        inputs: Inputs<'_>,
        unit: &Unit,
        workspace: &mut Workspace,
        output: &Destination<'_>,
    ) {
        let [_, hidden] = inputs[0].dims();
        let head_dim = hidden / self.heads;
        let [key, value] = [1, 2].map(|i| head_of(inputs[i], unit, unit.group, head_dim));
        let mut packed = None;
        for block in self.blocks(unit.length) {
            if packed.as_ref() != Some(&block.keys) {
                workspace
                    .keys
                    .pack(rows(key, &block.keys).transposed(), 1.0);
                workspace.values.pack(rows(value, &block.keys), 1.0);
                packed = Some(block.keys.clone());
            }
            for head in self.heads_of(unit) {
                let query = rows(head_of(inputs[0], unit, head, head_dim), &block.queries);
                self.probabilities(query, unit, head, &block, workspace);
                if let Some(dropout) = self.dropout {
                    let places = self.places(unit, head, &block);
                    drop_out(&mut workspace.scores, &block, dropout, places);
                }
                let scores = block.view(&workspace.scores);
                let epilogue = Scaled {
                    output,
                    scales: &workspace.scales,
                    row: unit.start + block.queries.start,
                    column: head * head_dim,
                };
                product_on(1, &[Term::new(scores, &workspace.values)], &epilogue);
            }
        }
    }

    fn backward_unit(
        &self,
        inputs: Inputs<'_>,
        gradient: &Floats,
        unit: &Unit,
        workspace: &mut Workspace,
        [query_output, key_output, value_output]: [&Destination<'_>; 3],
    ) {
        let [_, hidden] = inputs[0].dims();
        let head_dim = hidden / self.heads;
        let [key, value] = [1, 2].map(|i| head_of(inputs[i], unit, unit.group, head_dim));
        for sums in [&mut workspace.key_gradients, &mut workspace.value_gradients] {
            sums.clear();
            sums.resize(unit.length * head_dim, 0.0);
        }
        let mut packed = None;
        for block in self.blocks(unit.length) {
            if packed.as_ref() != Some(&block.keys) {
                let (key, value) = (rows(key, &block.keys), rows(value, &block.keys));
                workspace.keys.pack(key.transposed(), 1.0);
                workspace.keys_straight.pack(key, 1.0);
                workspace.values_transposed.pack(value.transposed(), 1.0);
                packed = Some(block.keys.clone());
            }
            for head in self.heads_of(unit) {
                let query = rows(head_of(inputs[0], unit, head, head_dim), &block.queries);
                let gradient = rows(head_of(gradient, unit, head, head_dim), &block.queries);
                self.probabilities(query, unit, head, &block, workspace);
                workspace.queries.pack(query, 1.0);
                workspace.gradients.pack(gradient, 1.0);
                block.fit(&mut workspace.slopes);
                let slopes = Destination::over(&mut workspace.slopes, block.stride());
                let term = Term::new(gradient, &workspace.values_transposed);
                product_on(1, &[term], &Store::new(&slopes, 1.0));
                let dropout = self
                    .dropout
                    .map(|dropout| (dropout, self.places(unit, head, &block)));
                let slopes = ScoreSlopes {
                    block: &block,
                    probabilities: &mut workspace.scores,
                    slopes: &mut workspace.slopes,
                    dropped: &mut workspace.dropped,
                    scales: &workspace.scales,
                    scale: self.scale,
                    dropout,
                };
                slopes.dispatch();

                let after = match dropout {
                    Some(_) => &workspace.dropped,
                    None => &workspace.scores,
                };
                let left = block.view(after).transposed();
                let sums = Destination::over(&mut workspace.value_gradients, head_dim);
                let (output, row) = (&sums, block.keys.start);
                let term = Term::new(left, &workspace.gradients);
                product_on(1, &[term], &Add { output, row });

                let slopes = block.view(&workspace.slopes);
                let sums = Destination::over(&mut workspace.key_gradients, head_dim);
                let (output, row) = (&sums, block.keys.start);
                let term = Term::new(slopes.transposed(), &workspace.queries);
                product_on(1, &[term], &Add { output, row });

                let epilogue = Store {
                    row: unit.start + block.queries.start,
                    column: head * head_dim,
                    ..Store::new(query_output, 1.0)
                };
                product_on(1, &[Term::new(slopes, &workspace.keys_straight)], &epilogue);
            }
        }
        let column = unit.group * head_dim;
        for (output, sums) in [
            (key_output, &workspace.key_gradients),
            (value_output, &workspace.value_gradients),
        ] {
            for (row, sums) in sums.chunks_exact(head_dim).enumerate() {
                // SAFETY: no other unit has this text's this key head.
                unsafe { output.write(unit.start + row, column, sums) }
            }
        }
    }

    /// Fills the workspace with the exponentials of a block's scores and with the inverse
    /// of their sums.
    fn probabilities(
        &self,
        query: MatrixView<'_>,
        unit: &Unit,
        head: usize,
        block: &Block,
        workspace: &mut Workspace,
    ) {
        block.fit(&mut workspace.scores);
        let scores = Destination::over(&mut workspace.scores, block.stride());
        let term = Term::new(query, &workspace.keys);
        product_on(1, &[term], &Store::new(&scores, self.scale));
        workspace.scales.resize(block.queries.len(), 0.0);
        let softmax = Softmax {
            attention: self,
            block,
            length: unit.length,
            bias: self.bias.as_ref().map(|bias| {
                let [_, width, _] = bias.dims();
                MatrixView::new(&bias.values()[head * width * width..], [width, width])
            }),
            scores: &mut workspace.scores,
            scales: &mut workspace.scales,
        };
        softmax.dispatch();
    }

    /// A text's queries in blocks, each with the keys that they see.
    fn blocks(&self, length: usize) -> impl Iterator<Item = Block> {
        let (window, causal) = (self.window, self.causal);
        let count = length.div_ceil(QUERIES);
        (0..count).map(move |index| {
            let queries = length * index / count..length * (index + 1) / count;
            let window = window.unwrap_or(length);
            let first = queries.start.saturating_sub(window);
            let last = if causal {
                queries.end
            } else {
                queries.end + window
            };
            Block {
                keys: first..last.min(length),
                queries,
            }
        })
    }

    /// The keys that a query sees.
    pub(super) fn visible(&self, query: usize, length: usize) -> Range<usize> {
        let window = self.window.unwrap_or(length);
        let last = if self.causal { query } else { query + window };
        query.saturating_sub(window)..(last + 1).min(length)
    }

    fn heads_of(&self, unit: &Unit) -> Range<usize> {
        let each = self.heads / self.key_value_heads;
        unit.group * each..(unit.group + 1) * each
    }

    /// Where the dropout's places of a block's rows begin, and how far apart they are.
    fn places(&self, unit: &Unit, head: usize, block: &Block) -> Places {
        let width = self.lengths.iter().copied().max().unwrap_or(0);
        let first = (unit.start + block.queries.start) * self.heads + head;
        Places {
            first: first * width + block.keys.start,
            step: self.heads * width,
        }
    }
}

/// One head of a text.
fn head_of<'a>(input: &'a Floats, unit: &Unit, head: usize, head_dim: usize) -> MatrixView<'a> {
    let [_, hidden] = input.dims();
    let values = &input.values()[unit.start * hidden + head * head_dim..];
    MatrixView::strided(values, [unit.length, head_dim], hidden)
}

fn rows<'a>(matrix: MatrixView<'a>, range: &Range<usize>) -> MatrixView<'a> {
    let values = &matrix.data[range.start * matrix.row_stride..];
    MatrixView::strided(values, [range.len(), matrix.columns], matrix.row_stride)
}

/// Stores each row times a factor of its own.
struct Scaled<'a> {
    output: &'a Destination<'a>,
    scales: &'a [f32],
    row: usize,
    column: usize,
}

impl Epilogue for Scaled<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, column: usize, values: Vectors<I>, used: usize) {
        let store = Store {
            output: self.output,
            scale: self.scales[row],
            row: self.row,
            column: self.column,
        };
        store.row(isa, row, column, values, used);
    }
}

/// Adds values to what is there, from a row on.
struct Add<'a> {
    output: &'a Destination<'a>,
    row: usize,
}

impl Epilogue for Add<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, column: usize, values: Vectors<I>, used: usize) {
        // SAFETY: the sums belong to this thread's workspace.
        unsafe { add_vectors(isa, self.output, self.row + row, column, values, used) }
    }
}
