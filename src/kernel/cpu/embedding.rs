use super::elementwise::PARALLEL_VALUES;
use super::tensor::Floats;
use super::threads;

/// The sum of a row of each table: `ids` has one row index a token for each table.
pub(super) fn embed(tables: &[(Floats, Vec<usize>)]) -> Floats {
    let Some((first, ids)) = tables.first() else {
        return Floats::from_vec(Vec::new(), &[0, 0]);
    };
    let ([_, columns], tokens): ([usize; 2], usize) = (first.dims(), ids.len());
    let row = |(table, ids): &(Floats, Vec<usize>), token: usize| -> std::ops::Range<usize> {
        let start = ids[token] * columns;
        debug_assert!(start + columns <= table.len());
        start..start + columns
    };
    let mut sums = Vec::with_capacity(tokens * columns);
    for token in 0..tokens {
        sums.extend_from_slice(&first.values()[row(&tables[0], token)]);
    }
    let threads = match sums.len() < PARALLEL_VALUES {
        true => 1,
        false => threads::available(),
    };
    threads::split_rows(&mut sums, columns, threads, |first, part| {
        for (index, sum) in part.chunks_exact_mut(columns).enumerate() {
            for table in &tables[1..] {
                let values = &table.0.values()[row(table, first + index)];
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += value;
                }
            }
        }
    });
    Floats::from_vec(sums, &[tokens, columns])
}
