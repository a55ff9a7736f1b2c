//! Categories from a column of strings, value by value, so that the column is never in memory.

use std::collections::HashMap;

use crate::error::TransferError;

/// Distinct values seen so far, each with a code in order of appearance.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    codes: HashMap<Box<str>, i32>,
}

impl Vocabulary {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The code of a value: its number in order of first appearance.
    ///
    /// # Errors
    /// [`TransferError::TooMany`] beyond 2³¹ − 1 different values.
    pub fn code(&mut self, value: &str) -> Result<i32, TransferError> {
        if let Some(&code) = self.codes.get(value) {
            return Ok(code);
        }
        let code = i32::try_from(self.codes.len()).map_err(|_| TransferError::TooMany { max: i32::MAX })?;
        self.codes.insert(value.into(), code);
        Ok(code)
    }

    /// The code of a value that was seen.
    #[must_use]
    pub fn find(&self, value: &str) -> Option<i32> {
        self.codes.get(value).copied()
    }

    /// How many different values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// The values in order of first appearance: the codes that were handed out are their positions.
    #[must_use]
    pub fn in_order(self) -> Vec<String> {
        let mut values: Vec<(i32, Box<str>)> = self.codes.into_iter().map(|(value, code)| (code, value)).collect();
        values.sort_unstable();
        values.into_iter().map(|(_, value)| value.into()).collect()
    }

    /// The values sorted by code point, as pandas and scikit-learn do, and for each code handed out its position there.
    #[must_use]
    pub fn sorted(self) -> (Vec<String>, Vec<i32>) {
        let mut values: Vec<(Box<str>, i32)> = self.codes.into_iter().collect();
        values.sort_unstable();
        let mut positions = vec![-1; values.len()];
        for (position, &(_, code)) in (0..).zip(&values) {
            if let Some(slot) = super::code_index(code).and_then(|code| positions.get_mut(code)) {
                *slot = position;
            }
        }
        (values.into_iter().map(|(value, _)| value.into()).collect(), positions)
    }
}

/// Turns codes of first appearance into positions among the sorted values; −1 stays.
pub fn recode(codes: &mut [i32], positions: &[i32]) {
    for code in codes {
        *code = super::code_index(*code).and_then(|c| positions.get(c)).copied().unwrap_or(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_sorted_categories() -> Result<(), TransferError> {
        let mut vocabulary = Vocabulary::new();
        assert!(vocabulary.is_empty());
        let mut codes = Vec::new();
        for value in ["T cell", "B cell", "T cell", "", "β"] {
            codes.push(vocabulary.code(value)?);
        }
        codes.push(-1);
        assert_eq!((codes.as_slice(), vocabulary.len()), ([0, 1, 0, 2, 3, -1].as_slice(), 4));
        assert_eq!(vocabulary.clone().in_order(), ["T cell", "B cell", "", "β"]);
        let (values, positions) = vocabulary.sorted();
        recode(&mut codes, &positions);
        assert_eq!(values, ["", "B cell", "T cell", "β"]);
        assert_eq!(codes, [2, 1, 2, 0, 3, -1]);
        Ok(())
    }
}
