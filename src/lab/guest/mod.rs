//! Makes the heartbeat guest: Debian's cloud kernel, and an initramfs whose only program is `init.c`.
//!
//! `/dev/vda` and `eth0` are virtio devices, which that kernel has as modules: the ones needed, with their dependencies
//! as the modules themselves name them, go into the initramfs in the order in which they must be loaded.

mod cpio;

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{LabError, process, process::word, state};
use crate::model::Command;

/// The guest's program in C.
pub(super) const PROGRAM: &str = include_str!("init.c");

/// The devices that the guest uses, as modules; `button` is the power button.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_net", "button"];

/// Builds the guest from an unpacked kernel package into `target`: `vmlinuz` and `initrd.gz`.
///
/// # Errors
/// [`LabError::Guest`] when the kernel lacks something, [`LabError::Command`] when gcc or another tool fails.
pub(super) fn build(kernel: &Path, workshop: &Path, root: &Path, target: &Path) -> Result<(), LabError> {
    let modules = Modules::of(kernel, root)?.closure(&MODULES)?;
    let program = compile(workshop)?;
    state::make_directory(target, 0o755)?;
    let initrd = target.join("initrd");
    state::write(&initrd, initramfs(&program, &modules), 0o644)?;
    process::run(&Command::new("gzip").args(["-9", "--no-name", "--force", &word(&initrd)]))?;
    let image = find(&kernel.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    fs::copy(&image, target.join("vmlinuz"))
        .map(drop)
        .map_err(LabError::system(format!("copy {}", image.display())))
}

fn compile(workshop: &Path) -> Result<Vec<u8>, LabError> {
    let [source, program] = ["init.c", "init"].map(|name| workshop.join(name));
    state::write(&source, PROGRAM, 0o644)?;
    process::run(&Command::new("gcc").args(["-O2", "-static", "-s", "-o", &word(&program), &word(&source)]))?;
    fs::read(&program).map_err(LabError::system(format!("read {}", program.display())))
}

/// The archive that the kernel unpacks as the guest's file system.
fn initramfs(program: &[u8], modules: &[Module]) -> Vec<u8> {
    let mut archive = cpio::Archive::new();
    archive.directory("dev");
    archive.character_device("dev/console", (5, 1));
    archive.file("init", program);
    let mut list = String::new();
    for module in modules {
        let name = format!("{}.ko", module.name);
        archive.file(&name, &module.content);
        list += &format!("/{name}\n");
    }
    archive.file("modules", list.as_bytes());
    archive.finish()
}

/// One kernel module, decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    name: String,
    content: Vec<u8>,
}

/// The modules of an unpacked kernel.
struct Modules {
    /// Module files by the name under which the kernel knows them.
    files: Vec<(String, PathBuf)>,
    /// Names of modules that the kernel has built in.
    built_in: Vec<String>,
    root: PathBuf,
}

impl Modules {
    fn of(kernel: &Path, root: &Path) -> Result<Self, LabError> {
        let versions = ["usr/lib/modules", "lib/modules"].map(|path| kernel.join(path));
        let versions = versions
            .iter()
            .find(|path| path.is_dir())
            .ok_or_else(|| LabError::Guest { reason: "the kernel package has no modules".into() })?;
        let directory = find(versions, |_| true)?;
        let built_in = directory.join("modules.builtin");
        let built_in = fs::read_to_string(&built_in)
            .map_err(LabError::system(format!("read {}", built_in.display())))?;
        let mut files = Vec::new();
        collect(&directory.join("kernel"), &mut files)?;
        files.sort();
        let built_in = built_in.lines().filter_map(|line| module_name(Path::new(line))).collect();
        Ok(Self { files, built_in, root: root.into() })
    }

    /// The wanted modules with everything that they depend on, each after its dependencies.
    fn closure(&self, wanted: &[&str]) -> Result<Vec<Module>, LabError> {
        let mut loaded = Vec::new();
        for name in wanted {
            self.load(name, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn load(&self, name: &str, loaded: &mut Vec<Module>) -> Result<(), LabError> {
        if loaded.iter().any(|module| module.name == name)
            || self.built_in.iter().any(|module| module == name)
        {
            return Ok(());
        }
        let (_, file) = self
            .files
            .iter()
            .find(|(module, _)| module == name)
            .ok_or_else(|| LabError::Guest { reason: format!("the kernel has no module {name}") })?;
        let content = self.read(name, file)?;
        for dependency in dependencies(&content) {
            self.load(&dependency, loaded)?;
        }
        loaded.push(Module { name: name.into(), content });
        Ok(())
    }

    /// Reads a module file, decompressed by the root's own xz.
    fn read(&self, name: &str, file: &Path) -> Result<Vec<u8>, LabError> {
        let action = || format!("read kernel module {name}");
        if file.extension().is_none_or(|suffix| suffix != "xz") {
            return fs::read(file).map_err(LabError::system(action()));
        }
        let inside = self.root.join("tmp").join(format!("{name}.ko"));
        fs::copy(file, inside.with_extension("ko.xz")).map_err(LabError::system(action()))?;
        let path = format!("/tmp/{name}.ko.xz");
        process::run(&Command::new("chroot").args([
            &word(&self.root),
            "xz",
            "--decompress",
            "--force",
            &path,
        ]))?;
        let content = fs::read(&inside).map_err(LabError::system(action()))?;
        state::remove(&inside)?;
        Ok(content)
    }
}

/// The modules that a module names as its dependencies, in its `.modinfo` section (a list of `key=value`, each ended
/// by a zero byte; kernel: include/linux/moduleparam.h, scripts/mod/modpost.c).
fn dependencies(module: &[u8]) -> Vec<String> {
    let value = module.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The name under which the kernel knows the module in a file: with `_` for each `-`.
fn module_name(file: &Path) -> Option<String> {
    let (name, suffix) = file.file_name()?.to_str()?.split_once('.')?;
    (suffix == "ko" || suffix == "ko.xz").then(|| name.replace('-', "_"))
}

fn collect(directory: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<(), LabError> {
    for name in state::directory_names(directory)? {
        let path = directory.join(name);
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.push((name, path));
        }
    }
    Ok(())
}

fn find(directory: &Path, matches: impl Fn(&str) -> bool) -> Result<PathBuf, LabError> {
    let names = state::directory_names(directory)?;
    let name = names.iter().find(|name| matches(name)).ok_or_else(|| LabError::Guest {
        reason: format!("{} lacks what the guest needs", directory.display()),
    })?;
    Ok(directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_are_read_from_file_names() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("kernel/drivers/net/net_failover.ko.xz").unwrap(), "net_failover");
        assert_eq!(name("kernel/drivers/iommu/virtio-iommu.ko").unwrap(), "virtio_iommu");
        assert_eq!(name("modules.builtin"), None);
    }

    #[test]
    fn dependencies_are_read_from_a_module() {
        assert_eq!(
            dependencies(b"\x7fELF\0license=GPL\0depends=virtio,virtio_ring\0x"),
            ["virtio", "virtio_ring"]
        );
        assert!(dependencies(b"\x7fELF\0license=GPL\0depends=\0x").is_empty());
        assert!(dependencies(b"\x7fELF\0").is_empty());
    }

    #[test]
    fn every_module_comes_after_its_dependencies() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, depends: &str| {
            let path = directory.path().join(format!("{name}.ko"));
            fs::write(&path, format!("ELF\0depends={depends}\0")).unwrap();
            (name.to_owned(), path)
        };
        let modules = Modules {
            files: vec![write("a", "b,c"), write("b", "c,built"), write("c", ""), write("unused", "")],
            built_in: vec!["built".into()],
            root: directory.path().into(),
        };
        let names: Vec<_> =
            modules.closure(&["a", "b"]).unwrap().into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["c", "b", "a"]);
        assert!(matches!(modules.closure(&["missing"]), Err(LabError::Guest { .. })));
    }
}
