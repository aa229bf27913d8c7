use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

/// Where the texts of a batch lie in a packed `[tokens, hidden]` tensor, and how to
/// spread them out to `[texts, width, hidden]` and back.
///
/// Built once a batch, shared by its layers.
#[derive(Debug, Clone)]
pub struct Packing<B: Backend> {
    lengths: Arc<[usize]>,
    width: usize,
    device: B::Device,
    /// Made when it is first needed, which on NdArray is never. None where every text has
    /// `width` tokens: then spreading out is a reshape.
    padding: Arc<OnceLock<Option<Padding<B>>>>,
}

#[derive(Debug, Clone)]
struct Padding<B: Backend> {
    /// `[texts * width]`: the token that each padded place shows; the padding shows the
    /// text's first token, or another text's where it has none, which the mask hides.
    spread: Tensor<B, 1, Int>,
    /// `[tokens]`: the padded place of each token.
    pack: Tensor<B, 1, Int>,
    /// `[texts, width]`: true where there is no token.
    mask: Tensor<B, 2, Bool>,
}

impl<B: Backend> Packing<B> {
    /// The packing of texts of these lengths.
    pub fn new(lengths: Arc<[usize]>, device: &B::Device) -> Self {
        let width = lengths.iter().copied().max().unwrap_or(0);
        Self {
            lengths,
            width,
            device: device.clone(),
            padding: Arc::default(),
        }
    }

    fn padding(&self) -> Option<&Padding<B>> {
        let padding = self.padding.get_or_init(|| {
            let is_ragged = self.lengths.iter().any(|&length| length != self.width);
            is_ragged.then(|| Padding::new(&self.lengths, self.width, &self.device))
        });
        padding.as_ref()
    }

    /// The number of tokens of each text.
    pub fn lengths(&self) -> &[usize] {
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

    /// The number of tokens of the longest text.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The device the batch is on.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// The first token of each text.
    pub fn starts(&self) -> Vec<usize> {
        self.lengths
            .iter()
            .scan(0, |start, length| {
                let this = *start;
                *start += length;
                Some(this)
            })
            .collect()
    }

    /// Each token's place in its text, from 0.
    ///
    /// # Shapes
    /// - output: `[tokens]`
    pub fn positions(&self) -> Tensor<B, 1, Int> {
        let lengths = self.lengths.iter();
        let positions: Vec<i32> = lengths.flat_map(|&length| 0..length as i32).collect();
        let tokens = positions.len();
        Tensor::from_data(TensorData::new(positions, [tokens]), &self.device)
    }

    /// Where there is no token, true; `None` where nothing is padded.
    ///
    /// # Shapes
    /// - output: `[texts, width]`
    pub fn mask(&self) -> Option<Tensor<B, 2, Bool>> {
        self.padding().map(|padding| padding.mask.clone())
    }

    /// Gives every text `width` places.
    ///
    /// # Shapes
    /// - packed: `[tokens, hidden]`
    /// - output: `[texts, width, hidden]`
    pub fn spread(&self, packed: Tensor<B, 2>) -> Tensor<B, 3> {
        let [_, hidden] = packed.dims();
        let places = match self.padding() {
            Some(padding) => packed.select(0, padding.spread.clone()),
            None => packed,
        };
        places.reshape([self.texts(), self.width, hidden])
    }

    /// Takes the padding out again.
    ///
    /// # Shapes
    /// - spread: `[texts, width, hidden]`
    /// - output: `[tokens, hidden]`
    pub fn pack(&self, spread: Tensor<B, 3>) -> Tensor<B, 2> {
        let [texts, width, hidden] = spread.dims();
        let places = spread.reshape([texts * width, hidden]);
        match self.padding() {
            Some(padding) => places.select(0, padding.pack.clone()),
            None => places,
        }
    }
}

impl<B: Backend> Padding<B> {
    fn new(lengths: &[usize], width: usize, device: &B::Device) -> Self {
        let mut spread = Vec::with_capacity(lengths.len() * width);
        let mut pack = Vec::new();
        let mut mask = Vec::with_capacity(lengths.len() * width);
        let mut start = 0;
        let last = lengths.iter().sum::<usize>().saturating_sub(1);
        for (text, &length) in lengths.iter().enumerate() {
            for place in 0..width {
                let padded = place >= length;
                let shown = if padded {
                    start.min(last)
                } else {
                    start + place
                };
                spread.push(shown as i32);
                mask.push(padded);
                if !padded {
                    pack.push((text * width + place) as i32);
                }
            }
            start += length;
        }
        let int = |values: Vec<i32>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        Self {
            spread: int(spread),
            pack: int(pack),
            mask: Tensor::from_data(TensorData::new(mask, [lengths.len(), width]), device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use burn::tensor::Distribution;

    #[test]
    fn packing_undoes_spreading() {
        for lengths in [vec![3, 1, 4], vec![2, 2], vec![5], vec![0, 2, 0]] {
            let packing = Packing::<TestBackend>::new(lengths.clone().into(), &device());
            let tokens = lengths.iter().sum();
            let packed =
                Tensor::<TestBackend, 2>::random([tokens, 3], Distribution::Default, &device());
            let spread = packing.spread(packed.clone());
            assert_eq!(spread.dims(), [lengths.len(), packing.width(), 3]);
            packing
                .pack(spread)
                .into_data()
                .assert_eq(&packed.into_data(), true);
        }
    }

    #[test]
    fn only_ragged_batches_have_a_mask() {
        let packing = |lengths: &[usize]| Packing::<TestBackend>::new(lengths.into(), &device());
        assert!(packing(&[4, 4]).mask().is_none());
        let mask = packing(&[1, 2]).mask().map(|mask| mask.into_data());
        assert_eq!(
            mask.and_then(|data| data.iter::<bool>().collect::<Vec<_>>().into()),
            Some(vec![false, true, false, false])
        );
        assert_eq!(packing(&[1, 2, 3]).starts(), [0, 1, 3]);
        let positions = packing(&[1, 2, 3]).positions().into_data();
        assert_eq!(
            positions.iter::<i32>().collect::<Vec<_>>(),
            [0, 0, 1, 0, 1, 2]
        );
    }
}
