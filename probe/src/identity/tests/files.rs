//! What a data folder holds after each step, and after a crash between two of them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::TempDir;

use crate::identity::test_pki::{TestCa, Wanted, membership, some_probe};
use crate::identity::{DataDir, FilesError, Identity};

const ADDRESS: &str = "127.0.0.1:7401";

fn joined(folder: &TempDir, ca: &TestCa) -> (DataDir, Identity) {
    let dir = DataDir::open(folder.path()).unwrap();
    let identity = ca.enrol(&dir, some_probe(), ADDRESS, &Wanted::probe(some_probe()));
    (dir, identity)
}

fn renewed(dir: &DataDir, ca: &TestCa) -> Identity {
    let key = dir.key_to_renew().unwrap();
    let chain = vec![ca.certify(&key.request().unwrap(), &Wanted::probe(some_probe()))];
    Identity::assemble(membership(some_probe(), ADDRESS), key, chain, vec![ca.der()]).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_folder_without_certificate_has_not_joined() {
    let folder = TempDir::new().unwrap();
    let dir = DataDir::open(&folder.path().join("new/probe")).unwrap();
    assert!(dir.load().unwrap().is_none());
    let first = dir.key_to_join().unwrap().public_key();
    assert!(dir.load().unwrap().is_none());
    assert_eq!(dir.key_to_join().unwrap().public_key(), first, "the key of a lost answer is used again");
    assert_eq!(mode(dir.path()), 0o700);
}

#[test]
fn an_identity_survives_and_nobody_else_can_read_it() {
    let (folder, ca) = (TempDir::new().unwrap(), TestCa::new());
    let (dir, identity) = joined(&folder, &ca);
    let loaded = dir.load().unwrap().unwrap();
    assert_eq!(loaded.membership, identity.membership);
    assert_eq!((&loaded.chain, &loaded.ca), (&identity.chain, &identity.ca));
    assert_eq!(loaded.key.public_key(), identity.key.public_key());
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["ca.pem", "cert.pem", "key.pem", "lock", "state.json"], "nothing is left aside");
    for name in names {
        assert_eq!(mode(&folder.path().join(&name)), 0o600, "{name:?}");
    }
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = TempDir::new().unwrap();
    let held = DataDir::open(folder.path()).unwrap();
    assert!(matches!(DataDir::open(folder.path()), Err(FilesError::Busy(_))));
    drop(held);
    assert!(DataDir::open(folder.path()).is_ok());
}

#[test]
fn a_renewal_changes_key_and_certificate_together() {
    let (folder, ca) = (TempDir::new().unwrap(), TestCa::new());
    let (dir, old) = joined(&folder, &ca);
    let new = renewed(&dir, &ca);
    assert_ne!(new.key.public_key(), old.key.public_key());
    assert_eq!(dir.key_to_renew().unwrap().public_key(), new.key.public_key(), "asking twice takes one key");
    dir.store_renewed(&new).unwrap();
    assert_eq!(dir.load().unwrap().unwrap().chain, new.chain);
    assert_ne!(dir.key_to_renew().unwrap().public_key(), new.key.public_key(), "the next renewal has a key of its own");
}

/// Leaves the folder as a crash during `store_renewed` would, and checks which pair the next start finds.
fn check_crash(leave: impl FnOnce(&Path, &str), is_new: bool) {
    let (folder, ca) = (TempDir::new().unwrap(), TestCa::new());
    let (dir, old) = joined(&folder, &ca);
    let new = renewed(&dir, &ca);
    let scratch = TempDir::new().unwrap();
    let other = DataDir::open(scratch.path()).unwrap();
    fs::copy(folder.path().join("key.next.pem"), scratch.path().join("key.next.pem")).unwrap();
    other.store_renewed(&new).unwrap();
    let certificate = fs::read_to_string(scratch.path().join("cert.pem")).unwrap();
    leave(folder.path(), &certificate);
    let found = dir.load().unwrap().unwrap();
    let expected = if is_new { &new } else { &old };
    assert_eq!(found.chain, expected.chain);
    assert_eq!(found.key.public_key(), expected.key.public_key());
    assert!(!folder.path().join("cert.next.pem").exists());
}

#[test]
fn a_crash_leaves_the_old_pair_or_the_new_one() {
    check_crash(|_, _| {}, false);
    check_crash(|path, certificate| fs::write(path.join("cert.next.pem"), certificate).unwrap(), true);
    let between_the_renames = |path: &Path, certificate: &str| {
        fs::write(path.join("cert.next.pem"), certificate).unwrap();
        fs::rename(path.join("key.next.pem"), path.join("key.pem")).unwrap();
    };
    check_crash(between_the_renames, true);
    let of_a_lost_key = |path: &Path, certificate: &str| {
        fs::write(path.join("cert.next.pem"), certificate).unwrap();
        fs::remove_file(path.join("key.next.pem")).unwrap();
    };
    check_crash(of_a_lost_key, false);
}

#[test]
fn damage_is_named_with_its_file() {
    let check = |harm: &dyn Fn(&Path), words: &[&str]| {
        let (folder, ca) = (TempDir::new().unwrap(), TestCa::new());
        let (dir, _) = joined(&folder, &ca);
        harm(folder.path());
        let error = dir.load().unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    };
    check(&|path| fs::write(path.join("state.json"), "{}").unwrap(), &["data_dir", "state.json", "join again"]);
    check(&|path| fs::write(path.join("key.pem"), "no key").unwrap(), &["key.pem", "join again"]);
    check(&|path| fs::remove_file(path.join("ca.pem")).unwrap(), &["ca.pem", "cannot be read"]);
    check(&|path| fs::write(path.join("cert.pem"), "").unwrap(), &["cert.pem", "no certificate"]);
    check(
        &|path| fs::set_permissions(path.join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap(),
        &["key.pem", "mode 0644", "chmod 600"],
    );
    let other_key = |path: &Path| {
        let key = crate::identity::Key::generate().unwrap();
        fs::write(path.join("key.pem"), key.to_pem()).unwrap();
    };
    check(&other_key, &["belongs to another key"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DataDir::open(&file.join("probe")).unwrap_err().to_string();
    assert!(error.starts_with("data_dir: `") && error.contains("cannot be used"), "{error}");
}
