//! Ctrl-C: the first asks for a clean end, the second ends the waiting, the third the process.
//!
//! Signals are taken by a thread, so that whatever hangs elsewhere cannot keep stor from ending. Imports `error` and `model`.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::exit;

use super::render::Screen;
use crate::error::{Exit, Failure};
use crate::model::Cancel;

/// Time in which a command that moves guests says by itself where they are, once the user no longer waits.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Time to write them.
const TO_SPEAK: Duration = Duration::from_millis(500);
/// The exit code of a command that was ended by a second Ctrl-C.
const INTERRUPTED: i32 = 130;

/// What the second Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    /// It ends the process: the command can be run again, and converges.
    Ends,
    /// It ends every wait: where the guests are is said before the process ends.
    Tells,
}

/// Makes the flag that Ctrl-C sets, and listens for it.
pub fn interrupted(screen: &Arc<Screen>, command: &'static str, second: Second) -> Result<Cancel, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Unexpected, &error);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (cancel, screen) = (Cancel::default(), Arc::clone(screen));
    let flag = cancel.clone();
    let listen = move || {
        for _ in signals.forever() {
            if !flag.is_cancelled() {
                flag.cancel();
                continue;
            }
            if flag.is_abandoned() || second == Second::Ends {
                exit(INTERRUPTED);
            }
            flag.abandon();
            let screen = Arc::clone(&screen);
            if std::thread::Builder::new().spawn(move || last_words(&screen, command)).is_err() {
                exit(INTERRUPTED);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(failed)?;
    Ok(cancel)
}

/// Ends the process once the command has had its time, and says what stands.
fn last_words(screen: &Arc<Screen>, command: &'static str) {
    std::thread::sleep(LAST_WORDS);
    let failure = screen.interrupted();
    let code = failure.as_ref().map_or(INTERRUPTED, |failure| i32::from(failure.exit.code()));
    let (said, heard) = mpsc::channel();
    let speaker = Arc::clone(screen);
    // A terminal or pipe that takes nothing must not keep the process.
    std::thread::spawn(move || {
        if let Some(failure) = &failure {
            speaker.failure(command, failure);
        }
        said.send(()).unwrap_or(());
    });
    heard.recv_timeout(TO_SPEAK).unwrap_or(());
    exit(code);
}
