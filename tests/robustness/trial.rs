//! Many tries that must each give a result or an error, told apart by what was tried.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use sentence_burn::Error;

use crate::memory::asked_by;

/// What may be asked for at once whatever a file's size is.
const AT_ONCE: usize = 64 << 20;

/// What may be asked for at once for each byte of a file.
const FOR_A_BYTE: usize = 64;

/// How long a try may take before it counts as endless.
const PATIENCE: Duration = Duration::from_secs(120);

static TRYING: AtomicBool = AtomicBool::new(false);
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The tries of a test.
pub(crate) struct Trials {
    tries: usize,
    loaded: usize,
    /// What went wrong, by where, with the first try that made it.
    wrong: BTreeMap<String, (usize, String)>,
    /// How each kind of error was reported, to see that errors are of many kinds.
    errors: RefCell<BTreeMap<String, usize>>,
    running: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Trials {
    pub(crate) fn new() -> Self {
        record_panics();
        let running: Arc<Mutex<Option<(Instant, String)>>> = Arc::default();
        let watched = Arc::downgrade(&running);
        thread::spawn(move || {
            while let Some(running) = watched.upgrade() {
                if let Some((since, what)) = &*running.lock().unwrap()
                    && since.elapsed() > PATIENCE
                {
                    eprintln!("no end: {what}");
                    std::process::exit(101);
                }
                drop(running);
                thread::sleep(Duration::from_millis(200));
            }
        });
        Self {
            tries: 0,
            loaded: 0,
            wrong: BTreeMap::new(),
            errors: RefCell::default(),
            running,
        }
    }

    /// Tries something with files of `bytes` bytes.
    pub(crate) fn run(
        &mut self,
        what: &str,
        bytes: usize,
        work: impl FnOnce() -> Result<(), Error>,
    ) {
        self.tries += 1;
        *self.running.lock().unwrap() = Some((Instant::now(), what.to_owned()));
        TRYING.store(true, SeqCst);
        let (result, asked) = asked_by(|| catch_unwind(AssertUnwindSafe(work)));
        TRYING.store(false, SeqCst);
        *self.running.lock().unwrap() = None;
        let panics = std::mem::take(&mut *PANICS.lock().unwrap());
        match result {
            Ok(Ok(())) => self.loaded += 1,
            Ok(Err(error)) => {
                let kind = format!("{error:?}");
                let kind = kind.split(['{', '"']).next().unwrap_or_default();
                *self.errors.borrow_mut().entry(kind.to_owned()).or_default() += 1;
                if error.to_string().trim().is_empty() {
                    self.note("an error without a message".to_owned(), what);
                }
            }
            Err(_) => {
                let place = panics.first().cloned().unwrap_or_default();
                self.note(format!("panic: {place}"), what);
            }
        }
        if asked.at_once > AT_ONCE + FOR_A_BYTE * bytes {
            let megabytes = asked.at_once >> 20;
            self.note(format!("asked for {megabytes} MB at once"), what);
        } else if asked.at_peak > 4 * (AT_ONCE + FOR_A_BYTE * bytes) {
            let megabytes = asked.at_peak >> 20;
            self.note(format!("took {megabytes} MB"), what);
        }
    }

    fn note(&mut self, wrong: String, what: &str) {
        let noted = self.wrong.entry(wrong);
        noted.or_insert_with(|| (0, what.to_owned())).0 += 1;
    }

    /// Fails where something went wrong; `errors` is how many tries must have been refused at
    /// the least, so that a test whose files are all read is noticed.
    pub(crate) fn finish(self, errors: usize) {
        let kinds = self.errors.into_inner();
        let refused: usize = kinds.values().sum();
        println!(
            "{} tries, {} loaded, {refused} refused: {kinds:?}",
            self.tries, self.loaded
        );
        let wrong: Vec<String> = self
            .wrong
            .iter()
            .map(|(wrong, (count, first))| format!("{count} × {wrong}\n    first: {first}"))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(refused >= errors, "only {refused} refused");
    }
}

/// Keeps the messages of panics while something is tried, instead of printing them.
fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match TRYING.load(SeqCst) {
            true => {
                let message = panic.to_string().replace('\n', " ");
                let end = message.floor_char_boundary(300);
                PANICS.lock().unwrap().push(message[..end].to_owned());
            }
            false => print(panic),
        }));
    });
}
