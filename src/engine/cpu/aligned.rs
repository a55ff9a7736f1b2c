//! Words that start at a cache line, so that no load of a full register touches two.

/// Bytes of a cache line, and of the widest register.
const LINE: usize = 64;

/// A fixed number of 32-bit words, the first on a cache line.
#[derive(Debug)]
pub(super) struct Aligned {
    values: Vec<i32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// That many zeros.
    pub fn zeros(len: usize) -> Self {
        let values = vec![0; len + LINE / size_of::<i32>()];
        // The offset may be unknown, by the letter of its contract; then loads are slower and nothing else.
        let start = Some(values.as_ptr().align_offset(LINE)).filter(|&start| start + len <= values.len()).unwrap_or(0);
        Self { values, start, len }
    }

    /// The words.
    #[inline]
    pub fn as_slice(&self) -> &[i32] {
        &self.values[self.start..self.start + self.len]
    }

    /// The words, to fill them in.
    pub fn as_mut_slice(&mut self) -> &mut [i32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_on_a_cache_line() {
        for len in [0, 1, 100, 100_000] {
            let mut zeros = Aligned::zeros(len);
            assert_eq!(zeros.as_slice().as_ptr().align_offset(LINE), 0);
            assert_eq!((zeros.as_mut_slice().len(), zeros.as_slice().iter().sum::<i32>()), (len, 0));
        }
    }
}
