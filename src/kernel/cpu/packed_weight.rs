use std::sync::{Arc, RwLock};

use super::linear::view;
use super::matrix::PackedMatrix;
use super::tensor::Floats;

/// A weight's copies in the order in which products read them, made when they are first
/// needed and kept as long as the weight stays the same.
///
/// Encoding keeps one copy of each linear weight, training a second one for the backward
/// pass. A weight that is replaced or changed in place (by an optimiser, by merging an
/// adapter) is told by its memory, which the copy's owner keeps from being reused.
#[derive(Debug, Clone, Default)]
pub struct PackedWeight(Arc<RwLock<Packed>>);

#[derive(Debug, Default)]
struct Packed {
    /// The weight that the copies are of.
    weight: Option<Floats>,
    copies: [Option<Arc<PackedMatrix>>; 2],
}

/// Which copy.
#[derive(Debug, Clone, Copy)]
enum Order {
    Straight,
    Transposed,
}

impl PackedWeight {
    /// The bytes that the copies take.
    pub fn bytes(&self) -> usize {
        let packed = self.0.read().unwrap_or_else(|e| e.into_inner());
        let copies = packed.copies.iter().flatten();
        copies.map(|copy| copy.bytes()).sum()
    }

    /// The weight as a right operand: `x · W`.
    pub(super) fn straight(&self, weight: &Floats) -> Arc<PackedMatrix> {
        self.get(weight, Order::Straight)
    }

    /// The transposed weight as a right operand: `x · Wᵀ`.
    pub(super) fn transposed(&self, weight: &Floats) -> Arc<PackedMatrix> {
        self.get(weight, Order::Transposed)
    }

    fn get(&self, weight: &Floats, order: Order) -> Arc<PackedMatrix> {
        let packed = self.0.read().unwrap_or_else(|e| e.into_inner());
        if let (true, Some(copy)) = (packed.is_of(weight), &packed.copies[order as usize]) {
            return Arc::clone(copy);
        }
        drop(packed);
        // Packed with no lock held: packing shares out its work, and a thread that waits for
        // the others may take up a job that wants this very lock.
        let rows = view(weight);
        let copy = Arc::new(match order {
            Order::Straight => PackedMatrix::new(rows, 1.0),
            Order::Transposed => PackedMatrix::new(rows.transposed(), 1.0),
        });
        let mut packed = self.0.write().unwrap_or_else(|e| e.into_inner());
        if !packed.is_of(weight) {
            *packed = Packed {
                weight: Some(weight.clone()),
                copies: [None, None],
            };
        }
        // Another thread may have been faster: its copy is as good.
        Arc::clone(packed.copies[order as usize].get_or_insert(copy))
    }
}

impl Packed {
    fn is_of(&self, weight: &Floats) -> bool {
        self.weight.as_ref().is_some_and(|of| of.is_same(weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_kept_until_the_weight_changes() {
        let weight = Floats::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        let packed = PackedWeight::default();
        assert_eq!(packed.bytes(), 0);
        let first = packed.transposed(&weight);
        assert_eq!((first.rows(), first.columns()), (3, 2));
        assert!(Arc::ptr_eq(&first, &packed.clone().transposed(&weight)));
        let straight = packed.straight(&weight);
        assert_eq!((straight.rows(), straight.columns()), (2, 3));
        assert_eq!(packed.bytes(), first.bytes() + straight.bytes());

        // Changed "in place": the copy's owner still holds the old memory.
        let changed = weight.map(|values| values[0] = 9.0);
        let second = packed.transposed(&changed);
        assert_eq!((first.panel(0)[0], second.panel(0)[0]), (1.0, 9.0));
        assert_eq!(packed.bytes(), second.bytes());
    }
}
