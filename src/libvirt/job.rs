//! The calls of libvirt that the `virt` crate lacks, or that it makes in a way that can panic.
//!
//! One of the two places of this part with `unsafe`; every function here is a few lines around one C function and
//! gives back plain values. What to do with them is decided in `conn` and `migrate`.
#![expect(unsafe_code, reason = "C functions of libvirt that the virt crate does not wrap")]

use std::ffi::{CStr, CString, NulError};
use std::os::raw::{c_int, c_uint};
use std::ptr;
use std::time::Duration;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

use super::{JobOperation, JobStats};

/// Which job's statistics are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one under way.
    Current,
    /// The last one that ended well on this host.
    Completed,
}

/// Cancels the job under way (`virDomainAbortJob`).
///
/// # Errors
/// libvirt's own, among them that no job is under way.
pub fn abort(domain: &Domain) -> Result<(), Error> {
    // SAFETY: `domain` holds a reference to a valid virDomain for the length of the call, and the call keeps none.
    let status = unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
    if status < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Reads a job's statistics (`virDomainGetJobStats`); `None` when there is no such job.
///
/// `Domain::job_stats` of virt 0.5 panics when a daemon sends a field in another type than expected, and makes a `Vec`
/// from a null pointer when there is no job.
///
/// # Errors
/// libvirt's own.
pub fn stats(domain: &Domain, which: Which) -> Result<Option<JobStats>, Error> {
    let flags = match which {
        Which::Current => 0,
        Which::Completed => sys::VIR_DOMAIN_JOB_STATS_COMPLETED as c_uint,
    };
    let mut kind: c_int = 0;
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    let mut count: c_int = 0;
    // SAFETY: `domain` is valid as above; the three out pointers point to live locals of the right types.
    let status =
        unsafe { sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut params, &mut count, flags) };
    if status < 0 {
        return Err(Error::last_error());
    }
    let stats = {
        let fields: &[sys::virTypedParameter] = match usize::try_from(count) {
            // SAFETY: libvirt allocated `count` initialised parameters at `params`; the slice ends before they are freed.
            Ok(length) if !params.is_null() => unsafe { std::slice::from_raw_parts(params, length) },
            _ => &[],
        };
        job_stats(fields)
    };
    // SAFETY: libvirt allocated `params` for its caller, who frees it with this function; null is allowed.
    unsafe { sys::virTypedParamsFree(params, count) };
    Ok((u32::try_from(kind) != Ok(sys::VIR_DOMAIN_JOB_NONE)).then_some(stats))
}

fn job_stats(fields: &[sys::virTypedParameter]) -> JobStats {
    let value = |name: &CStr| fields.iter().find(|field| named(field, name)).and_then(number);
    let count = |name: &CStr| value(name).unwrap_or(0);
    let millis = |name: &CStr| value(name).map(Duration::from_millis);
    let operation = match u32::try_from(count(sys::VIR_DOMAIN_JOB_OPERATION)) {
        Ok(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN) => JobOperation::MigrationIn,
        Ok(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT) => JobOperation::MigrationOut,
        _ => JobOperation::Other,
    };
    JobStats {
        operation,
        elapsed: millis(sys::VIR_DOMAIN_JOB_TIME_ELAPSED).unwrap_or_default(),
        memory_total: count(sys::VIR_DOMAIN_JOB_MEMORY_TOTAL),
        memory_remaining: count(sys::VIR_DOMAIN_JOB_MEMORY_REMAINING),
        memory_processed: count(sys::VIR_DOMAIN_JOB_MEMORY_PROCESSED),
        disk_processed: count(sys::VIR_DOMAIN_JOB_DISK_PROCESSED),
        bandwidth: count(sys::VIR_DOMAIN_JOB_MEMORY_BPS),
        dirty_pages_per_second: count(sys::VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE),
        page_size: count(sys::VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE),
        iteration: count(sys::VIR_DOMAIN_JOB_MEMORY_ITERATION),
        downtime: millis(sys::VIR_DOMAIN_JOB_DOWNTIME),
        setup: millis(sys::VIR_DOMAIN_JOB_SETUP_TIME),
    }
}

fn named(field: &sys::virTypedParameter, name: &CStr) -> bool {
    let bytes = field.field.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned());
    bytes.eq(name.to_bytes().iter().copied())
}

/// A parameter's value when it is a whole number that is not negative, whatever its width.
fn number(field: &sys::virTypedParameter) -> Option<u64> {
    match u32::try_from(field.type_).ok()? {
        // SAFETY: the type tag says which member of the union libvirt wrote; likewise in each arm below.
        sys::VIR_TYPED_PARAM_INT => u64::try_from(unsafe { field.value.i }).ok(),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_UINT => Some(u64::from(unsafe { field.value.ui })),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_LLONG => u64::try_from(unsafe { field.value.l }).ok(),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_ULLONG => Some(unsafe { field.value.ul }),
        _ => None,
    }
}

/// The guest CPU that a host is compared with.
#[derive(Debug, Clone, Copy)]
pub struct GuestCpu<'a> {
    /// The `<cpu>` element.
    pub xml: &'a str,
    /// Architecture.
    pub arch: Option<&'a str>,
    /// Machine type.
    pub machine: Option<&'a str>,
    /// `kvm` or `qemu`.
    pub kind: &'a str,
}

/// Asks whether a host's QEMU can offer a guest's CPU (`virConnectCompareHypervisorCPU`).
///
/// # Errors
/// libvirt's own; `VIR_ERR_CPU_INCOMPATIBLE` names the missing features.
pub fn compare_cpu(connect: &Connect, cpu: GuestCpu<'_>) -> Result<(), Error> {
    let text = |text: Option<&str>| text.map(CString::new).transpose();
    let xml = CString::new(cpu.xml)?;
    let kind = CString::new(cpu.kind)?;
    let (arch, machine): (Option<CString>, Option<CString>) =
        text(cpu.arch).and_then(|arch| Ok::<_, NulError>((arch, text(cpu.machine)?)))?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: `connect` holds a valid virConnect; every string lives to the end of the call and ends in a NUL; null
    // stands for "the default" where the function allows it (emulator, architecture, machine).
    let result = unsafe {
        sys::virConnectCompareHypervisorCPU(
            connect.as_ptr(),
            ptr::null(),
            pointer(&arch),
            pointer(&machine),
            kind.as_ptr(),
            xml.as_ptr(),
            sys::VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
        )
    };
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}
