//! Shares of an amount: decimal fractions, exact to the last unit.

/// Maximum number of decimal places of a share. 1 is then 10¹⁸, and a `u64` has room for the sum of several
/// shares.
const PLACES: usize = 18;

/// The whole, in units of a share.
const ONE: u64 = 10_u64.pow(PLACES as u32);

/// Decimal fractions that add up to exactly 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares(Vec<u64>);

impl Shares {
    /// Reads fractions such as `0.9`, with at most 18 decimal places. Returns `None` unless all are
    /// well-formed and add up to exactly 1.
    pub fn read<'a>(shares: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let shares: Vec<u64> = shares.into_iter().map(parse).collect::<Option<_>>()?;
        let sum = shares.iter().try_fold(0_u64, |sum, share| sum.checked_add(*share))?;
        (sum == ONE).then_some(Self(shares))
    }

    /// Splits a total into one part a share. Each part is rounded down and the first one takes the remainder,
    /// so the parts add up to the total.
    pub fn split(&self, total: u64) -> Vec<u64> {
        let part = |share: &u64| (u128::from(total) * u128::from(*share) / u128::from(ONE)) as u64;
        let mut parts: Vec<u64> = self.0.iter().map(part).collect();
        let remainder = total - parts.iter().sum::<u64>();
        if let Some(first) = parts.first_mut() {
            *first += remainder;
        }
        parts
    }
}

/// Reads digits, and perhaps a point and up to 18 digits more: no sign, no exponent, no spaces.
fn parse(share: &str) -> Option<u64> {
    let (whole, decimals) = match share.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (share, ""),
    };
    let digits_only = [whole, decimals].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if whole.is_empty() || !digits_only || decimals.len() > PLACES {
        return None;
    }
    let decimals: u64 = format!("{decimals:0<PLACES$}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(ONE)?.checked_add(decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_decimal_fractions_that_add_up_to_exactly_one() {
        let good: &[&[&str]] = &[
            &["1"],
            &["1.0"],
            &["0.9", "0.1"],
            &["0", "1"],
            &["0.1", "0.2", "0.7"],
            &["0.333333333333333333", "0.666666666666666667"],
        ];
        for shares in good {
            assert!(Shares::read(shares.iter().copied()).is_some(), "{shares:?} must be taken");
        }
        let bad: &[&[&str]] = &[
            &[],
            &["0.9"],
            &["0.9", "0.2"],
            &["0.333333333333333333", "0.666666666666666666"],
            &["1.1", "-0.1"],
            &["1e0"],
            &["+1"],
            &[" 1"],
            &["1."],
            &[".5", "0.5"],
            &["1.0000000000000000000"],
            &["18446744073709551616"],
            &["18", "18"],
            &["NaN"],
        ];
        for shares in bad {
            assert!(Shares::read(shares.iter().copied()).is_none(), "{shares:?} must be refused");
        }
    }

    #[test]
    fn the_first_part_takes_what_rounding_leaves() {
        let largest = i64::MAX as u64;
        let table: &[(u64, &[&str], &[u64])] = &[
            (1000, &["1"], &[1000]),
            (1000, &["0.9", "0.1"], &[900, 100]),
            (999, &["0.9", "0.1"], &[900, 99]),
            (999, &["0.1", "0.9"], &[100, 899]),
            (1, &["0.5", "0.5"], &[1, 0]),
            (0, &["0.5", "0.5"], &[0, 0]),
            (100, &["0.333333333333333333", "0.666666666666666667"], &[34, 66]),
            (largest, &["0.000000000000000001", "0.999999999999999999"], &[10, largest - 10]),
        ];
        for (total, shares, parts) in table {
            let shares = Shares::read(shares.iter().copied()).unwrap();
            assert_eq!(shares.split(*total), *parts, "{total} split by {shares:?}");
        }
    }
}
