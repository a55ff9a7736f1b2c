//! Carries a command out: request, plan or run, result.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use super::args::{Command, EvaluateArgs, IndexArgs, InfoArgs, MapArgs, SearchArgs, TransferArgs, VerifyArgs};
use super::console::{self, Failure, print};
use super::flags::{Run, Talk};
use super::progress::Progress;
use super::show::{self, Kind};
use super::{convert, demo, devices, evaluate, index, info};
use crate::error::Error;
use crate::job;
use crate::job::request::{MappingRequest, Outcome, PlanReport};
use crate::schedule::progress::{Observer, Stop};

/// Does what the command says.
pub fn command(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Map(args) => map(args),
        Command::Search(args) => search(args),
        Command::Transfer(args) => transfer(args),
        Command::Index(args) => index(args),
        Command::Evaluate(args) => evaluate(args),
        Command::Info(args) => info(args),
        Command::Devices(args) => {
            let json = args.print.json;
            let tell = |message: &str| {
                if console::is_terminal() {
                    console::tell(message);
                }
            };
            let (cpu, adapters) = (devices::processor(), devices::tried(devices::adapters(), &tell));
            print(&if json { show::line(&devices::json(&cpu, &adapters)) } else { devices::page(&cpu, &adapters) })
        }
        Command::Verify(args) => verify(args),
    }
}

fn map(args: &MapArgs) -> Result<(), Failure> {
    let request = convert::map(args)?;
    if planned(args.talk, &args.run, || job::plan_map(&request))? {
        return Ok(());
    }
    let nothing = says_nothing(&request.mapping);
    let outcome = watched(args.talk, |observer, stop| {
        if nothing {
            observer.warn("nothing is transferred: add --label, --value, --obsm, --presence or --matrix");
        }
        job::map(&request, observer, stop)
    })?;
    report(Kind::Map, args.talk, &outcome, Some(&request.mapping))
}

fn search(args: &SearchArgs) -> Result<(), Failure> {
    let request = convert::search(args)?;
    if planned(args.talk, &args.run, || job::plan_search(&request))? {
        return Ok(());
    }
    let outcome = watched(args.talk, |observer, stop| job::search(&request, observer, stop))?;
    report(Kind::Search, args.talk, &outcome, None)
}

fn transfer(args: &TransferArgs) -> Result<(), Failure> {
    let request = convert::transfer(args)?;
    if says_nothing(&request.mapping) {
        let sentence = "nothing to transfer: add --label, --value, --obsm, --presence or --matrix";
        return Err(Failure::Usage(sentence.to_owned()));
    }
    if planned(args.talk, &args.run, || job::plan_transfer(&request))? {
        return Ok(());
    }
    let outcome = watched(args.talk, |observer, stop| job::transfer(&request, observer, stop))?;
    report(Kind::Transfer, args.talk, &outcome, Some(&request.mapping))
}

fn index(args: &IndexArgs) -> Result<(), Failure> {
    let request = convert::index(args)?;
    if planned(args.talk, &args.run, || job::plan_index(&request))? {
        return Ok(());
    }
    let outcome = watched(args.talk, |observer, stop| job::index(&request, observer, stop))?;
    print(&if args.talk.json { show::line(&index::json(&outcome)) } else { index::page(&outcome) })
}

fn says_nothing(mapping: &MappingRequest) -> bool {
    let none = mapping.labels.is_empty() && mapping.values.is_empty() && mapping.obsm.is_empty();
    none && mapping.presence.is_none() && !mapping.matrix
}

fn evaluate(args: &EvaluateArgs) -> Result<(), Failure> {
    let found = job::evaluate(&convert::evaluate(args))?;
    print(&if args.print.json { show::line(&evaluate::json(&found)) } else { evaluate::page(&found) })
}

fn info(args: &InfoArgs) -> Result<(), Failure> {
    let json = args.print.json;
    if let Some(found) = info::index(&args.store)? {
        let page = || index::info_page(&args.store, &found);
        return print(&if json { show::line(&index::info_json(&args.store, &found)) } else { page() });
    }
    let items = info::items(&args.store)?;
    print(&if json { show::line(&info::json(&args.store, &items)) } else { info::page(&args.store, &items) })
}

fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let progress = Progress::new(args.talk);
    let found = job::verify(&args.out, &progress);
    progress.close();
    let found = found?;
    let page = if args.talk.json {
        show::line(&show::verification_json(&args.out, &found))
    } else {
        show::verification(&args.out, &found)
    };
    print(&page)?;
    if found.problems.is_empty() { Ok(()) } else { Err(Failure::Shown) }
}

/// Shows the plan where it is asked for; true where that is all.
fn planned(talk: Talk, run: &Run, plan: impl Fn() -> Result<PlanReport, Error>) -> Result<bool, Failure> {
    if run.dry_run {
        let plan = plan()?;
        print(&if talk.json {
            show::line(&plan.json)
        } else {
            show::plan(&plan) + "\nNothing was written (--dry-run).\n"
        })?;
    } else if talk.verbose {
        console::tell(&show::plan(&plan()?));
    }
    Ok(run.dry_run)
}

/// Runs with progress shown and Ctrl-C heard.
pub fn watched<T>(talk: Talk, work: impl FnOnce(&dyn Observer, &Stop) -> Result<T, Error>) -> Result<T, Failure> {
    static STOP: LazyLock<Stop> = LazyLock::new(Stop::new);
    let progress = Arc::new(Progress::new(talk));
    heed(&STOP, &progress);
    let outcome = work(progress.as_ref(), &STOP);
    progress.close();
    Ok(outcome?)
}

/// The first Ctrl-C (or SIGTERM) asks the run to stop, the second ends it.
fn heed(stop: &'static Stop, progress: &Arc<Progress>) {
    let progress = Arc::clone(progress);
    let again = AtomicBool::new(false);
    let heard = move || {
        if again.swap(true, Ordering::SeqCst) {
            process::exit(75);
        }
        stop.ask();
        progress.say("stopping at the next border, so that --resume can continue; press Ctrl-C again to stop at once");
    };
    // Without a handler Ctrl-C still ends the run, and what was finished is still kept.
    let _ = ctrlc::set_handler(heard);
}

fn report(kind: Kind, talk: Talk, outcome: &Outcome, mapping: Option<&MappingRequest>) -> Result<(), Failure> {
    if talk.json {
        return print(&show::line(&show::outcome_json(outcome)));
    }
    print(&format!("{}\n{}", show::outcome(kind, outcome, mapping), show::python(&outcome.out, mapping)))
}
