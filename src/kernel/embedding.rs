use burn::tensor::{Int, Tensor, backend::Backend};

/// The sum of an embedding of each table, for each token.
///
/// # Shapes
/// - tables: `[entries, hidden]`, each with its ids, `[tokens]`
/// - output: `[tokens, hidden]`
pub fn embed<B: Backend>(tables: Vec<(Tensor<B, 2>, Tensor<B, 1, Int>)>) -> Tensor<B, 2> {
    #[cfg(feature = "ndarray")]
    if let Some(route) = tables
        .first()
        .and_then(|(table, _)| super::cpu::route(table))
    {
        // Tables that are trained need gradients, which the kernel does not give.
        let is_trained = |(table, _): &(Tensor<B, 2>, _)| super::cpu::is_tracked(route, table);
        if !tables.iter().any(is_trained) {
            return super::cpu::embed(route, tables);
        }
    }
    super::composed::embed(tables)
}
