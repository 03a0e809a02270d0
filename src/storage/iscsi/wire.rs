//! The look at an iSCSI target with an initiator on this machine: login, REPORT LUNS, serial numbers, identifiers, sizes, reservations, and
//! digests of both ends of each LUN. Never writes.
//!
//! iscsi-client-rs is asynchronous and takes its time; a private runtime on the calling thread hides behind one blocking
//! function, and everything has a deadline here. One short session per look: idle ones die. Imports `model` and
//! `storage::probe`. Sources: RFC 7143, SPC-4, SBC-3.

mod session;

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use self::session::{Reservation, Session, Status};
use crate::storage::lun_probe::{END, swapped};
use crate::storage::probe::{ClientAnswer, ClientRequest, Identity, LunTarget, NoClient, names, own_address};

/// Time for the login.
const LOGIN_DEADLINE: Duration = Duration::from_secs(4);
/// Time for one command.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// Time for everything, however many LUNs are looked at.
const LOOK_DEADLINE: Duration = Duration::from_secs(15);

/// Why the target was not looked at.
#[derive(Debug, thiserror::Error)]
enum WireError {
    /// Nothing came back: a firewall that drops, a machine that is off.
    #[error("{portal} does not answer {what} within {}", humantime::format_duration(*after))]
    Deadline {
        /// Address and port.
        portal: String,
        /// What was asked.
        what: &'static str,
        /// How long it was waited.
        after: Duration,
    },
    /// Nobody listens, or the host cannot be reached.
    #[error("{portal} cannot be reached: {reason}")]
    Unreachable {
        /// Address and port.
        portal: String,
        /// The system's words.
        reason: String,
    },
    /// The target refused the login.
    #[error("{portal} refuses the login to {iqn}: {status}")]
    Refused {
        /// Address and port.
        portal: String,
        /// The target.
        iqn: String,
        /// Why.
        status: Status,
    },
    /// A command failed or answered something that cannot be read.
    #[error("{portal}: {what}: {reason}")]
    Call {
        /// Address and port.
        portal: String,
        /// The command.
        what: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// The secret was not read.
    #[error("the CHAP secret was not read")]
    NoSecret,
}

/// Looks at LUNs: which they are and how large, and the digests of their ends.
///
/// # Errors
/// [`NoClient`]: the target is not for this machine; it lets this machine in although the file does not; it refuses the
/// secret; it does not exist; or nobody answered in time.
pub fn look(
    target: &LunTarget,
    allowed: &[String],
    request: &ClientRequest,
) -> Result<ClientAnswer, NoClient> {
    let here = own_address(std::slice::from_ref(&target.address), target.port);
    let listed = here.is_some_and(|here| allowed.iter().any(|entry| names(entry, here)));
    let shown = here.map_or("this machine".to_owned(), |here| format!("this machine ({here})"));
    let remedy = || {
        let address = here.map_or("its address".to_owned(), |here| here.to_string());
        format!("add {address} to `allow:` of the storage and run `stor apply`")
    };
    match (look_within(target, request), listed) {
        (Ok(answer), true) => Ok(answer),
        (Ok(_), false) => Err(NoClient::LetIn {
            reason: format!("target {} lets {shown} in, which the file does not name", target.iqn),
            remedy:
                "find out who changed it: `tgtadm --op show --mode target` on the server, then `stor apply`"
                    .to_owned(),
        }),
        // A target says nothing of its existence to whom it does not let in.
        (Err(WireError::Refused { status: Status::NotFound | Status::Forbidden, .. }), false) => {
            let reason = format!(
                "the target shows itself to none but its initiators, and {shown} is none, as the file says"
            );
            Err(NoClient::NotApplicable { reason, remedy: remedy() })
        }
        (Err(error), false) => Err(NoClient::NotApplicable {
            reason: format!("{shown} is none of the target's initiators, and {error}"),
            remedy: remedy(),
        }),
        (Err(error), true) => Err(NoClient::Failed { reason: error.to_string() }),
    }
}

fn look_within(target: &LunTarget, request: &ClientRequest) -> Result<ClientAnswer, WireError> {
    let portal = || format!("{}:{}", target.address, target.port);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| WireError::Unreachable { portal: portal(), reason: error.to_string() })?;
    let answer = runtime.block_on(async {
        let look = async {
            let session = Session::open(target).await?;
            let answer = answer(&session, target, request).await;
            session.close().await;
            answer
        };
        let late = |_| WireError::Deadline { portal: portal(), what: "all questions", after: LOOK_DEADLINE };
        timeout(LOOK_DEADLINE, look).await.map_err(late)?
    });
    // Tasks of the client that still wait for the network are not waited for.
    runtime.shutdown_background();
    answer
}

async fn answer(
    session: &Session<'_>,
    target: &LunTarget,
    request: &ClientRequest,
) -> Result<ClientAnswer, WireError> {
    let offered = session.luns().await?;
    let mut answer = ClientAnswer::default();
    for file in &request.identify {
        let Some(lun) = target.luns.get(file) else { continue };
        if !offered.contains(&lun.number) {
            let said = format!("the target has no LUN {}: No such file or directory", lun.number);
            answer.identified.insert(file.clone(), Err(said));
            continue;
        }
        let serial = session.serial(lun.number).await?;
        let wwid = session.wwid(lun.number, &serial).await?;
        let (blocks, block) = session.capacity(lun.number).await?;
        let size = blocks.saturating_mul(u64::from(block));
        if serial != lun.serial {
            let said = swapped(lun.number, &serial, &lun.serial);
            answer.identified.insert(file.clone(), Err(said));
            continue;
        }
        let identity = Identity { inode: u64::from(lun.number), id: Some(wwid), size };
        answer.identified.insert(file.clone(), Ok(identity));
        let reservation = session.reservation(lun.number).await?;
        if let Some(reservation) = reservation {
            answer.reserved.insert(file.clone(), reservation.to_string());
        }
        if request.read.contains(file) && !reservation.is_some_and(Reservation::forbids_reading) {
            let first = session.read(lun.number, (0, END.min(size)), block).await?;
            let last = session.read(lun.number, (size.saturating_sub(END), END.min(size)), block).await?;
            answer.read.insert(file.clone(), Ok(digests(&first, &last)));
        }
    }
    Ok(answer)
}

/// The digests of both ends, as the hosts' script prints them.
fn digests(first: &[u8], last: &[u8]) -> String {
    let hex =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{} {}", hex(first), hex(last))
}
