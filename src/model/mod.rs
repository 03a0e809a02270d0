//! The leaf words that every other module speaks: ids, paths, sizes, rates, secrets, commands, steps, findings.
//!
//! Imports nothing of stor. No I/O, no policy; a type lives here when two modules on different levels need it.

pub mod id;
pub mod path;
pub mod size;
pub mod secret;
pub mod command;
pub mod observations;
pub mod owned;
pub mod members;
pub mod step;
pub mod effect;
pub mod wave;
pub mod finding;
pub mod guest;
pub mod driver;
pub mod host;
pub mod image;
pub mod cancel;
pub mod chain;

pub use cancel::Cancel;
pub use chain::chain;
pub use command::{Answer, Command, Output, Query, Stdin};
pub use driver::Driver;
pub use effect::{BlockLine, BlockSpec, Effect, FileContent, FileMode, FileSpec, ImageSpec, PeerKey};
pub use finding::{Finding, FindingCode, Severity};
pub use guest::{Accel, Autostart, GuestShape, KernelBoot};
pub use host::{Elevation, HostSpec, Role, SshSpec};
pub use id::{ClusterName, GuestId, HostId, ImageId, NameError, StorageId};
pub use image::{ImageFormat, ImageLocation, IscsiAuth};
pub use members::{ClientName, ClientNameError, Dead, Member, Members, Standing};
pub use observations::{HostSeen, Observations, Unknown};
pub use owned::{Owned, OwnedKind, Record, RecordError};
pub use path::AbsPath;
pub use secret::{Secret, SecretId, SecretRef, Secrets, Stamp};
pub use size::{ByteSize, Rate};
pub use step::{Blocked, Broken, Difference, Proposal, ResourceId, ResourceKind, Risk, Step};
pub use wave::Wave;
