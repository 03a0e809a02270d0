//! Runs a plan on a fleet, one step after the other.

use std::collections::BTreeSet;

use stor::host::Fleet;
use stor::libvirt::Connector;
use stor::model::{BlockLine, Broken, Step};
use stor::plan::Plan;
use stor::plan::expand::{Action, NO_SUCH_FILE, expand};

/// Runs every step that stands behind no failure; says what failed.
pub fn run(plan: &Plan, fleet: &Fleet, libvirt: &dyn Connector) -> Vec<String> {
    let mut broken: Vec<&Step> = Vec::new();
    let mut errors = Vec::new();
    for step in plan.steps() {
        if broken.iter().any(|failed| Broken::step(failed).stops(step)) {
            broken.push(step);
        } else if let Err(error) = one(step, fleet, libvirt) {
            errors.push(format!("{}: {}: {error}", step.host, step.title));
            broken.push(step);
        }
    }
    errors
}

fn one(step: &Step, fleet: &Fleet, libvirt: &dyn Connector) -> Result<(), String> {
    let host = fleet.host(&step.host).unwrap();
    let expansion = expand(&step.effect).map_err(|error| error.to_string())?;
    let daemon = || libvirt.open(&step.host).map_err(|error| error.to_string());
    let done = expansion.actions.iter().try_for_each(|action| match action {
        Action::Run(command) => host.run(command).map(drop).map_err(|error| error.to_string()),
        Action::MustBeAbsent { probe, .. } => match host.run(probe) {
            Err(error) if error.to_string().contains(NO_SUCH_FILE) => Ok(()),
            other => Err(format!("{other:?}")),
        },
        Action::WriteFile(file) => host.write_file(file).map_err(|error| error.to_string()),
        Action::EditBlock(block) => {
            let mut keys = Vec::new();
            for line in block.lines.iter().flat_map(|lines| lines.iter()) {
                if let BlockLine::Key(key) = line {
                    let peer = fleet.host(&key.of).unwrap();
                    let cat =
                        stor::model::Query::new(stor::model::Command::new("cat").arg(key.path.as_str()));
                    let read = || peer.query(&[cat]).map_err(|error| error.to_string());
                    keys.push(match &key.known {
                        Some(known) => known.clone(),
                        None => {
                            let answer = read()?.remove(0);
                            if !answer.ok() {
                                return Err(answer.stderr);
                            }
                            answer.stdout
                        }
                    });
                }
            }
            host.edit_block(block, &keys).map_err(|error| error.to_string())
        }
        Action::CopyIn { source, target } => host.copy_in(source, target).map_err(|error| error.to_string()),
        Action::EnsurePool { name, xml } => {
            daemon()?.ensure_pool(name, xml).map_err(|error| error.to_string())
        }
        Action::RemovePool { name } => daemon()?.remove_pool(name).map_err(|error| error.to_string()),
        Action::DefineGuest { xml, .. } => daemon()?.define_domain(xml).map_err(|error| error.to_string()),
        Action::UndefineGuest { name } => daemon()?.undefine_domain(name).map_err(|error| error.to_string()),
    });
    let cleanup = expansion.cleanup.iter().try_for_each(|command| host.run(command).map(drop));
    done.and(cleanup.map_err(|error| error.to_string()))
}

/// The hosts that a plan changes.
pub fn touched(plan: &Plan) -> BTreeSet<String> {
    plan.steps().map(|step| step.host.to_string()).collect()
}
