use burn::tensor::{backend::Backend, s};

use super::Neighbours;
use super::semantic_search::at_least_one;
use crate::error::Result;
use crate::kernel::{Scored, TopK, normalize};
use crate::model::{Rows, SimilarityFunction};

/// What [`community_detection`] takes for a community.
#[derive(Debug, Clone, PartialEq)]
pub struct CommunityDetectionOptions {
    /// The least cosine between a community's centre and its members.
    pub threshold: f32,
    /// The least members, the centre among them.
    pub min_community_size: usize,
    /// How many embeddings are compared with all others at a time.
    pub batch_size: usize,
}

impl Default for CommunityDetectionOptions {
    fn default() -> Self {
        Self {
            threshold: 0.75,
            min_community_size: 10,
            batch_size: 1024,
        }
    }
}

/// Finds groups of embeddings that are close to one of them.
///
/// Every embedding with enough others near it is a possible centre. The largest of these
/// groups is the first community; the next one is the largest whose centre is free, less
/// the members that are taken, and so on. Communities come largest first, each with its
/// centre first and its other members by falling similarity to it.
///
/// # Shapes
/// - embeddings: `[texts, dim]`
///
/// # Errors
/// [`SearchError::InvalidOption`](crate::error::SearchError::InvalidOption) if
/// `min_community_size` or `batch_size` is 0,
/// [`SearchError::NotANumber`](crate::error::SearchError::NotANumber) if a similarity is
/// NaN.
pub fn community_detection<B: Backend>(
    embeddings: impl Rows<B>,
    options: &CommunityDetectionOptions,
) -> Result<Vec<Vec<usize>>> {
    at_least_one("min_community_size", options.min_community_size)?;
    at_least_one("batch_size", options.batch_size)?;
    let embeddings = embeddings.into_rows();
    let [texts, _] = embeddings.dims();
    if texts < options.min_community_size {
        return Ok(Vec::new());
    }
    let embeddings = normalize(embeddings);
    let mut candidates: Vec<(usize, Vec<Scored>)> = Vec::new();
    for start in (0..texts).step_by(options.batch_size) {
        let end = texts.min(start + options.batch_size);
        let centres = embeddings.clone().slice(s![start..end, ..]);
        let best = TopK::at_least(options.threshold);
        let mut neighbours = Neighbours::new(centres, SimilarityFunction::Dot, best);
        neighbours.offer_corpus(embeddings.clone(), usize::MAX)?;
        let rankings = neighbours
            .into_rankings()
            .map_err(|nan| nan.in_rows(start))?;
        let large = (start..)
            .zip(rankings)
            .filter(|(_, members)| members.len() >= options.min_community_size);
        candidates.extend(large);
    }
    candidates.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    Ok(without_overlap(
        &candidates,
        texts,
        options.min_community_size,
    ))
}

/// Takes the candidates in order, each text once.
fn without_overlap(
    candidates: &[(usize, Vec<Scored>)],
    texts: usize,
    min_community_size: usize,
) -> Vec<Vec<usize>> {
    let mut taken = vec![false; texts];
    let mut communities: Vec<Vec<usize>> = Vec::new();
    for (centre, members) in candidates {
        if taken[*centre] {
            continue;
        }
        let members = members.iter().map(|member| member.item as usize);
        let free: Vec<usize> = members.filter(|&member| !taken[member]).collect();
        if free.len() < min_community_size {
            continue;
        }
        let mut community = vec![*centre];
        community.extend(free.into_iter().filter(|member| member != centre));
        for &member in &community {
            taken[member] = true;
        }
        communities.push(community);
    }
    communities.sort_by_key(|community| std::cmp::Reverse(community.len()));
    communities
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    /// Embeddings at the angles given in degrees, of different lengths.
    fn at_angles(angles: &[f32]) -> Tensor<TestBackend, 2> {
        let rows: Vec<f32> = (1..)
            .zip(angles)
            .flat_map(|(length, angle)| {
                let angle = angle.to_radians();
                [length as f32 * angle.cos(), length as f32 * angle.sin()]
            })
            .collect();
        Tensor::<TestBackend, 1>::from_floats(&rows[..], &device()).reshape([angles.len(), 2])
    }

    fn detect(angles: &[f32], min_community_size: usize) -> Vec<Vec<usize>> {
        let communities = [1, 2, 100].map(|batch_size| {
            let options = CommunityDetectionOptions {
                threshold: 10f32.to_radians().cos() - 1e-4,
                min_community_size,
                batch_size,
            };
            community_detection(at_angles(angles), &options).unwrap()
        });
        assert!(communities[0] == communities[1] && communities[1] == communities[2]);
        communities[0].clone()
    }

    #[test]
    fn the_largest_group_takes_its_members_first() {
        // Around 20° there are four; they leave 0° and 36° alone.
        let angles = [0.0, 10.0, 20.0, 26.0, 36.0, 28.0, 180.0];
        assert_eq!(detect(&angles, 2), [vec![2, 3, 5, 1]]);
        // Around 10°, 20° and 29° there are three each.
        let angles = [1.0, 10.0, 20.0, 29.0, 39.0, 180.0];
        assert_eq!(detect(&angles, 2), [vec![1, 0, 2], vec![3, 4]]);
        assert_eq!(detect(&angles, 3), [vec![1, 0, 2]]);
        assert_eq!(detect(&angles, 1).last(), Some(&vec![5]));
    }

    #[test]
    fn too_few_texts_have_no_community() {
        assert!(detect(&[0.0, 1.0], 3).is_empty());
        assert!(detect(&[], 1).is_empty());
        let options = CommunityDetectionOptions {
            min_community_size: 0,
            ..Default::default()
        };
        assert!(community_detection(at_angles(&[0.0]), &options).is_err());
    }
}
