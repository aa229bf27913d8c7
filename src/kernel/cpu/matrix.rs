use std::sync::OnceLock;

use rten_simd::ops::BitOps;
use rten_simd::{Isa, SimdOp};

use super::threads;

/// The bytes of a cache line, on which every panel begins.
const CACHE_LINE: usize = 64;

/// Below this many values packing is not worth a second thread.
const PARALLEL_VALUES: usize = 1 << 16;

/// How the product of this machine's instruction set tiles its output: rows of the left
/// operand, and vectors of columns of the right one, that fill its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// The largest tile of any instruction set.
pub(super) const LARGEST_TILE: Tile = Tile {
    rows: 14,
    columns: 32,
};

impl Tile {
    /// This machine's.
    pub(super) fn native() -> Self {
        struct Lanes;

        impl SimdOp for Lanes {
            type Output = usize;

            #[inline(always)]
            fn eval<I: Isa>(self, isa: I) -> usize {
                isa.f32().len()
            }
        }

        static NATIVE: OnceLock<Tile> = OnceLock::new();
        *NATIVE.get_or_init(|| match Lanes.dispatch() {
            16 => LARGEST_TILE,
            8 => Tile {
                rows: 6,
                columns: 16,
            },
            lanes => Tile {
                rows: 8,
                columns: 2 * lanes,
            },
        })
    }
}

/// A matrix in rows that the caller keeps, perhaps transposed: element `(i, j)` is
/// `data[i * row_stride + j * column_stride]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MatrixView<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> MatrixView<'a> {
    /// A contiguous matrix.
    pub(super) fn new(data: &'a [f32], [rows, columns]: [usize; 2]) -> Self {
        Self::strided(data, [rows, columns], columns)
    }

    /// Some of the rows of a contiguous matrix.
    pub(super) fn select_rows(self, rows: std::ops::Range<usize>) -> Self {
        assert_eq!(self.row_stride, self.columns, "a contiguous matrix");
        Self {
            data: &self.data[rows.start * self.row_stride..rows.end * self.row_stride],
            rows: rows.len(),
            ..self
        }
    }

    /// A matrix whose rows lie `row_stride` apart.
    pub(super) fn strided(data: &'a [f32], [rows, columns]: [usize; 2], row_stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
            "a matrix of {rows} rows of {columns}, {row_stride} apart, in {} values",
            data.len()
        );
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// The same values with rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.data[row * self.row_stride + column * self.column_stride]
    }
}

/// A right operand as the product reads it: panels of [`Tile::columns`] columns, each
/// panel row after row, the last one filled up with zeros.
#[derive(Debug)]
pub(super) struct PackedMatrix {
    /// Begins on a cache line at `start`.
    data: Vec<f32>,
    start: usize,
    rows: usize,
    columns: usize,
    width: usize,
}

impl PackedMatrix {
    /// An empty one, to be filled by [`pack`](Self::pack).
    pub(super) fn empty() -> Self {
        Self {
            data: Vec::new(),
            start: 0,
            rows: 0,
            columns: 0,
            width: Tile::native().columns,
        }
    }

    /// A packed copy of a matrix, each value times `scale`.
    pub(super) fn new(matrix: MatrixView<'_>, scale: f32) -> Self {
        let mut packed = Self::empty();
        packed.pack(matrix, scale);
        packed
    }

    /// Packs another matrix into the same memory.
    pub(super) fn pack(&mut self, matrix: MatrixView<'_>, scale: f32) {
        let width = self.width;
        self.rows = matrix.rows;
        self.columns = matrix.columns;
        let panels = matrix.columns.div_ceil(width);
        let size = panels * width * matrix.rows;
        let line = CACHE_LINE / size_of::<f32>();
        if self.data.len() < size + line {
            self.data = vec![0.0; size + line];
            self.start = self.data.as_ptr().align_offset(CACHE_LINE).min(line);
        }
        let panel_size = width * matrix.rows;
        if panel_size == 0 {
            return;
        }
        let target = &mut self.data[self.start..self.start + size];
        let threads = match size < PARALLEL_VALUES {
            true => 1,
            false => threads::available(),
        };
        threads::split_rows(target, panel_size, threads, |first_panel, panels| {
            // Constant widths: the inner loops are then free of checks.
            match width {
                32 => pack_panels::<32>(panels, first_panel, matrix, scale),
                16 => pack_panels::<16>(panels, first_panel, matrix, scale),
                _ => pack_panels::<8>(panels, first_panel, matrix, scale),
            }
        });
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn panels(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// The values of a panel: `rows` times [`Tile::columns`].
    pub(super) fn panel(&self, index: usize) -> &[f32] {
        let size = self.rows * self.width;
        &self.data[self.start + index * size..][..size]
    }

    /// The bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

/// Packs some of a matrix's panels.
fn pack_panels<const WIDTH: usize>(
    panels: &mut [f32],
    first_panel: usize,
    matrix: MatrixView<'_>,
    scale: f32,
) {
    for (index, panel) in panels.chunks_exact_mut(WIDTH * matrix.rows).enumerate() {
        let (panel, _) = panel.as_chunks_mut::<WIDTH>();
        let first = (first_panel + index) * WIDTH;
        let used = WIDTH.min(matrix.columns - first);
        if matrix.column_stride == 1 {
            pack_rows(panel, matrix, first, used, scale);
        } else {
            pack_columns(panel, matrix, first, used, scale);
        }
    }
}

/// Packs a panel from rows that lie contiguous.
fn pack_rows<const WIDTH: usize>(
    panel: &mut [[f32; WIDTH]],
    matrix: MatrixView<'_>,
    first: usize,
    used: usize,
    scale: f32,
) {
    for (row, packed) in panel.iter_mut().enumerate() {
        let source = &matrix.data[row * matrix.row_stride + first..][..used];
        if let Ok(source) = <&[f32; WIDTH]>::try_from(source) {
            *packed = source.map(|value| value * scale);
            continue;
        }
        for (to, &from) in packed.iter_mut().zip(source) {
            *to = from * scale;
        }
        packed[used..].fill(0.0);
    }
}

/// Packs a panel from columns that lie contiguous, a few rows at a time so that the
/// lines written stay in the cache.
fn pack_columns<const WIDTH: usize>(
    panel: &mut [[f32; WIDTH]],
    matrix: MatrixView<'_>,
    first: usize,
    used: usize,
    scale: f32,
) {
    const ROWS: usize = 16;
    let used = used.min(WIDTH);
    for (block, packed) in panel.chunks_mut(ROWS).enumerate() {
        let row = block * ROWS;
        let rows = packed.len();
        for column in 0..used {
            if matrix.row_stride == 1 {
                let source = &matrix.data[row + (first + column) * matrix.column_stride..][..rows];
                for (packed, &value) in packed.iter_mut().zip(source) {
                    packed[column] = value * scale;
                }
            } else {
                for (i, packed) in packed.iter_mut().enumerate() {
                    packed[column] = matrix.at(row + i, first + column) * scale;
                }
            }
        }
        for packed in packed {
            packed[used..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lands_in_its_panel_and_the_rest_is_zero() {
        let width = Tile::native().columns;
        for (rows, columns) in [(1, 1), (3, width), (17, width + 1), (40, 2 * width - 3)] {
            let values: Vec<f32> = (1..=rows * columns).map(|v| v as f32).collect();
            let matrix = MatrixView::new(&values, [rows, columns]);
            let transposed: Vec<f32> = (0..rows * columns)
                .map(|place| values[place % rows * columns + place / rows])
                .collect();
            let same = MatrixView::new(&transposed, [columns, rows]).transposed();
            for packed in [PackedMatrix::new(matrix, 2.0), PackedMatrix::new(same, 2.0)] {
                assert_eq!(packed.panel(0).as_ptr().align_offset(CACHE_LINE), 0);
                for panel in 0..packed.panels() {
                    for (place, &value) in packed.panel(panel).iter().enumerate() {
                        let (row, column) = (place / width, panel * width + place % width);
                        let expected = match column < columns {
                            true => 2.0 * matrix.at(row, column),
                            false => 0.0,
                        };
                        assert_eq!(value, expected, "{rows}x{columns} at {row}, {column}");
                    }
                }
            }
        }
    }
}
