//! Claims about what is remembered of trials, on adapters that are made up.

use std::cell::{Cell, RefCell};

use super::*;

fn who(driver: &str) -> Who {
    let runs = vec!["portable", "wide", "cooperative"];
    Who { adapter: "A card".to_owned(), driver: driver.to_owned(), runs }
}

fn found(first: Option<f64>) -> Vec<Trial> {
    let rates = [first, None, Some(1.0 / 3.0)];
    let trials = who("").runs.into_iter().zip(rates);
    trials.map(|(variant, pairs_per_second)| Trial { variant, pairs_per_second }).collect()
}

/// A process with nothing known, that remembers in a folder and counts how often it tries.
struct Process<'a> {
    known: Mutex<Vec<Remembered>>,
    folder: Option<&'a Path>,
    tried: Cell<u32>,
    told: RefCell<Vec<String>>,
}

impl<'a> Process<'a> {
    fn new(folder: Option<&'a Path>) -> Self {
        Self { known: Mutex::default(), folder, tried: Cell::new(0), told: RefCell::default() }
    }

    fn look(&self, who: &Who) -> Vec<Trial> {
        let find = || {
            self.tried.set(self.tried.get() + 1);
            Ok(found(Some(5e9)))
        };
        let tell = |message: &str| self.told.borrow_mut().push(message.to_owned());
        of_in((&self.known, self.folder), who, find, &tell).expect("trials")
    }
}

#[test]
fn what_one_process_found_the_next_one_reads() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("not/there/yet");
    let (first, second) = (Process::new(Some(&folder)), Process::new(Some(&folder)));
    for (process, tried) in [(&first, 1), (&first, 1), (&second, 0), (&second, 0)] {
        assert_eq!((process.look(&who("1")), process.tried.get()), (found(Some(5e9)), tried));
    }
    // What was read is known from then on.
    std::fs::remove_dir_all(&folder).expect("to remove");
    second.look(&who("1"));
    assert_eq!((second.tried.get(), second.told.take()), (0, vec![]));
}

#[test]
fn another_driver_or_version_or_another_set_of_variants_is_tried_for_itself() {
    let home = tempfile::tempdir().expect("a folder");
    let process = Process::new(Some(home.path()));
    process.look(&who("1"));
    process.look(&who("2"));
    assert_eq!(process.tried.get(), 2);
    let other = Process::new(Some(home.path()));
    other.look(&who("1"));
    other.look(&who("2"));
    assert_eq!(other.tried.get(), 0, "both drivers are remembered");
    other.look(&Who { runs: vec!["portable"], ..who("1") });
    assert_eq!(other.tried.get(), 1, "a driver that runs less than it did");
    // As a program with other shaders would have left it.
    let file = home.path().join(FILE);
    let text = std::fs::read_to_string(&file).expect("to read").replace(&version(), "0.0.1 00000000");
    std::fs::write(&file, text).expect("to write");
    let other = Process::new(Some(home.path()));
    other.look(&who("2"));
    assert_eq!(other.tried.get(), 1, "another version");
    let all: Vec<Remembered> = serde_json::from_slice(&std::fs::read(&file).expect("to read")).expect("a list");
    let drivers = |of: &str| all.iter().filter(|known| known.driver == of).count();
    assert_eq!((all.len(), drivers("1"), drivers("2")), (2, 1, 1), "what it replaces is gone");
}

#[test]
fn a_damaged_file_is_as_good_as_none_and_is_replaced() {
    for damage in ["[{", "", "{}", "[{\"adapter\": 1}]", "\u{fffd}"] {
        let home = tempfile::tempdir().expect("a folder");
        Process::new(Some(home.path())).look(&who("1"));
        std::fs::write(home.path().join(FILE), damage).expect("to write");
        for tried in [1, 0] {
            let process = Process::new(Some(home.path()));
            assert_eq!((process.look(&who("1")), process.tried.get()), (found(Some(5e9)), tried), "{damage:?}");
        }
    }
}

#[test]
fn where_nothing_can_be_written_a_process_tries_once_and_says_why_once() {
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("a file");
    std::fs::write(&file, "").expect("to write");
    // A folder inside a file can be made by nobody, not even by root.
    let folder = file.join("cache");
    for _ in 0..2 {
        let process = Process::new(Some(&folder));
        for _ in 0..3 {
            assert_eq!((process.look(&who("1")), process.tried.get()), (found(Some(5e9)), 1));
        }
        let told = process.told.take();
        assert!(told.len() == 1 && told[0].contains(CACHE_VARIABLE), "{told:?}");
    }
    let nowhere = Process::new(None);
    nowhere.look(&who("1"));
    nowhere.look(&who("1"));
    assert_eq!((nowhere.tried.get(), nowhere.told.take()), (1, vec![]));
}

#[test]
fn what_a_driver_refuses_is_not_remembered() {
    let home = tempfile::tempdir().expect("a folder");
    let process = Process::new(Some(home.path()));
    let refuse = || Err(EngineError::DeviceLost { adapter: "A card".to_owned() });
    assert!(of_in((&process.known, process.folder), &who("1"), refuse, &|_| ()).is_err());
    assert!(!home.path().join(FILE).exists());
    process.look(&who("1"));
    assert_eq!(process.tried.get(), 1);
}

#[test]
fn the_fastest_that_finds_what_it_must_is_best() {
    let fastest = |first| best(&found(first)).map(|trial| trial.variant);
    assert_eq!(fastest(Some(9e9)), Some("portable"));
    assert_eq!(fastest(None), Some("cooperative"));
    assert!(best(&[Trial { variant: "portable", pairs_per_second: None }]).is_none());
}
