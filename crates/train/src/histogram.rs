//! Fixed bins for weights, the same for every step, run and scorer, so that histograms can be laid
//! side by side.

/// Bins in a power of ten.
const PER_DECADE: i32 = 12;
/// The powers of ten between which bins are fine.
const DECADES: (i32, i32) = (-3, 2);

/// The edges of the bins, rising: 0, then a bin for every twelfth of a power of ten from 0.001 to 100.
/// Weight 1 lies in the middle of its bin, so that rounding moves nothing from one to another. What is
/// at or above the last edge counts as the last bin's.
pub fn edges() -> Vec<f64> {
    let (first, last) = (DECADES.0 * PER_DECADE, DECADES.1 * PER_DECADE);
    let edge = |i: i32| 10f64.powf((f64::from(i) - 0.5) / f64::from(PER_DECADE));
    std::iter::once(0.0).chain((first..=last + 1).map(edge)).collect()
}

/// How many weights lie in each bin.
pub fn counts(weights: &[f32]) -> Vec<u32> {
    let bins = (DECADES.1 - DECADES.0) * PER_DECADE + 2;
    let mut counts = vec![0; bins as usize];
    for &weight in weights {
        let place = (f64::from(weight).log10() * f64::from(PER_DECADE) + 0.5).floor();
        // The bin below the fine ones is the first; a logarithm of 0 lies there too.
        let bin = (place - f64::from(DECADES.0 * PER_DECADE) + 1.0).clamp(0.0, f64::from(bins - 1));
        if let Some(count) = counts.get_mut(bin as usize) {
            *count += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_is_counted_between_the_edges_that_enclose_it() {
        let edges = edges();
        for weight in [
            0.0, 1e-9, 8e-4, 1e-3, 0.05, 0.3, 0.99999, 1.0, 1.00001, 2.9999, 3.0, 17.0, 99.0,
        ] {
            let counts = counts(&[weight]);
            assert_eq!(counts.len() + 1, edges.len());
            let bin = counts.iter().position(|&count| count == 1).unwrap();
            let weight = f64::from(weight);
            assert!(
                edges[bin] <= weight && weight < edges[bin + 1],
                "{weight} between {} and {}",
                edges[bin],
                edges[bin + 1]
            );
        }
    }

    #[test]
    fn weights_near_one_share_a_bin_and_those_out_of_reach_are_kept_at_the_end() {
        let counts = counts(&[0.99, 1.0, 1.01, 1e6, f32::INFINITY]);
        assert_eq!(counts.iter().max(), Some(&3));
        assert_eq!(counts.last(), Some(&2));
        assert_eq!(counts.iter().sum::<u32>(), 5);
    }
}
