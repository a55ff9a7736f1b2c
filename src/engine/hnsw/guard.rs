//! A panic of somebody else's code, as an error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::EngineError;

thread_local! {
    static GUARDED: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread would become an error, so that whoever owns the process need not tell it.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get() > 0
}

/// Does some work that may panic. What it has in hand is not to be used after that.
///
/// # Errors
/// [`EngineError::Graph`] with the words of the panic.
#[cfg_attr(not(feature = "hnsw"), allow(dead_code))]
pub(super) fn guarded<T>(doing: &'static str, work: impl FnOnce() -> T) -> Result<T, EngineError> {
    GUARDED.set(GUARDED.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(GUARDED.get() - 1);
    done.map_err(|panic| EngineError::Graph { doing, why: words(&*panic) })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it does not say why".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_words_on_any_thread() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for number in [3, 4] {
            let error = pool.install(|| guarded::<()>("building a graph", || panic!("no room for {number}")));
            let message = error.unwrap_err().to_string();
            assert!(message.contains("building a graph") && message.contains(&format!("no room for {number}")));
        }
        assert!(guarded::<()>("building", || std::panic::panic_any(7)).unwrap_err().to_string().contains("why"));
        assert_eq!(guarded("building", || (is_guarded(), 5)).unwrap(), (true, 5));
        assert!(!is_guarded());
    }
}
