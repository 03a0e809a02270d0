//! One session with a target: login, and the few SCSI commands that a look needs.
//!
//! Imports iscsi-client-rs and `storage::probe`. What the answers mean is in `wire`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use iscsi_client_rs::cfg::config::{
    AuthConfig, ChapConfig, Config, Extensions, Flow, Identity, Integrity, Limits, LoginConfig, Ordering,
    Recovery, RuntimeConfig, Timers, TransportHints, WriteFlow,
};
use iscsi_client_rs::cfg::enums::{Digest, SessionType, YesNo};
use iscsi_client_rs::client::client::ClientConnection;
use iscsi_client_rs::client::pool_sessions::Pool;
use iscsi_client_rs::control_block::inquiry::{VpdPage, fill_inquiry_vpd_simple};
use iscsi_client_rs::control_block::read::build_read16;
use iscsi_client_rs::control_block::read_capacity::build_read_capacity16;
use iscsi_client_rs::control_block::report_luns::fill_report_luns_simple;
use iscsi_client_rs::state_machine::common::StateMachineCtx as _;
use iscsi_client_rs::state_machine::login::common::LoginCtx;
use iscsi_client_rs::state_machine::read_states::ReadCtx;
use iscsi_client_rs::state_machine::tur_states::TurCtx;
use iscsi_client_rs::utils::generate_isid;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{CALL_DEADLINE, LOGIN_DEADLINE, WireError};
use crate::storage::probe::LunTarget;

/// The most bytes that one READ asks for.
const CHUNK: u64 = 128 << 10;
/// Time for taking leave; a target that does not answer is left all the same.
const LOGOUT_DEADLINE: Duration = Duration::from_millis(500);

/// Why a target refused a login (RFC 7143 section 11.13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// 0x0201: wrong user or secret.
    Authentication,
    /// 0x0202: not for this initiator.
    Forbidden,
    /// 0x0203: no such target, or none that this initiator may know of.
    NotFound,
    /// Another status.
    Other(u8, u8),
}

impl Status {
    fn of(class: u8, detail: u8) -> Self {
        match (class, detail) {
            (2, 1) => Self::Authentication,
            (2, 2) => Self::Forbidden,
            (2, 3) => Self::NotFound,
            (class, detail) => Self::Other(class, detail),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authentication => f.write_str("it does not accept the CHAP user and secret"),
            Self::Forbidden => f.write_str("it is not for this initiator"),
            Self::NotFound => f.write_str("there is no such target, or it is not for this machine"),
            Self::Other(class, detail) => write!(f, "login status 0x{class:02x}{detail:02x}"),
        }
    }
}

/// Operation code and service action (SPC-4).
const PERSISTENT_RESERVE_IN: u8 = 0x5e;
const READ_RESERVATION: u8 = 0x01;
const RESERVATION_LEN: u8 = 24;

/// A persistent reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reservation {
    /// The key of its holder.
    key: u64,
    /// Its type (SPC-4 table 64).
    kind: u8,
}

impl Reservation {
    /// Whether only holders may read.
    pub fn forbids_reading(self) -> bool {
        matches!(self.kind, 3 | 6 | 8)
    }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            1 => "Write Exclusive",
            3 => "Exclusive Access",
            5 => "Write Exclusive, Registrants Only",
            6 => "Exclusive Access, Registrants Only",
            7 => "Write Exclusive, All Registrants",
            8 => "Exclusive Access, All Registrants",
            _ => "a type of its own",
        };
        write!(f, "{kind}, key 0x{:x}", self.key)
    }
}

/// A session that is logged in.
pub(super) struct Session<'a> {
    target: &'a LunTarget,
    pool: Arc<Pool>,
    tsih: u16,
}

fn portal(target: &LunTarget) -> String {
    format!("{}:{}", target.address, target.port)
}

impl<'a> Session<'a> {
    /// Logs in.
    pub async fn open(target: &'a LunTarget) -> Result<Self, WireError> {
        let config = config(target)?;
        let late = |_| WireError::Deadline { portal: portal(target), what: "a login", after: LOGIN_DEADLINE };
        timeout(LOGIN_DEADLINE, Self::login(target, config)).await.map_err(late)?
    }

    async fn login(target: &'a LunTarget, config: Config) -> Result<Self, WireError> {
        let cancel = CancellationToken::new();
        let unreachable = |error: anyhow::Error| WireError::Unreachable {
            portal: portal(target),
            reason: error.root_cause().to_string(),
        };
        let pool = Arc::new(Pool::with_cancel(&config, cancel.clone()));
        pool.attach_self();
        let connection =
            ClientConnection::connect(config.clone(), cancel.clone()).await.map_err(unreachable)?;
        let (isid, _) = generate_isid();
        let name = Arc::from(target.iqn.as_str());
        match pool.login_and_insert(name, isid, 0, connection).await {
            Ok(tsih) => Ok(Self { target, pool, tsih }),
            Err(error) => Err(Self::diagnose(target, config, error).await),
        }
    }

    /// Finds out why a login failed: the client goes on after a refusal and then reports that the connection broke, so the
    /// last answer is looked at in a login of its own.
    async fn diagnose(target: &LunTarget, config: Config, failed: anyhow::Error) -> WireError {
        let fallback = |reason: String| WireError::Call { portal: portal(target), what: "login", reason };
        let with_chap = matches!(config.login.auth, AuthConfig::Chap(_));
        let cancel = CancellationToken::new();
        let connection = match ClientConnection::connect(config, cancel.clone()).await {
            Ok(connection) => connection,
            Err(error) => return fallback(error.root_cause().to_string()),
        };
        let (isid, _) = generate_isid();
        let mut login = LoginCtx::new(connection, isid, 0, 0);
        // A login with CHAP shows a status with every answer, also where the target asks for none.
        login.set_chap_login();
        if login.execute(&cancel).await.is_ok() && with_chap {
            return fallback(format!("{failed:#}"));
        }
        match login.validate_last_response_header() {
            Ok(header) if header.status_class.raw() != 0 => WireError::Refused {
                portal: portal(target),
                iqn: target.iqn.clone(),
                status: Status::of(header.status_class.raw(), header.status_detail.raw()),
            },
            Ok(_) if !with_chap => WireError::Refused {
                portal: portal(target),
                iqn: target.iqn.clone(),
                status: Status::Authentication,
            },
            Ok(_) | Err(_) => fallback(format!("{failed:#}")),
        }
    }

    fn failed(&self, what: &'static str, reason: impl fmt::Display) -> WireError {
        WireError::Call { portal: portal(self.target), what, reason: reason.to_string() }
    }

    /// One command that brings data.
    async fn command(
        &self,
        what: &'static str,
        lun: u8,
        cdb: [u8; 16],
        len: u32,
    ) -> Result<Vec<u8>, WireError> {
        let call = self.pool.execute_with(self.tsih, 0, move |connection, itt, cmd_sn, exp_stat_sn| {
            ReadCtx::new(connection, address(lun), itt, cmd_sn, exp_stat_sn, len, cdb)
        });
        let late = |_| WireError::Deadline { portal: portal(self.target), what, after: CALL_DEADLINE };
        let outcome = timeout(CALL_DEADLINE, call).await.map_err(late)?;
        outcome.map(|outcome| outcome.data).map_err(|error| self.failed(what, format!("{error:#}")))
    }

    /// The first command to a LUN may end with UNIT ATTENTION (SAM-5), which says nothing.
    async fn settle(&self, lun: u8) -> Result<(), WireError> {
        let call = self.pool.execute_with(self.tsih, 0, move |connection, itt, cmd_sn, exp_stat_sn| {
            TurCtx::new(connection, itt, cmd_sn, exp_stat_sn, address(lun))
        });
        let what = "TEST UNIT READY";
        let late = |_| WireError::Deadline { portal: portal(self.target), what, after: CALL_DEADLINE };
        timeout(CALL_DEADLINE, call).await.map_err(late).map(drop)
    }

    /// The numbers of all LUNs.
    pub async fn luns(&self) -> Result<BTreeSet<u8>, WireError> {
        self.settle(0).await?;
        let len = 8 + 8 * 256;
        let mut cdb = [0; 16];
        fill_report_luns_simple(&mut cdb, len);
        let data = self.command("REPORT LUNS", 0, cdb, len).await?;
        let entries = data.get(8..).unwrap_or_default().chunks_exact(8);
        let wanted = data
            .get(..4)
            .map_or(0, |len| len.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)));
        let luns: BTreeSet<u8> = entries.take(wanted / 8).map(|entry| entry[1]).collect();
        for lun in luns.iter().filter(|lun| **lun > 0) {
            self.settle(*lun).await?;
        }
        Ok(luns)
    }

    async fn page(&self, what: &'static str, lun: u8, page: VpdPage) -> Result<Vec<u8>, WireError> {
        let mut cdb = [0; 16];
        fill_inquiry_vpd_simple(&mut cdb, page, 252);
        let data = self.command(what, lun, cdb, 252).await?;
        let len = data.get(2..4).map_or(0, |len| usize::from(len[0]) << 8 | usize::from(len[1]));
        let page = data.get(4..4 + len.min(data.len().saturating_sub(4)));
        page.map(<[u8]>::to_vec).ok_or_else(|| self.failed(what, "the page is empty"))
    }

    /// The unit serial number (VPD page 0x80).
    pub async fn serial(&self, lun: u8) -> Result<String, WireError> {
        let page = self.page("INQUIRY 0x80", lun, VpdPage::UnitSerial).await?;
        Ok(String::from_utf8_lossy(&page).trim_matches([' ', '\0']).to_owned())
    }

    /// The designator of the LUN itself (VPD page 0x83): `naa.` and digits, or `t10.` and text. One with the serial number comes
    /// first: tgt makes its NAA number from the order of its targets, so it is another one after a restart.
    pub async fn wwid(&self, lun: u8, serial: &str) -> Result<String, WireError> {
        let what = "INQUIRY 0x83";
        let page = self.page(what, lun, VpdPage::DeviceId).await?;
        let names = designators(&page);
        let stable = names.iter().find(|name| name.contains(serial)).or(names.first());
        stable.cloned().ok_or_else(|| self.failed(what, "it names nothing"))
    }

    /// Number of blocks and bytes of each.
    pub async fn capacity(&self, lun: u8) -> Result<(u64, u32), WireError> {
        let what = "READ CAPACITY(16)";
        let mut cdb = [0; 16];
        build_read_capacity16(&mut cdb, 0, false, 32, 0);
        let data = self.command(what, lun, cdb, 32).await?;
        let number = |range| {
            let bytes: Option<&[u8]> = data.get::<std::ops::Range<usize>>(range);
            bytes.map(|bytes| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let block = number(8..12).and_then(|block| u32::try_from(block).ok()).filter(|block| *block > 0);
        match (number(0..8), block) {
            (Some(last), Some(block)) => Ok((last.saturating_add(1), block)),
            _ => Err(self.failed(what, "the answer is too short")),
        }
    }

    /// The persistent reservation that somebody holds (SPC-4 section 6.15.3, READ RESERVATION); `None` when there is none, or the
    /// target knows no such thing.
    pub async fn reservation(&self, lun: u8) -> Result<Option<Reservation>, WireError> {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[8]) = (PERSISTENT_RESERVE_IN, READ_RESERVATION, RESERVATION_LEN);
        match self.command("PERSISTENT RESERVE IN", lun, cdb, u32::from(RESERVATION_LEN)).await {
            Ok(data) => Ok(reservation(&data)),
            Err(error @ WireError::Deadline { .. }) => Err(error),
            Err(error) => {
                tracing::debug!("{error}");
                Ok(None)
            }
        }
    }

    /// Reads bytes from an offset; both in whole blocks.
    pub async fn read(&self, lun: u8, (offset, len): (u64, u64), block: u32) -> Result<Vec<u8>, WireError> {
        let (mut bytes, size) = (Vec::new(), u64::from(block));
        let mut at = offset;
        while at < offset + len {
            let part = CHUNK.min(offset + len - at);
            let blocks = u32::try_from(part / size).unwrap_or(0);
            let mut cdb = [0; 16];
            build_read16(&mut cdb, at / size, blocks, 0, 0);
            bytes.extend(self.command("READ(16)", lun, cdb, blocks * block).await?);
            at += part;
        }
        Ok(bytes)
    }

    /// Logs out; a target that does not answer any more forgets the session by itself.
    pub async fn close(self) {
        match timeout(LOGOUT_DEADLINE, self.pool.logout_session(self.tsih)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("logout from {}: {error:#}", self.target.iqn),
            Err(_) => tracing::debug!("logout from {}: no answer", self.target.iqn),
        }
    }
}

/// Reads the parameter data of READ RESERVATION: a header of 8 bytes, then the reservation, if there is one.
fn reservation(data: &[u8]) -> Option<Reservation> {
    let length = data.get(4..8)?.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let held = data.get(8..24).filter(|_| length >= 16)?;
    let key = held[..8].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    Some(Reservation { key, kind: held[13] & 0x0f })
}

/// A LUN's number as the protocol writes it: one byte, peripheral device addressing (SAM-5).
fn address(lun: u8) -> u64 {
    u64::from(lun) << 48
}

/// Names of the LUN itself in the device identification page (SPC-4 section 7.8.6), the world-wide ones first.
fn designators(page: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = page;
    while let [code, kind, _, len, tail @ ..] = rest {
        let Some((value, next)) = tail.split_at_checked(usize::from(*len)) else { break };
        rest = next;
        // Association 0: the LUN, not its port.
        if kind >> 4 & 3 != 0 {
            continue;
        }
        let text = || String::from_utf8_lossy(value).trim_matches([' ', '\0']).to_owned();
        let hex = || value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match (kind & 0x0f, code & 0x0f) {
            (3, _) => found.push((0, format!("naa.{}", hex()))),
            (1, 2 | 3) => found.push((1, format!("t10.{}", text()))),
            _ => {}
        }
    }
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

fn config(target: &LunTarget) -> Result<Config, WireError> {
    let auth = match &target.login {
        None => AuthConfig::None,
        Some(login) => {
            let secret = login.secret.as_ref().ok_or(WireError::NoSecret)?;
            AuthConfig::Chap(ChapConfig { username: login.user.clone(), secret: secret.reveal().to_owned() })
        }
    };
    let identity = Identity {
        session_type: SessionType::Normal,
        initiator_name: target.initiator.clone(),
        initiator_alias: String::new(),
        target_name: target.iqn.clone(),
        is_x86: YesNo::Yes,
    };
    let flow =
        Flow { max_recv_data_segment_length: 262_144, max_burst_length: 262_144, first_burst_length: 65_536 };
    let write_flow = WriteFlow { initial_r2t: YesNo::Yes, immediate_data: YesNo::No, max_outstanding_r2t: 1 };
    Ok(Config {
        login: LoginConfig {
            identity,
            auth,
            integrity: Integrity { header_digest: Digest::None, data_digest: Digest::None },
            flow,
            write_flow,
            ordering: Ordering { data_pdu_in_order: YesNo::Yes, data_sequence_in_order: YesNo::Yes },
            recovery: Recovery { error_recovery_level: 0 },
            timers: Timers { default_time2wait: Duration::from_secs(2), default_time2retain: Duration::ZERO },
            limits: Limits { max_connections: 1 },
            extensions: Extensions {
                task_reporting: None,
                iscsi_protocol_level: None,
                custom: HashMap::new(),
            },
            transport: TransportHints { target_address: portal(target), portal_group_tag: 1 },
        },
        runtime: RuntimeConfig { max_sessions: 1, timeout_connection: CALL_DEADLINE },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_luns_own_world_wide_name_comes_first() {
        let mut page = vec![2, 1, 0, 4];
        page.extend(b"STOR");
        page.extend([1, 0x13, 0, 2, 0xff, 0xff]);
        page.extend([1, 3, 0, 2, 0x30, 0x01]);
        assert_eq!(designators(&page), ["naa.3001", "t10.STOR"]);
        assert_eq!(designators(&[1, 3, 0, 200, 1]), Vec::<String>::new());
    }

    #[test]
    fn a_reservation_is_read_and_none_is_none() {
        let mut data = vec![0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0x0a, 0xbc];
        data.extend([0, 0, 0, 0, 0, 0x03, 0, 0]);
        let held = reservation(&data).unwrap();
        assert_eq!(
            (held.to_string().as_str(), held.forbids_reading()),
            ("Exclusive Access, key 0xabc", true)
        );
        assert_eq!(reservation(&[0, 0, 0, 2, 0, 0, 0, 0]), None);
        assert_eq!(reservation(&data[..20]), None, "cut off");
        assert_eq!(reservation(&[]), None);
    }

    #[test]
    fn every_refusal_of_a_login_has_its_own_words() {
        let said: BTreeSet<String> = [(2, 1), (2, 2), (2, 3), (3, 1)]
            .map(|(class, detail)| Status::of(class, detail).to_string())
            .into();
        assert_eq!(said.len(), 4);
    }
}
