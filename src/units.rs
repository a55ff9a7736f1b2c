//! Newtypes for the quantities that are easy to mix up: row ids, k, and byte counts.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::error::UnitError;

/// Query rows of a work unit: one shard of every row array.
pub const UNIT_ROWS: u64 = 131_072;

/// Rows of an inner chunk of every row array; a unit holds 8.
pub const INNER_ROWS: u64 = 16_384;

/// A row of a whole `Source`, counted from 0: the identity of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

/// A row of one partition, counted from 0: all that an engine's inner loops see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalRow(pub u32);

/// How many neighbours each query gets: 1 to [`K::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct K(NonZeroU32);

impl K {
    /// The largest k every engine supports.
    pub const MAX: u32 = 256;

    /// `k` neighbours per query.
    ///
    /// # Errors
    /// [`UnitError::K`] when `k` is 0 or larger than [`K::MAX`].
    pub fn new(k: u32) -> Result<Self, UnitError> {
        match NonZeroU32::new(k) {
            Some(value) if k <= Self::MAX => Ok(Self(value)),
            _ => Err(UnitError::K { found: k, max: Self::MAX }),
        }
    }

    /// The count itself.
    #[must_use]
    pub fn get(self) -> usize {
        usize::try_from(self.0.get()).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for K {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of bytes, printed in binary units (`1.5 GiB`) and parsed from them (`512MiB`, `8GiB`, `2G`, `1000`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// `n` mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

const BYTE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, size) in BYTE_UNITS {
            if self.0 >= size {
                let tenths = self.0.saturating_mul(10) / size;
                return write!(f, "{}.{} {name}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl FromStr for ByteCount {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError::Bytes { text: text.to_owned() };
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let scale = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1_u64,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(bad()),
        };
        // Decimal digits are handled in integers, so that "0.1GiB" cannot depend on float rounding.
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
            return Err(bad());
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| bad())? };
        let ten = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
        let bytes = u128::from(whole) * u128::from(scale) + u128::from(part) * u128::from(scale) / ten;
        u64::try_from(bytes).map(Self).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("8GiB", 8 << 30),
            ("2g", 2 << 30),
            ("1.5 GiB", 3 << 29),
            ("1000", 1000),
            ("1kb", 1000),
        ] {
            assert_eq!(text.parse::<ByteCount>().map(|b| b.0), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "8 gigs", "-1", "1e9"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn byte_counts_print_in_binary_units() {
        assert_eq!(ByteCount(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(ByteCount(900).to_string(), "900 B");
    }

    #[test]
    fn k_is_between_one_and_the_maximum() {
        assert!(K::new(0).is_err() && K::new(K::MAX + 1).is_err());
        assert_eq!(K::new(30).map(K::get), Ok(30));
    }
}
