//! The command line: arguments in, exit code out. One file per command; what they print stands in `render`.
//!
//! May import everything. Decisions about hosts, storage or guests do not belong here.

pub mod args;

mod apply;
mod guests;
mod interrupt;
mod lab;
mod look;
mod playbook;
mod render;
mod session;

use std::io::Write as _;
use std::sync::Arc;

use clap::{CommandFactory, Parser};

use crate::error::{Exit, Failure};
use args::{Cli, Color, Command, Described, LabCommand};
use interrupt::{Second, interrupted};
use render::Screen;

/// Runs the command line and returns the exit code.
#[must_use]
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return match error.print() {
                Ok(()) => code.code(),
                Err(_) => Exit::Unexpected.code(),
            };
        }
    };
    log_to_stderr(&cli);
    let screen = Arc::new(Screen::new(cli.global.format, cli.global.color));
    match run(&cli, &screen) {
        Ok(exit) => exit.code(),
        Err(failure) => {
            screen.failure(cli.command.name(), &failure);
            failure.exit.code()
        }
    }
}

fn run(cli: &Cli, screen: &Arc<Screen>) -> Result<Exit, Failure> {
    let ends = || interrupted(screen, cli.command.name(), Second::Ends);
    let tells = || interrupted(screen, cli.command.name(), Second::Tells);
    match &cli.command {
        Command::Init(_) => look::init(&cli.file()),
        Command::Check(_) => look::check(cli, screen),
        Command::Plan(args) => look::plan(cli, args, screen),
        Command::Verify(_) => look::verify(cli, screen, &ends()?),
        Command::Status(args) => look::status(cli, args, screen, &ends()?),
        Command::Apply(args) => apply::apply(cli, args, screen, &ends()?),
        Command::Destroy(args) => apply::destroy(cli, args, screen, &ends()?),
        Command::Start(args) => guests::start(cli, args, screen, &tells()?),
        Command::Migrate(args) => guests::migrate(cli, args, screen, &tells()?),
        Command::Run(args) => playbook::run(cli, args, screen, &tells()?),
        Command::Lab(LabCommand::Up(_)) => lab::up(cli, screen, &ends()?),
        Command::Lab(LabCommand::Down(args)) => lab::down(cli, args, screen),
        Command::Lab(LabCommand::Status(_)) => lab::status(cli, screen),
        Command::Lab(LabCommand::Shell(args)) => lab::shell(cli, args),
        Command::Schema(args) => print(&format!(
            "{:#}\n",
            match args.of {
                Described::Cluster => crate::spec::schema(),
                Described::Playbook => crate::playbook::schema(),
            }
        )),
        Command::Completions(args) => {
            let mut out = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "stor", &mut out);
            print(&String::from_utf8_lossy(&out))
        }
        Command::Man => {
            let mut out = Vec::new();
            let page = clap_mangen::Man::new(Cli::command()).render(&mut out);
            page.map_err(|error| Failure::new(Exit::Unexpected, &error))?;
            print(&String::from_utf8_lossy(&out))
        }
    }
}

/// Writes to standard output; a reader that went away is no failure.
fn print(text: &str) -> Result<Exit, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Unexpected, &error))
        }
        _ => Ok(Exit::Done),
    }
}

fn log_to_stderr(cli: &Cli) {
    let level = match cli.global.verbose {
        0 => return,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let ansi = cli.global.color == Color::Always;
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(ansi).init();
}

impl Cli {
    /// The cluster file: the command's own argument, else `--file`, else the default.
    fn file(&self) -> std::path::PathBuf {
        let given = self.command.file_argument().or(self.global.file.as_ref());
        given.cloned().unwrap_or_else(|| args::DEFAULT_FILE.into())
    }
}
