//! Disks that are full, folders that may not be written to, and things in the way.
#![cfg(unix)]

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sentence_burn::error::{Error, RepoError};
use sentence_burn::training::Checkpoint;

use crate::run_files::{cut_off, trainer};
use crate::{Model, alone, copy, copy_of, fixture, load, values};

const TEXTS: [&str; 2] = ["the quick brown fox", "a lazy dog"];

/// What a process of its own does, where, and with the model of which folder.
const DOES: &str = "SENTENCE_BURN_TEST_DOES";
const FOLDER: &str = "SENTENCE_BURN_TEST_FOLDER";
const MODEL: &str = "SENTENCE_BURN_TEST_MODEL";
const NAME: &str = "faults::the_process_that_meets_a_fault";

#[test]
fn the_process_that_meets_a_fault() {
    let Some(does) = env::var_os(DOES) else {
        return;
    };
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let error = match does.to_str().unwrap() {
        "save" => {
            let model = load(Path::new(&env::var_os(MODEL).unwrap())).unwrap();
            model.save(&folder).unwrap_err()
        }
        "train" => match trainer(&folder).resume() {
            Err(error) => error,
            Ok(_) => panic!("it went on"),
        },
        other => panic!("{other}"),
    };
    let message = error.to_string();
    assert!(message.contains(folder.to_str().unwrap()), "{message}");
    // Read by the one who started this process.
    eprintln!("said: {message}");
}

/// The command that runs this very program's test in a process of its own.
fn process(program: &Path, does: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", NAME, "--nocapture"])
        .env(DOES, does)
        .env(FOLDER, folder)
        .env(MODEL, fixture("tiny_bert/dense"));
    command
}

/// What the process said of its fault.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = text.lines().find_map(|line| line.strip_prefix("said: "));
    assert!(output.status.success() && said.is_some(), "{text}");
    said.unwrap_or_default().to_owned()
}

/// Runs the process where no file can grow beyond so many blocks.
fn said_with_a_full_disk(does: &str, folder: &Path, blocks: usize) -> String {
    let program = env::current_exe().unwrap();
    // Without the signal, writing fails as it does where a disk is full.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(script)
        .arg(&program)
        .args(["--exact", NAME, "--nocapture"])
        .env(DOES, does)
        .env(FOLDER, folder)
        .env(MODEL, fixture("tiny_bert/dense"));
    said(&mut shell)
}

fn embed(folder: &Path) -> Vec<f32> {
    values(&load(folder).unwrap(), &TEXTS)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_save_onto_a_full_disk_leaves_the_old_model() {
    let _alone = alone();
    let folder = copy_of("tiny_bert/v6");
    let (before, files) = (embed(folder.path()), names(folder.path()));
    assert_ne!(before, embed(&fixture("tiny_bert/dense")));
    let mut said = Vec::new();
    for blocks in [0, 1, 2, 4, 8, 16, 24, 32] {
        said.push(said_with_a_full_disk("save", folder.path(), blocks));
        assert_eq!(embed(folder.path()), before, "{blocks}");
        assert_eq!(names(folder.path()), files, "{blocks}");
    }
    said.sort();
    said.dedup();
    println!("{said:#?}");
    load(&fixture("tiny_bert/dense"))
        .unwrap()
        .save(folder.path())
        .unwrap();
    assert_eq!(embed(folder.path()), embed(&fixture("tiny_bert/dense")));
}

#[test]
fn a_run_that_meets_a_full_disk_goes_on_where_there_is_room_again() {
    let _alone = alone();
    let whole = tempfile::tempdir().unwrap();
    let adapter = |dir: &Path| {
        let trained = trainer(dir).resume().unwrap();
        let tensors = trained.model.get_adapter_state_dict(None).unwrap();
        let values = tensors.iter().flat_map(|(_, data)| data.iter::<f32>());
        values.collect::<Vec<f32>>()
    };
    let expected = adapter(whole.path());
    let begun = cut_off();
    for blocks in [0, 1, 2, 4, 8] {
        let folder = tempfile::tempdir().unwrap();
        copy(begun.path(), folder.path());
        said_with_a_full_disk("train", folder.path(), blocks);
        let last = Checkpoint::last_in(folder.path()).unwrap().unwrap();
        assert_eq!(last.state().record.step, 2, "{blocks}");
        assert_eq!(adapter(folder.path()), expected, "{blocks}");
    }
}

#[test]
fn a_folder_that_may_not_be_written_to_is_named_and_stays_as_it_is() {
    let _alone = alone();
    let room = tempfile::tempdir().unwrap();
    let everybody = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    everybody(room.path(), 0o755);
    // Nobody may not be able to reach where this program and the fixtures lie.
    let program = room.path().join("program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    everybody(&program, 0o755);
    let (folder, model) = (room.path().join("folder"), room.path().join("model"));
    copy(&fixture("tiny_bert/v6"), &folder);
    copy(&fixture("tiny_bert/dense"), &model);
    let before = embed(&folder);
    everybody(&folder, 0o555);
    let mut command = process(&program, "save", &folder);
    command.env(MODEL, &model).current_dir(room.path());
    // Root may write anywhere: nobody may not.
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        command.uid(65534).gid(65534);
    }
    let message = said(&mut command);
    assert!(message.contains("ermission denied"), "{message}");
    assert_eq!(embed(&folder), before);
    everybody(&folder, 0o755);
}

#[test]
fn a_folder_in_the_place_of_any_file_is_named_and_the_others_stay_as_they_are() {
    let _alone = alone();
    let model = load(&fixture("tiny_bert/dense")).unwrap();
    let saved = tempfile::tempdir().unwrap();
    model.save(saved.path()).unwrap();
    for name in names(saved.path()) {
        if saved.path().join(&name).is_dir() {
            continue;
        }
        let folder = copy_of("tiny_bert/v6");
        let path = folder.path().join(&name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "kept").unwrap();
        let before: Vec<_> = names(folder.path());
        let content = |name: &String| fs::read(folder.path().join(name)).ok();
        let contents: Vec<_> = before.iter().map(content).collect();
        let error = model.save(folder.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Repo(RepoError::Io { path: named, .. }) if *named == path)
                || matches!(&error, Error::Repo(RepoError::Occupied { .. })),
            "{name}: {error}"
        );
        let after: Vec<_> = names(folder.path());
        let new: Vec<_> = after.iter().filter(|name| !before.contains(name)).collect();
        // Folders of modules may be there already, with nothing in them.
        assert!(
            new.iter()
                .all(|name| names(&folder.path().join(name)).is_empty()),
            "{new:?}"
        );
        assert_eq!(before.iter().map(content).collect::<Vec<_>>(), contents);
    }
}

#[test]
fn where_there_can_be_no_folder_nothing_is_saved_or_loaded() {
    let _alone = alone();
    let model = load(&fixture("tiny_bert/v6")).unwrap();
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("file");
    fs::write(&file, "kept").unwrap();
    for place in [
        file.join("model"),
        file.clone(),
        PathBuf::from("/dev/full/model"),
    ] {
        let error = model.save(&place).unwrap_err();
        assert!(
            matches!(&error, Error::Repo(RepoError::Io { .. })),
            "{error}"
        );
        assert!(Model::load(&place, &Default::default()).is_err());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}
