//! The commands that act on guests: start and migrate.

use std::collections::BTreeSet;

use serde_json::json;

use super::args::{Cli, MigrateArgs, StartArgs};
use super::render::Screen;
use super::session::Session;
use crate::error::{Exit, Failure};
use crate::migrate::outcome::exit_code;
use crate::migrate::receipt;
use crate::migrate::run::cold::{self, Cold, Start, Stop};
use crate::migrate::run::{MigrateEvent, Mode, Options, Pace, migrate as run};
use crate::migrate::start::{Started, start_locked as begin};
use crate::model::{Cancel, FindingCode};
use crate::spec::Cluster;

/// Starts a guest where it is defined.
pub fn start(cli: &Cli, args: &StartArgs, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let session = Session::open(cli)?.heeding(cancel).with_secrets()?;
    known(&session.cluster, [&args.guest])?;
    let holder = session.holder(&format!("start {}", args.guest));
    screen.engaged(&args.guest, Some("was asked for on its hosts, or started".to_owned()));
    let started = begin(session.site(), &args.guest, &holder, cancel);
    screen.engaged(&args.guest, None);
    let started =
        started.map_err(|error| Failure::new(Exit::of(error.exit_code()), &error).hint(error.hint()))?;
    let (host, word) = match &started {
        Started::Now(host) => (host, "started on"),
        Started::Already(host) => (host, "already runs on"),
    };
    let already = matches!(started, Started::Already(_));
    let value = json!({ "guest": args.guest, "host": host, "already": already });
    screen.document("start", value, || format!("guest {}: {word} {host}\n", args.guest))?;
    Ok(Exit::Done)
}

/// Moves guests.
pub fn migrate(cli: &Cli, args: &MigrateArgs, screen: &Screen, cancel: &Cancel) -> Result<Exit, Failure> {
    let session = Session::open(cli)?.heeding(cancel).with_secrets()?;
    known(&session.cluster, &args.guests)?;
    if !session.cluster.hypervisors().any(|host| host.id == args.to) {
        return Err(Failure::say(Exit::Usage, format!("--to {}: the file has no such hypervisor", args.to)));
    }
    let names: Vec<&str> = args.guests.iter().map(crate::model::GuestId::as_str).collect();
    let mut options = options(&session, &format!("migrate {} to {}", names.join(" "), args.to));
    options.mode = if args.dry_run { Mode::DryRun } else { Mode::Move };
    options.allow = allowed(&args.allow)?;
    options.ping = args.ping;
    let (site, show) = (session.site(), |event: MigrateEvent| screen.migrating(&event));
    let outcomes = if args.cold {
        let cold = Cold { stop: stop(args), start: start_there(args) };
        cold::cold(site, &args.guests, &args.to, &options, &cold, cancel, &show)
    } else {
        run(site, &args.guests, &args.to, &options, cancel, &show)
    };
    screen.document("migrate", json!({ "outcomes": outcomes }), || screen.outcomes(&outcomes))?;
    Ok(Exit::of(exit_code(&outcomes)))
}

/// What becomes of a guest that runs, when it is to be moved cold.
fn stop(args: &MigrateArgs) -> Stop {
    match (args.shutdown, args.force) {
        (false, _) => Stop::Refuse,
        (true, false) => Stop::Ask(args.within),
        (true, true) => Stop::Cut(args.within),
    }
}

fn start_there(args: &MigrateArgs) -> Start {
    if args.start { Start::Always } else { Start::AsBefore }
}

/// The cluster's own migration policy, with receipts in the user's state directory.
pub fn options(session: &Session, doing: &str) -> Options {
    let cluster = &session.cluster;
    let path = |name: &str| std::env::var_os(name).map(Into::into);
    Options {
        mode: Mode::Move,
        allow: BTreeSet::new(),
        policy: cluster.migration.clone(),
        ping: None,
        holder: session.holder(doing),
        receipts: receipt::directory(path("XDG_STATE_HOME"), path("HOME"), &cluster.name),
        pace: Pace::default(),
        clock: std::time::SystemTime::now,
    }
}

fn known<'a>(
    cluster: &Cluster,
    guests: impl IntoIterator<Item = &'a crate::model::GuestId>,
) -> Result<(), Failure> {
    match guests.into_iter().find(|guest| !cluster.guests.contains_key(guest)) {
        None => Ok(()),
        Some(guest) => {
            Err(Failure::say(Exit::Usage, format!("guest {guest}: the cluster file has no such guest")))
        }
    }
}

fn allowed(codes: &[String]) -> Result<BTreeSet<FindingCode>, Failure> {
    let parse = |code: &String| {
        serde_json::from_value(json!(code)).map_err(|_| {
            Failure::say(Exit::Usage, format!("--allow {code}: there is no such finding"))
                .hint(Some("docs/findings.md lists them".to_owned()))
        })
    };
    codes.iter().map(parse).collect()
}
