use super::layer_norm::in_parts;
use super::tensor::Floats;

/// Turns the pairs of each head's dimensions by their token's angles, in the place of the
/// input; `cos` and `sin` are `[tokens, head_dim / 2]`.
pub(super) fn rotary(input: Floats, cos: &Floats, sin: &Floats) -> Floats {
    let [_, columns] = input.dims();
    let [_, half] = cos.dims();
    input.map(|values| {
        in_parts(values, columns, |first, part| {
            let angles = first * half;
            let cos = cos.values()[angles..].chunks_exact(half);
            let sin = sin.values()[angles..].chunks_exact(half);
            let tokens = part.chunks_exact_mut(columns);
            for ((token, cos), sin) in tokens.zip(cos).zip(sin) {
                for head in token.chunks_exact_mut(2 * half) {
                    let (firsts, seconds) = head.split_at_mut(half);
                    let pairs = firsts.iter_mut().zip(seconds);
                    for ((first, second), (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
                        let (a, b) = (*first, *second);
                        *first = a * cos - b * sin;
                        *second = b * cos + a * sin;
                    }
                }
            }
        });
    })
}
