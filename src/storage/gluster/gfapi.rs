//! A thin binding to libgfapi, loaded when it is needed: nothing is linked, nothing is needed at build time.
//!
//! The only `unsafe` besides `libvirt/job.rs`. Imports nothing of stor. Meant for a process of its own, which ends with
//! [`leave`]: `glfs_fini` takes 10 s even when idle. `dlsym` yields the newest version of each symbol, which is the ABI of
//! GlusterFS 6.0 (api/src/gfapi.map): reads and writes there take pointers for `struct glfs_stat`, which may be NULL.

#![expect(unsafe_code, reason = "foreign functions of libgfapi")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::path::Path;

use libloading::{Library, Symbol};

/// Names under which distributions install the library.
const NAMES: [&str; 2] = ["libgfapi.so.0", "libgfapi.so"];
/// Port of glusterd.
const GLUSTERD_PORT: c_int = 24007;
/// Log level `WARNING` (`gf_loglevel_t`).
const LOG_WARNING: c_int = 5;
/// One block: what the probe files hold.
pub const BLOCK: usize = 4096;

/// Says what libgfapi could not do.
#[derive(Debug, thiserror::Error)]
pub enum GfapiError {
    /// The library is not installed, or too old.
    #[error("libgfapi cannot be loaded")]
    Library(#[source] libloading::Error),
    /// The volume could not be opened.
    #[error("volume {volume} cannot be opened")]
    Open {
        /// The volume.
        volume: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name holds a NUL byte.
    #[error("a name holds a NUL byte")]
    Nul(#[from] std::ffi::NulError),
}

type Fs = *mut c_void;
type Fd = *mut c_void;
type Object = *mut c_void;

/// An open volume; never closed, the process ends with it.
pub struct Volume {
    library: Library,
    fs: Fs,
}

/// Loads the library.
///
/// # Errors
/// [`GfapiError::Library`] when it is not installed.
pub fn load() -> Result<Library, GfapiError> {
    let mut last = None;
    for name in NAMES {
        // SAFETY: libgfapi's initialisers only set up its own state, and nothing of stor depends on them.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(error) => last = last.or(Some(error)),
        }
    }
    Err(GfapiError::Library(last.unwrap_or(libloading::Error::DlOpenUnknown)))
}

/// Ends the process at once, without destructors of any library.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit(2) has no precondition.
    unsafe { libc::_exit(status) }
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Volume {
    /// Opens a volume through the first server that answers; what the library has to say goes to `log`.
    ///
    /// # Errors
    /// [`GfapiError`]; a client that the volume does not let in is told so only in the log, after 10 s.
    pub fn open(library: Library, volume: &str, servers: &[String], log: &Path) -> Result<Self, GfapiError> {
        let name = CString::new(volume)?;
        let log = CString::new(log.to_string_lossy().into_owned())?;
        // SAFETY: glfs_new(const char *) returns a handle or NULL and copies the name.
        let new: Symbol<unsafe extern "C" fn(*const c_char) -> Fs> = symbol(&library, c"glfs_new")?;
        let fs = unsafe { new(name.as_ptr()) };
        let failed = |source| GfapiError::Open { volume: volume.to_owned(), source };
        if fs.is_null() {
            return Err(failed(io::Error::last_os_error()));
        }
        type SetServer = unsafe extern "C" fn(Fs, *const c_char, *const c_char, c_int) -> c_int;
        let set_server: Symbol<SetServer> = symbol(&library, c"glfs_set_volfile_server")?;
        for server in servers {
            let server = CString::new(server.as_str())?;
            // SAFETY: `fs` is a live handle; both strings outlive the call, which copies them.
            check(unsafe { set_server(fs, c"tcp".as_ptr(), server.as_ptr(), GLUSTERD_PORT) })
                .map_err(failed)?;
        }
        let set_logging: Symbol<unsafe extern "C" fn(Fs, *const c_char, c_int) -> c_int> =
            symbol(&library, c"glfs_set_logging")?;
        // SAFETY: as above.
        check(unsafe { set_logging(fs, log.as_ptr(), LOG_WARNING) }).map_err(failed)?;
        let init: Symbol<unsafe extern "C" fn(Fs) -> c_int> = symbol(&library, c"glfs_init")?;
        // SAFETY: `fs` is a live handle with at least one server set.
        check(unsafe { init(fs) }).map_err(failed)?;
        Ok(Self { library, fs })
    }

    fn symbol<T>(&self, name: &CStr) -> io::Result<Symbol<'_, T>> {
        symbol(&self.library, name).map_err(io::Error::other)
    }

    /// The gfid of a file.
    ///
    /// # Errors
    /// As the server says.
    pub fn gfid(&self, path: &str) -> io::Result<[u8; 16]> {
        type Lookup = unsafe extern "C" fn(Fs, Object, *const c_char, *mut libc::stat, c_int) -> Object;
        type Extract = unsafe extern "C" fn(Object, *mut u8, c_int) -> isize;
        let (lookup, extract): (Symbol<Lookup>, Symbol<Extract>) =
            (self.symbol(c"glfs_h_lookupat")?, self.symbol(c"glfs_h_extract_handle")?);
        let path = CString::new(path)?;
        let mut gfid = [0; 16];
        // SAFETY: a NULL object means "from the root"; the stat may be NULL; `gfid` has the length that is passed. The
        // object is left to the end of the process.
        unsafe {
            let object = lookup(self.fs, std::ptr::null_mut(), path.as_ptr(), std::ptr::null_mut(), 0);
            if object.is_null() || extract(object, gfid.as_mut_ptr(), 16) != 16 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(gfid)
    }

    /// The size of a file, in bytes.
    ///
    /// # Errors
    /// As the server says.
    pub fn size(&self, path: &str) -> io::Result<u64> {
        let stat: Symbol<unsafe extern "C" fn(Fs, *const c_char, *mut libc::stat) -> c_int> =
            self.symbol(c"glfs_stat")?;
        let path = CString::new(path)?;
        let mut out = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: `out` is a struct stat of the C library, all zeroes is a valid one.
        let out = unsafe {
            check(stat(self.fs, path.as_ptr(), out.as_mut_ptr()))?;
            out.assume_init()
        };
        u64::try_from(out.st_size).map_err(io::Error::other)
    }

    /// The first block of a file.
    ///
    /// # Errors
    /// As the server says.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        type Pread = unsafe extern "C" fn(Fd, *mut c_void, usize, i64, c_int, *mut c_void) -> isize;
        let open: Symbol<unsafe extern "C" fn(Fs, *const c_char, c_int) -> Fd> = self.symbol(c"glfs_open")?;
        let pread: Symbol<Pread> = self.symbol(c"glfs_pread")?;
        let path = CString::new(path)?;
        let mut block = vec![0; BLOCK];
        // SAFETY: the buffer has the length that is passed; the stat may be NULL. The descriptor is left to the end of
        // the process.
        let length = unsafe {
            let fd = open(self.fs, path.as_ptr(), libc::O_RDONLY);
            if fd.is_null() {
                return Err(io::Error::last_os_error());
            }
            pread(fd, block.as_mut_ptr().cast(), BLOCK, 0, 0, std::ptr::null_mut())
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        block.truncate(length);
        Ok(block)
    }

    /// Makes a file of one block; fails when it exists.
    ///
    /// # Errors
    /// As the server says.
    pub fn create(&self, path: &str, block: &[u8; BLOCK]) -> io::Result<()> {
        type Pwrite =
            unsafe extern "C" fn(Fd, *const c_void, usize, i64, c_int, *mut c_void, *mut c_void) -> isize;
        type Creat = unsafe extern "C" fn(Fs, *const c_char, c_int, libc::mode_t) -> Fd;
        let creat: Symbol<Creat> = self.symbol(c"glfs_creat")?;
        let pwrite: Symbol<Pwrite> = self.symbol(c"glfs_pwrite")?;
        let fsync: Symbol<unsafe extern "C" fn(Fd, *mut c_void, *mut c_void) -> c_int> =
            self.symbol(c"glfs_fsync")?;
        let path = CString::new(path)?;
        let null = std::ptr::null_mut();
        // SAFETY: the buffer has the length that is passed; both stats may be NULL.
        unsafe {
            let fd = creat(self.fs, path.as_ptr(), libc::O_RDWR | libc::O_EXCL, 0o666);
            if fd.is_null() {
                return Err(io::Error::last_os_error());
            }
            if pwrite(fd, block.as_ptr().cast(), BLOCK, 0, 0, null, null) != BLOCK as isize {
                return Err(io::Error::last_os_error());
            }
            check(fsync(fd, null, null))
        }
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As the server says.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let unlink: Symbol<unsafe extern "C" fn(Fs, *const c_char) -> c_int> = self.symbol(c"glfs_unlink")?;
        let path = CString::new(path)?;
        // SAFETY: the path outlives the call.
        check(unsafe { unlink(self.fs, path.as_ptr()) })
    }
}

fn symbol<'a, T>(library: &'a Library, name: &CStr) -> Result<Symbol<'a, T>, GfapiError> {
    // SAFETY: each caller gives the type that GlusterFS 6.0 and later declare for this symbol (glfs.h, glfs-handles.h).
    unsafe { library.get(name.to_bytes_with_nul()) }.map_err(GfapiError::Library)
}
