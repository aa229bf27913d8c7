/// The data that a loss is to be trained on, as far as it can be checked beforehand.
#[derive(Debug, Clone, Copy)]
pub struct LossData<'a> {
    /// The number of text columns.
    pub texts: usize,
    /// The numbers of one label, where there are labels.
    pub label_width: Option<usize>,
    /// The labels, a row a sample; empty where there are none.
    pub labels: &'a [Vec<f32>],
    /// The place of the first of these samples in the data: not 0 for a part of them.
    pub first_sample: usize,
    /// The size of the embeddings.
    pub embedding_dim: usize,
    /// Whether there is a guide model.
    pub guide: bool,
}

impl<'a> LossData<'a> {
    /// Text columns without labels.
    pub fn new(texts: usize, embedding_dim: usize) -> Self {
        Self {
            texts,
            label_width: None,
            labels: &[],
            first_sample: 0,
            embedding_dim,
            guide: false,
        }
    }

    /// The same with labels, all of one length, or without.
    #[must_use]
    pub fn with_labels(self, labels: Option<&'a [Vec<f32>]>) -> Self {
        Self {
            label_width: labels.and_then(|rows| Some(rows.first()?.len())),
            labels: labels.unwrap_or_default(),
            ..self
        }
    }

    /// The same as a part of the data that begins at this sample.
    #[must_use]
    pub fn with_first_sample(self, first_sample: usize) -> Self {
        Self {
            first_sample,
            ..self
        }
    }

    /// The same, with a guide model or without.
    #[must_use]
    pub fn with_guide(self, guide: bool) -> Self {
        Self { guide, ..self }
    }

    /// The first sample with a number in its label that does not pass, and that number.
    pub(super) fn find_label(&self, passes: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
        let rows = (self.first_sample..).zip(self.labels);
        rows.flat_map(|(sample, row)| row.iter().map(move |&number| (sample, number)))
            .find(|&(_, number)| !passes(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_label_that_does_not_pass() {
        let rows = [vec![0.0], vec![1.0], vec![2.0], vec![f32::NAN]];
        let data = LossData::new(2, 8).with_labels(Some(&rows));
        assert_eq!(data.label_width, Some(1));
        assert_eq!(data.find_label(|label| label < 1.5), Some((2, 2.0)));
        assert_eq!(data.find_label(f32::is_finite).unwrap().0, 3);
        assert_eq!(LossData::new(2, 8).find_label(|_| false), None);
    }
}
