//! The command line: every command, option and default, and nothing that acts on them.
//!
//! Imports `model` for the types of names. What a command does stands in its own file.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::model::{ClientName, GuestId, HostId, StorageId};

/// Where the cluster file is when nobody says.
pub const DEFAULT_FILE: &str = "cluster.yaml";

/// Everything that was typed.
#[derive(Debug, Parser)]
#[command(name = "stor", version, about, max_term_width = 100, after_help = AFTER_HELP)]
#[command(propagate_version = false, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 done, 1 unexpected, 2 usage, 3 invalid file, 4 changes pending, \
5 host unreachable or busy, 6 apply incomplete, 7 verification failed, 8 preflight refused, \
9 migration failed (the guest runs at its source), 10 placement unknown.";

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Cluster file [default: cluster.yaml]
    #[arg(short, long, global = true, env = "STOR_FILE", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Work on the lab's hosts (stor lab up)
    #[arg(long, global = true)]
    pub lab: bool,
    /// What standard output holds
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
    /// Hosts worked on at once
    #[arg(long, global = true, value_name = "N", default_value = "32")]
    pub parallel: NonZeroUsize,
    /// Show what runs, on standard error (twice: every detail)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to colour; NO_COLOR is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// What standard output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people
    Human,
    /// One JSON document
    Json,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The cluster file as a command's own argument.
#[derive(Debug, Args)]
pub struct FileArgument {
    /// Cluster file; the same as --file
    #[arg(value_name = "FILE")]
    pub path: Option<PathBuf>,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented cluster file
    Init(FileArgument),
    /// Validate the cluster file; contacts no host
    Check(FileArgument),
    /// Show every change per host, why, and its risk
    Plan(PlanArgs),
    /// Plan, ask, execute, verify
    Apply(ApplyArgs),
    /// Prove that every hypervisor reaches the very same images
    Verify(FileArgument),
    /// Show hosts, storage, images, guests and their health
    Status(StatusArgs),
    /// Start a guest where it is defined, once it is known to run nowhere
    Start(StartArgs),
    /// Move guests to a host, running or (--cold) shut off, with no disk copy
    Migrate(MigrateArgs),
    /// Run a playbook; a killed run resumes
    Run(RunArgs),
    /// Remove what stor owns on the hosts; data stays unless it is named
    Destroy(DestroyArgs),
    /// Rehearse the cluster file on this one machine
    #[command(subcommand)]
    Lab(LabCommand),
    /// Print the JSON Schema of the cluster file, or of playbooks
    Schema(SchemaArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

impl Command {
    /// The command's name, as JSON documents carry it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Check(_) => "check",
            Self::Plan(_) => "plan",
            Self::Apply(_) => "apply",
            Self::Verify(_) => "verify",
            Self::Status(_) => "status",
            Self::Start(_) => "start",
            Self::Migrate(_) => "migrate",
            Self::Run(_) => "run",
            Self::Destroy(_) => "destroy",
            Self::Lab(LabCommand::Up(_)) => "lab up",
            Self::Lab(LabCommand::Down(_)) => "lab down",
            Self::Lab(LabCommand::Status(_)) => "lab status",
            Self::Lab(LabCommand::Shell(_)) => "lab shell",
            Self::Schema(_) => "schema",
            Self::Completions(_) => "completions",
            Self::Man => "man",
        }
    }

    /// The cluster file that was given as the command's own argument.
    #[must_use]
    pub fn file_argument(&self) -> Option<&PathBuf> {
        match self {
            Self::Init(file) | Self::Check(file) | Self::Verify(file) => file.path.as_ref(),
            Self::Plan(args) => args.file.path.as_ref(),
            Self::Apply(args) => args.file.path.as_ref(),
            Self::Status(args) => args.file.path.as_ref(),
            Self::Destroy(args) => args.file.path.as_ref(),
            Self::Lab(LabCommand::Up(file)) => file.path.as_ref(),
            Self::Lab(LabCommand::Down(args)) => args.file.path.as_ref(),
            Self::Lab(LabCommand::Status(file)) => file.path.as_ref(),
            _ => None,
        }
    }
}

/// What `stor plan` takes.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Cluster file.
    #[command(flatten)]
    pub file: FileArgument,
    /// Print a shell runbook, host by host, instead
    #[arg(long, conflicts_with = "detailed_exitcode")]
    pub script: bool,
    /// Exit with 4 when changes are pending
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Host that left the file and is gone for good, or client by its address; may be repeated
    #[arg(long, value_name = "HOST|ADDRESS")]
    pub dead: Vec<ClientName>,
}

/// What `stor apply` takes.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Cluster file.
    #[command(flatten)]
    pub file: FileArgument,
    /// Do not ask before safe steps
    #[arg(short, long)]
    pub yes: bool,
    /// Do not ask before disruptive steps either (what left the file is removed, mounts may be changed)
    #[arg(long)]
    pub prune: bool,
    /// Host that left the file and is gone for good, or client by its address; may be repeated
    #[arg(long, value_name = "HOST|ADDRESS")]
    pub dead: Vec<ClientName>,
    /// The same name once more, in the place of typing it when asked (for scripts)
    #[arg(long, value_name = "HOST|ADDRESS", requires = "dead")]
    pub confirm_dead: Vec<ClientName>,
}

/// What `stor status` takes.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Cluster file.
    #[command(flatten)]
    pub file: FileArgument,
    /// Look again every few seconds until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "5s", requires = "watch", value_parser = humantime::parse_duration)]
    pub every: std::time::Duration,
}

/// What `stor start` takes.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Guest
    #[arg(value_name = "GUEST")]
    pub guest: GuestId,
}

/// What `stor migrate` takes.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Guests to move
    #[arg(required = true, value_name = "GUEST")]
    pub guests: Vec<GuestId>,
    /// Host to move them to
    #[arg(long, value_name = "HOST")]
    pub to: HostId,
    /// Stop after the preflight
    #[arg(long)]
    pub dry_run: bool,
    /// Waive a warning of the preflight by its code; the receipt records it
    #[arg(long, value_name = "CODE")]
    pub allow: Vec<String>,
    /// Address of the guest to ping while it moves, to measure the gap from outside
    #[arg(long, value_name = "ADDRESS", conflicts_with = "cold")]
    pub ping: Option<std::net::IpAddr>,
    /// Move the guest shut off: its definition goes, and it starts there if it ran before
    #[arg(long)]
    pub cold: bool,
    /// With --cold: have a guest that runs shut down first
    #[arg(long, requires = "cold")]
    pub shutdown: bool,
    /// With --shutdown: how long it may take
    #[arg(long, value_name = "TIME", default_value = "3m", requires = "shutdown", value_parser = humantime::parse_duration)]
    pub within: std::time::Duration,
    /// With --shutdown: cut its power when it has not shut down by then (what it had not written is lost)
    #[arg(long, requires = "shutdown")]
    pub force: bool,
    /// With --cold: start the guest there even if it did not run before
    #[arg(long, requires = "cold")]
    pub start: bool,
}

/// What `stor run` takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Playbook
    #[arg(value_name = "PLAYBOOK")]
    pub playbook: PathBuf,
    /// Begin at the first step even if an earlier run was interrupted
    #[arg(long)]
    pub restart: bool,
}

/// What `stor destroy` takes.
#[derive(Debug, Args)]
pub struct DestroyArgs {
    /// Cluster file.
    #[command(flatten)]
    pub file: FileArgument,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Delete the data of this storage too (bricks with all images); may be repeated
    #[arg(long, value_name = "STORAGE")]
    pub delete_data: Vec<StorageId>,
    /// Host that left the file and is gone for good, or client by its address; may be repeated
    #[arg(long, value_name = "HOST|ADDRESS")]
    pub dead: Vec<ClientName>,
    /// The same name once more, in the place of typing it when asked (for scripts)
    #[arg(long, value_name = "HOST|ADDRESS", requires = "dead")]
    pub confirm_dead: Vec<ClientName>,
}

/// The lab's commands.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Make and boot every host of the cluster file on this machine
    Up(FileArgument),
    /// Remove the lab with all its data
    Down(LabDownArgs),
    /// Show the lab's hosts
    Status(FileArgument),
    /// Open a shell on a lab host, or run a command there
    Shell(LabShellArgs),
}

/// What `stor lab down` takes.
#[derive(Debug, Args)]
pub struct LabDownArgs {
    /// Cluster file.
    #[command(flatten)]
    pub file: FileArgument,
    /// Lab by its cluster's name, when the file is gone
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub name: Option<crate::model::ClusterName>,
}

/// What `stor lab shell` takes.
#[derive(Debug, Args)]
pub struct LabShellArgs {
    /// Host
    #[arg(value_name = "HOST")]
    pub host: HostId,
    /// Command and its arguments; one word alone is a line for the host's shell; a login shell when there is none
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `stor schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of which file
    #[arg(value_enum, default_value_t)]
    pub of: Described,
}

/// The files that have a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Described {
    /// The cluster file.
    #[default]
    Cluster,
    /// A playbook.
    Playbook,
}

/// What `stor completions` takes.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names_are_checked_while_parsing() {
        let parse = |words: &[&str]| Cli::try_parse_from(words);
        assert!(parse(&["stor", "migrate", "web1", "--to", "kvm2"]).is_ok());
        for bad in ["web 1", "web;1", "$(x)", "-x", "WEB", "../x", "w\u{202e}eb"] {
            assert!(parse(&["stor", "migrate", "--to", "kvm2", "--", bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn commands_are_named_as_they_are_typed() {
        for command in Cli::command().get_subcommands() {
            let typed = command.get_name().to_owned();
            let known = ["lab"].contains(&typed.as_str());
            assert!(known || NAMES.contains(&typed.as_str()), "{typed} has no name in JSON documents");
        }
    }

    const NAMES: [&str; 13] = [
        "init",
        "check",
        "plan",
        "apply",
        "verify",
        "status",
        "start",
        "migrate",
        "run",
        "destroy",
        "schema",
        "completions",
        "man",
    ];
}
