/// How a batch is embedded in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiniBatch {
    /// The texts of a column to embed at a time, and the rows of the matrix of scores to
    /// compute at a time: the reference's `mini_batch_size`.
    pub rows: usize,
    /// The tokens to embed at a time instead, at least one text; the reference's
    /// `mini_batch_num_tokens`.
    pub tokens: Option<usize>,
}

impl MiniBatch {
    /// So many texts at a time.
    pub fn rows(rows: usize) -> Self {
        Self { rows, tokens: None }
    }
}
