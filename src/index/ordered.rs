//! Doubles in order.

/// A double that is not NaN, as a number in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OrderedDouble(u64);

const SIGN: u64 = 1 << 63;

impl From<f64> for OrderedDouble {
    fn from(double: f64) -> Self {
        let bits = double.to_bits();
        Self(if bits & SIGN == 0 { bits | SIGN } else { !bits })
    }
}

impl From<OrderedDouble> for f64 {
    fn from(ordered: OrderedDouble) -> Self {
        Self::from_bits(if ordered.0 & SIGN == 0 { !ordered.0 } else { ordered.0 & !SIGN })
    }
}
