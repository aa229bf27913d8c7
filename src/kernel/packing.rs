use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

use super::Layout;
use super::batches::is_on_host;

/// The texts of a batch in packed `[rows, hidden]` tensors on a device, and how to spread them
/// out to `[texts, width, hidden]` and back.
///
/// Built once a batch, shared by its layers.
#[derive(Debug, Clone)]
pub struct Packing<B: Backend> {
    layout: Layout,
    device: B::Device,
    /// Made when it is first needed, which on NdArray is never.
    places: Arc<OnceLock<Places<B>>>,
    /// Masks of pairs of places, by what they are of.
    pairs: Arc<Mutex<BTreeMap<PairKind, PairMask<B>>>>,
}

/// What a layer hides beside places without a token: a window's width, and what comes behind.
pub(super) type PairKind = (Option<usize>, bool);

/// `[texts or 1, 1, width or 1, width]`: true where a key is hidden from a query.
type PairMask<B> = Option<Tensor<B, 4, Bool>>;

/// What a device is told of a layout.
#[derive(Debug, Clone)]
struct Places<B: Backend> {
    /// `[rows]`: each token's place in its text, 0 where there is none.
    positions: Tensor<B, 1, Int>,
    /// How to spread out and back where that is no reshape.
    gathers: Option<Gathers<B>>,
    /// None where every place has a token.
    ends: Option<Ends<B>>,
}

#[derive(Debug, Clone)]
struct Ends<B: Backend> {
    /// `[texts, 1]`: the number of tokens of each text.
    lengths: Tensor<B, 2, Int>,
    /// `[texts, width]`: true where there is no token.
    mask: Tensor<B, 2, Bool>,
}

#[derive(Debug, Clone)]
struct Gathers<B: Backend> {
    /// `[texts * width]`: the row that each place shows; a place without a token shows the
    /// text's first, or another text's where it has none, which the mask hides.
    spread: Tensor<B, 1, Int>,
    /// `[rows]`: the place of each row; of a row without a token, the first.
    pack: Tensor<B, 1, Int>,
}

impl<B: Backend> Packing<B> {
    /// The packing of texts of these lengths, back to back.
    pub fn new(lengths: Arc<[usize]>, device: &B::Device) -> Self {
        Self::of(Layout::exact(lengths), device)
    }

    /// The packing of texts that lie so.
    pub fn of(layout: Layout, device: &B::Device) -> Self {
        Self {
            layout,
            device: device.clone(),
            places: Arc::default(),
            pairs: Arc::default(),
        }
    }

    /// Puts a batch on the device: numbers of its tokens, a column each, and where they lie,
    /// on a GPU all in one copy.
    ///
    /// # Shapes
    /// - columns: one for each token
    /// - output: `[rows]` each, 0 in a row without a token
    pub fn upload<const N: usize>(
        layout: Layout,
        columns: [Vec<i32>; N],
        device: &B::Device,
    ) -> (Self, [Tensor<B, 1, Int>; N]) {
        let packing = Self::of(layout, device);
        let columns = columns.map(|column| packing.layout.to_rows(column));
        if is_on_host::<B>() || packing.layout.rows() == 0 {
            return (packing, columns.map(|column| int(column, device)));
        }
        let mut parts = columns.to_vec();
        parts.extend(Places::<B>::parts(&packing.layout));
        let mut on_device = upload(parts, device).into_iter();
        let columns = columns.map(|column| match on_device.next() {
            Some(part) => part,
            None => int(column, device),
        });
        let places = Places::from_parts(&packing.layout, on_device.collect(), device);
        packing.places.get_or_init(|| places);
        (packing, columns)
    }

    fn places(&self) -> &Places<B> {
        self.places.get_or_init(|| {
            let parts = upload(Places::<B>::parts(&self.layout), &self.device);
            Places::from_parts(&self.layout, parts, &self.device)
        })
    }

    /// How the texts lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The number of tokens of each text.
    pub fn lengths(&self) -> &[usize] {
        self.layout.lengths()
    }

    /// The number of texts.
    pub fn texts(&self) -> usize {
        self.layout.texts()
    }

    /// The number of tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.layout.tokens()
    }

    /// The places of each text where texts are spread out.
    pub fn width(&self) -> usize {
        self.layout.width()
    }

    /// The device the batch is on.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// The row of each text's first token.
    pub fn starts(&self) -> Vec<usize> {
        self.layout.starts().collect()
    }

    /// Each token's place in its text, from 0.
    ///
    /// # Shapes
    /// - output: `[rows]`
    pub fn positions(&self) -> Tensor<B, 1, Int> {
        match is_on_host::<B>() {
            true => int(Places::<B>::positions(&self.layout), &self.device),
            false => self.places().positions.clone(),
        }
    }

    /// Where there is no token, true; `None` where every place has one.
    ///
    /// # Shapes
    /// - output: `[texts, width]`
    pub fn mask(&self) -> Option<Tensor<B, 2, Bool>> {
        self.ends().map(|ends| ends.mask.clone())
    }

    /// The number of tokens of each text, on the device; `None` where every place has one.
    ///
    /// # Shapes
    /// - output: `[texts, 1]`
    pub(super) fn lengths_on_device(&self) -> Option<Tensor<B, 2, Int>> {
        self.ends().map(|ends| ends.lengths.clone())
    }

    fn ends(&self) -> Option<&Ends<B>> {
        match self.layout.is_ragged() {
            true => self.places().ends.as_ref(),
            false => None,
        }
    }

    /// A mask of pairs of places, made for the first of the layers that ask for its kind; none
    /// where nothing is hidden.
    pub(super) fn pairs(&self, kind: PairKind, make: impl FnOnce() -> PairMask<B>) -> PairMask<B> {
        let mut pairs = self.pairs.lock().unwrap_or_else(|e| e.into_inner());
        pairs.entry(kind).or_insert_with(make).clone()
    }

    fn gathers(&self) -> Option<&Gathers<B>> {
        match self.layout.is_spread() {
            true => None,
            false => self.places().gathers.as_ref(),
        }
    }

    /// Gives every text `width` places.
    ///
    /// # Shapes
    /// - packed: `[rows, hidden]`
    /// - output: `[texts, width, hidden]`
    pub fn spread(&self, packed: Tensor<B, 2>) -> Tensor<B, 3> {
        let [_, hidden] = packed.dims();
        let places = match self.gathers() {
            Some(gathers) => packed.select(0, gathers.spread.clone()),
            None => packed,
        };
        places.reshape([self.texts(), self.width(), hidden])
    }

    /// Takes the padding out again.
    ///
    /// # Shapes
    /// - spread: `[texts, width, hidden]`
    /// - output: `[rows, hidden]`
    pub fn pack(&self, spread: Tensor<B, 3>) -> Tensor<B, 2> {
        let [texts, width, hidden] = spread.dims();
        let places = spread.reshape([texts * width, hidden]);
        match self.gathers() {
            Some(gathers) => places.select(0, gathers.pack.clone()),
            None => places,
        }
    }
}

impl<B: Backend> Places<B> {
    /// The numbers that tell a device of a layout: positions, and where it is needed the
    /// gathers and the lengths.
    fn parts(layout: &Layout) -> Vec<Vec<i32>> {
        let mut parts = vec![Self::positions(layout)];
        if !layout.is_spread() {
            let width = layout.width();
            let last = layout.rows().saturating_sub(1);
            let mut spread = Vec::with_capacity(layout.texts() * width);
            let mut pack = vec![0; layout.rows()];
            for (text, (start, &length)) in layout.starts().zip(&**layout.lengths()).enumerate() {
                for place in 0..width {
                    let shown = start + if place < length { place } else { 0 };
                    spread.push(shown.min(last) as i32);
                    if place < length {
                        pack[shown] = (text * width + place) as i32;
                    }
                }
            }
            parts.extend([spread, pack]);
        }
        if layout.is_ragged() {
            parts.push(
                layout
                    .lengths()
                    .iter()
                    .map(|&length| length as i32)
                    .collect(),
            );
        }
        parts
    }

    fn positions(layout: &Layout) -> Vec<i32> {
        let lengths = layout.lengths().iter();
        layout.to_rows(lengths.flat_map(|&length| 0..length as i32).collect())
    }

    fn from_parts(layout: &Layout, parts: Vec<Tensor<B, 1, Int>>, device: &B::Device) -> Self {
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or_else(|| int(Vec::new(), device));
        let positions = next();
        let gathers = (!layout.is_spread()).then(|| Gathers {
            spread: next(),
            pack: next(),
        });
        let ends = layout.is_ragged().then(|| {
            let shape = [layout.texts(), layout.width()];
            let places = Tensor::<B, 1, Int>::arange(0..layout.width() as i64, device);
            let lengths = next().reshape([layout.texts(), 1]);
            let mask = places
                .reshape([1, layout.width()])
                .expand(shape)
                .greater_equal(lengths.clone().expand(shape));
            Ends { lengths, mask }
        });
        Self {
            positions,
            gathers,
            ends,
        }
    }
}

/// Copies parts to a device at once, and cuts them apart there.
fn upload<B: Backend>(parts: Vec<Vec<i32>>, device: &B::Device) -> Vec<Tensor<B, 1, Int>> {
    let lengths: Vec<usize> = parts.iter().map(Vec::len).collect();
    let all: Tensor<B, 1, Int> = int(parts.concat(), device);
    let mut start = 0;
    let cut = lengths.into_iter().map(|length| {
        let part = all.clone().narrow(0, start, length);
        start += length;
        part
    });
    cut.collect()
}

fn int<B: Backend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use burn::tensor::Distribution;

    #[test]
    fn packing_undoes_spreading() {
        for lengths in [vec![3, 1, 4], vec![2, 2], vec![5], vec![0, 2, 0]] {
            for layout in [
                Layout::exact(lengths.clone().into()),
                Layout::rounded(lengths.clone().into()),
            ] {
                let packing = Packing::<TestBackend>::of(layout.clone(), &device());
                let shape = [layout.rows(), 3];
                let packed =
                    Tensor::<TestBackend, 2>::random(shape, Distribution::Default, &device());
                let spread = packing.spread(packed.clone());
                assert_eq!(spread.dims(), [lengths.len(), packing.width(), 3]);
                let again = packing.pack(spread);
                assert_eq!(again.dims(), shape);
                for (start, &length) in layout.starts().zip(&lengths) {
                    let text = |of: &Tensor<TestBackend, 2>| {
                        of.clone().slice([start..start + length, 0..3]).into_data()
                    };
                    text(&again).assert_eq(&text(&packed), true);
                }
            }
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

    #[test]
    fn a_batch_on_the_device_is_what_it_was_on_the_host() {
        let read = |ints: Tensor<TestBackend, 1, Int>| -> Vec<i32> {
            ints.into_data().iter::<i32>().collect()
        };
        for layout in [
            Layout::rounded([3, 1, 9].into()),
            Layout::rounded([7, 8, 8].into()),
            Layout::exact([2, 2].into()),
        ] {
            let numbers: Vec<i32> = (1..=layout.tokens() as i32).collect();
            let columns = [numbers.clone(), numbers.iter().map(|n| -n).collect()];
            let (packing, found) =
                Packing::<TestBackend>::upload(layout.clone(), columns.clone(), &device());
            for (found, column) in found.into_iter().zip(columns) {
                assert_eq!(read(found), layout.to_rows(column));
            }
            // The same as what is made when it is asked for.
            let lazy = Packing::<TestBackend>::of(layout.clone(), &device());
            assert_eq!(read(packing.positions()), read(lazy.positions()));
            let hidden = |packing: &Packing<TestBackend>| {
                let mask = packing.mask().map(|mask| mask.into_data());
                mask.map(|mask| mask.iter::<bool>().collect::<Vec<_>>())
            };
            assert_eq!(hidden(&packing), hidden(&lazy));
            let places = (0..layout.texts()).flat_map(|text| {
                let length = layout.lengths()[text];
                (0..layout.width()).map(move |place| place >= length)
            });
            let expected = layout.is_ragged().then(|| places.collect::<Vec<_>>());
            assert_eq!(hidden(&packing), expected);
        }
    }
}
