//! An amount over time in a fixed number of buckets, whose width doubles when the time runs over them: however long a pull
//! takes, what is remembered of it takes the same room, and its sums stay exact. Pure; used by [`super::Record`].

/// About as many as a terminal has room for.
pub(super) const BUCKETS: usize = 64;
/// Of a pull that has just begun, in microseconds: the first 64 ms fit.
const FIRST_WIDTH: u64 = 1_000;

/// The time axis that the charts of one record share, in microseconds from the record's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    width: u64,
}

/// Amounts by bucket; none until there is one, for most charts of most pulls stay empty, and a supernode has thousands. Four bytes
/// each: one part in sixteen million is more than anybody can see.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chart(Option<Box<[f32; BUCKETS]>>);

// === impl Axis ===

impl Default for Axis {
    fn default() -> Self {
        Self { width: FIRST_WIDTH }
    }
}

impl Axis {
    /// Width of a bucket in microseconds.
    pub(super) fn width(self) -> u64 {
        self.width
    }

    /// Doubles the width until `at` fits; how often.
    pub(super) fn reach(&mut self, at: u64) -> u32 {
        let mut folds = 0;
        while at >= self.width * BUCKETS as u64 {
            self.width *= 2;
            folds += 1;
        }
        folds
    }
}

// === impl Chart ===

impl Chart {
    /// The amounts.
    pub(super) fn values(&self) -> &[f32; BUCKETS] {
        self.0.as_deref().unwrap_or(&[0.0; BUCKETS])
    }

    /// Spreads an amount evenly over a stretch of time that the axis reaches.
    pub(super) fn spread(&mut self, axis: Axis, from: u64, to: u64, amount: f64) {
        let buckets = self.0.get_or_insert_with(|| Box::new([0.0; BUCKETS]));
        spread(buckets, axis.width as f64, (from as f64, to as f64), amount);
    }

    /// Halves the resolution: the axis has doubled its width.
    pub(super) fn fold(&mut self) {
        let Some(all) = &mut self.0 else { return };
        for at in 0..BUCKETS {
            all[at] = if at < BUCKETS / 2 { all[2 * at] + all[2 * at + 1] } else { 0.0 };
        }
    }

    /// Makes room for so many buckets at the front; the axis must reach that much further than what is here.
    pub(super) fn shift(&mut self, buckets: usize) {
        let (buckets, Some(all)) = (buckets.min(BUCKETS), &mut self.0) else { return };
        all.rotate_right(buckets);
        // What comes round had better not be there; if it is, it is not lost but late.
        let round: f32 = all[..buckets].iter_mut().map(std::mem::take).sum();
        all[BUCKETS - 1] += round;
    }
}

/// Spreads an amount over the buckets, each `width` wide, that the stretch touches.
pub(super) fn spread(buckets: &mut [f32; BUCKETS], width: f64, (from, to): (f64, f64), amount: f64) {
    let bucket = |at: f64| ((at / width).max(0.0) as usize).min(BUCKETS - 1);
    let (first, last) = (bucket(from), bucket(to));
    if to <= from || first == last {
        buckets[first] += amount as f32;
        return;
    }
    for (at, value) in buckets.iter_mut().enumerate().take(last + 1).skip(first) {
        let begin = from.max(at as f64 * width);
        // Beyond the last bucket there is none: it takes what is left.
        let end = if at == last { to } else { (at + 1) as f64 * width };
        *value += (amount * (end - begin).max(0.0) / (to - from)) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_axis_widens_as_the_time_goes_on() {
        let (mut axis, mut chart) = (Axis::default(), Chart::default());
        chart.spread(axis, 0, 2_000, 10.0);
        assert_eq!(chart.values()[..3], [5.0, 5.0, 0.0]);
        assert_eq!(axis.reach(63_999), 0);
        assert_eq!((axis.reach(200_000), axis.width()), (2, 4_000));
        (0..2).for_each(|_| chart.fold());
        assert_eq!(chart.values()[..2], [10.0, 0.0]);
        chart.shift(3);
        assert_eq!(chart.values()[..5], [0.0, 0.0, 0.0, 10.0, 0.0]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_happens(
            stretches in prop::collection::vec((0u64..10_000_000, 0u64..3_000_000, 0u32..1000), 0..40), shift in 0usize..20,
        ) {
            let (mut axis, mut chart, mut sum) = (Axis::default(), Chart::default(), 0.0);
            for (from, length, amount) in stretches {
                (0..axis.reach(from + length)).for_each(|_| chart.fold());
                chart.spread(axis, from, from + length, amount.into());
                sum += f64::from(amount);
            }
            chart.shift(shift);
            let held: f64 = chart.values().iter().map(|value| f64::from(*value)).sum();
            prop_assert!((held - sum).abs() <= sum * 1e-3 + 1e-3, "{held} of {sum}");
        }
    }
}
