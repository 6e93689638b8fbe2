//! The command line as a user meets it: output, exit codes, bytes in and out.
//!
//! Without these the binary could print a value with a stray newline, create a store for a `get`, or
//! lose a byte between `dump` and `load`, and no engine test would notice.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics; the lint only knows `#[test]` functions"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin_cmd;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A store's directory that vanishes with the test; nothing is in it yet.
struct Store(TempDir);

impl Store {
    fn new() -> Store {
        Store(tempfile::tempdir().unwrap())
    }

    fn with(records: &[(&str, &str)]) -> Store {
        let store = Store::new();
        let lines = records.iter().map(|(key, value)| format!("{key}\t{value}\n"));
        store.pipe(&["load", "-", "--format", "tsv"], lines.collect::<String>()).done();
        store
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.pipe(args, "")
    }

    /// Runs the command with `stdin`.
    fn pipe(&self, args: &[&str], stdin: impl Into<Vec<u8>>) -> Ran {
        let mut command = cargo_bin_cmd!("ringcask");
        command
            .env_remove("RINGCASK_DIR")
            .env_remove("RINGCASK_LOG")
            .env_remove("RINGCASK_KEY_FILE");
        command.arg("--dir").arg(self.path().join("store"));
        Ran(command.args(args).write_stdin(stdin).output().unwrap())
    }

    fn exists(&self) -> bool {
        self.path().join("store").exists()
    }

    fn data_files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for dir in std::fs::read_dir(self.path().join("store")).unwrap() {
            let Ok(inner) = std::fs::read_dir(dir.unwrap().path()) else { continue };
            let paths = inner.map(|entry| entry.unwrap().path());
            files.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "data")));
        }
        files.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    /// A file beside the store.
    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A command that has ended.
struct Ran(Output);

impl Ran {
    #[track_caller]
    fn done(self) -> String {
        String::from_utf8(self.done_bytes()).unwrap()
    }

    #[track_caller]
    fn done_bytes(self) -> Vec<u8> {
        assert_eq!(self.0.status.code(), Some(0), "{}", self.stderr());
        assert_eq!(self.stderr(), "");
        self.0.stdout
    }

    #[track_caller]
    fn done_json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// Ends with `code` and one sentence that contains `sentence`.
    #[track_caller]
    fn fails(self, code: i32, sentence: &str) -> String {
        let stderr = self.stderr();
        assert_eq!(self.0.status.code(), Some(code), "{stderr}");
        assert!(stderr.starts_with("ringcask: "), "{stderr}");
        assert!(stderr.contains(sentence), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        String::from_utf8(self.0.stdout).unwrap()
    }

    /// Refused by the parser of arguments.
    #[track_caller]
    fn refused(self, sentence: &str) {
        assert_eq!(self.0.status.code(), Some(2), "{}", self.stderr());
        assert!(self.stderr().contains(sentence), "{}", self.stderr());
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

#[test]
fn put_get_exists_del() {
    let store = Store::new();
    assert_eq!(store.run(&["put", "user:1", "Ada"]).done(), "");
    assert_eq!(store.run(&["get", "user:1"]).done(), "Ada", "no newline unless on a terminal");
    assert_eq!(store.run(&["exists", "user:1"]).done(), "true\n");
    assert_eq!(store.run(&["del", "user:1"]).done(), "deleted 1 of 1\n");
    assert_eq!(store.run(&["get", "user:1"]).fails(1, "user:1: no such key"), "");
    assert_eq!(store.run(&["exists", "user:1"]).0.status.code(), Some(1));
}

#[test]
fn a_deletion_of_a_missing_key_deletes_the_others_and_ends_with_1() {
    let store = Store::with(&[("a", "1"), ("c", "3")]);
    let ran = store.run(&["del", "a", "b", "c"]);
    assert_eq!(ran.0.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&ran.0.stdout), "deleted 2 of 3\n");
    assert_eq!(store.run(&["count"]).done(), "0\n");
}

#[test]
fn a_value_that_looks_like_an_option_is_a_value() {
    let store = Store::new();
    store.run(&["put", "balance", "-12"]).done();
    assert_eq!(store.run(&["get", "balance"]).done(), "-12");
}

#[test]
fn values_are_any_bytes_in_and_out() {
    let store = Store::new();
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    store.pipe(&["put", "all", "-"], value.clone()).done();
    assert_eq!(store.run(&["get", "all"]).done_bytes(), value);
    store.pipe(&["put", "none", "-"], "").done();
    assert_eq!(store.run(&["get", "none"]).done_bytes(), b"");
}

#[test]
fn json_output_is_parsed_by_others() {
    let store = Store::new();
    assert_eq!(store.run(&["--json", "put", "k", "v"]).done_json(), json!({ "put": 1 }));
    assert_eq!(store.run(&["get", "k", "--json"]).done_json(), json!({ "key": "k", "value": "v" }));
    store.pipe(&["put", "bytes", "-"], [0xff, 0x00]).done();
    assert_eq!(
        store.run(&["--json", "get", "bytes"]).done_json(),
        json!({ "key": "bytes", "value": { "base64": "/wA=" } })
    );
    let missing = store.run(&["--json", "get", "none"]).fails(1, "no such key");
    let missing: Value = serde_json::from_str(&missing).unwrap();
    assert_eq!(missing, json!({ "key": "none", "value": null }));
    assert_eq!(store.run(&["--json", "exists", "k"]).done_json(), json!({ "exists": true }));
    assert_eq!(store.run(&["--json", "count"]).done_json(), json!({ "count": 2 }));
    assert_eq!(
        store.run(&["--json", "del", "k"]).done_json(),
        json!({ "deleted": 1, "missing": 0 })
    );
    let stats = store.run(&["--json", "stats"]).done_json();
    assert_eq!(stats["total"]["keys"], 1);
    assert!(stats["total"]["log_bytes"].as_u64().unwrap() > 0);
    assert_eq!(stats["partitions"].as_array().unwrap().len(), stats_partitions(&store));
}

fn stats_partitions(store: &Store) -> usize {
    let entries = std::fs::read_dir(store.path().join("store")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
}

#[test]
fn scan_filters_orders_and_limits() {
    let store = Store::with(&[("a", "1"), ("b1", "2"), ("b2", "3"), ("c", "4")]);
    let scan = |args: &[&str]| store.run(&[&["scan"], args].concat()).done();
    assert_eq!(scan(&[]), "a\t1\nb1\t2\nb2\t3\nc\t4\n");
    assert_eq!(scan(&["--prefix", "b"]), "b1\t2\nb2\t3\n");
    assert_eq!(scan(&["--from", "b1", "--to", "c"]), "b1\t2\nb2\t3\n", "the end is left out");
    assert_eq!(scan(&["--reverse", "--limit", "2", "--keys-only"]), "c\nb2\n");
    assert_eq!(
        scan(&["--prefix", "b", "--limit", "1", "--json"]),
        "{\"key\":\"b1\",\"value\":\"2\"}\n"
    );
    assert_eq!(scan(&["--keys-only", "--to", "b", "--json"]), "{\"key\":\"a\"}\n");
    assert_eq!(store.run(&["count", "--prefix", "b"]).done(), "2\n");
    assert_eq!(store.run(&["count"]).done(), "4\n");
}

/// Breaks if what is printed as the next cursor is not what the next page takes.
#[test]
fn scan_goes_on_where_a_page_ended() {
    let store = Store::with(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]);
    let page = |cursor: &str| {
        let ran = store.run(&["scan", "--keys-only", "--limit", "2", "--cursor", cursor]);
        let printed = String::from_utf8_lossy(&ran.0.stdout).into_owned();
        let next = ran.stderr().strip_prefix("next: ").map(|next| next.trim().to_owned());
        (printed, next)
    };
    let (first, next) = page("start");
    assert_eq!(first, "a\nb\n");
    let (second, next) = page(&next.unwrap());
    assert_eq!(second, "c\nd\n");
    let next = next.unwrap();
    assert_eq!(page(&next), ("e\n".to_owned(), None));
    assert_eq!(
        store.run(&["--json", "scan", "--cursor", &next]).done(),
        "{\"key\":\"e\",\"value\":\"5\"}\n{\"next\":null}\n"
    );
    let reverse = store.run(&["scan", "--reverse", "--limit", "1", "--cursor", &next, "--json"]);
    assert!(reverse.done().starts_with("{\"key\":\"c\",\"value\":\"3\"}\n{\"next\":\"01"));
    store.run(&["scan", "--cursor", "0123"]).refused("this is no cursor of a scan");
}

#[test]
fn stats_are_readable() {
    let store = Store::with(&[("a", "1"), ("b", "2")]);
    let stats = store.run(&["stats"]).done();
    let keys = stats.lines().find(|line| line.starts_with("keys ")).unwrap();
    assert_eq!(keys.split_whitespace().last(), Some("2"));
}

/// A store of one record a partition file at least, and one of its data files.
#[test]
fn compact_gives_back_what_was_overwritten() {
    let store = Store::new();
    for round in 0..5 {
        store.run(&["put", "k", &round.to_string()]).done();
    }
    let text = store.run(&["compact"]).done();
    assert!(text.contains("4 records dropped"), "{text}");
    assert_eq!(store.run(&["compact"]).done(), "nothing to give back\n");
    assert_eq!(store.run(&["--json", "compact"]).done_json()["files_removed"], json!(0));
    assert_eq!(store.run(&["get", "k"]).done(), "4");
    store.run(&["sync"]).done();
}

fn store_with_file() -> (Store, std::path::PathBuf) {
    let store = Store::with(&[("apple", "red"), ("banana", "yellow"), ("cherry pie", "dark")]);
    let file = |partition: &str| {
        let path = store.path().join("store").join(partition).join("000000001.data");
        path.exists().then_some(path)
    };
    let path = (0..4096).find_map(|n| file(&format!("partition-{n:03}"))).unwrap();
    (store, path)
}

/// Flips the first byte of the first record's value, and returns its key.
fn damage(path: &Path) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    for (key, value) in [("apple", "red"), ("banana", "yellow"), ("cherry pie", "dark")] {
        let record = format!("{key}{value}");
        let found = bytes.windows(record.len()).position(|window| window == record.as_bytes());
        if let Some(at) = found {
            bytes[at + key.len()] ^= 0x20;
            std::fs::write(path, bytes).unwrap();
            return key.to_owned();
        }
    }
    panic!("no record in {}", path.display());
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn verify_tells_by_its_exit_code() {
    let (store, path) = store_with_file();
    let sound = store.run(&["verify"]).done();
    assert!(sound.starts_with("read ") && sound.contains(": 3 records are sound"), "{sound}");
    assert_eq!(sound.lines().count(), 1);
    let summary = store.run(&["--json", "verify"]).done_json();
    assert_eq!((&summary["sound"], &summary["records"]), (&json!(true), &json!(3)));

    // A hint is made anew by the next open: told, and no reason for another exit code.
    let hint = path.with_extension("hint");
    let hint_bytes = std::fs::read(&hint).unwrap();
    std::fs::write(&hint, b"").unwrap();
    let text = store.run(&["verify"]).done();
    assert!(text.contains("000000001.hint: a hint, will be made anew: "), "{text}");
    let found = json_lines(&store.run(&["--json", "verify"]).done());
    assert_eq!((&found[0]["finding"], &found[1]["hints_ignored"]), (&json!("hint"), &json!(1)));
    assert_eq!(found[1]["sound"], json!(true));
    std::fs::write(&hint, hint_bytes).unwrap();

    let key = damage(&path);
    let bytes = std::fs::read(&path).unwrap();
    let found = store.run(&["verify"]).fails(1, "damaged in one place; `ringcask repair`");
    let line = found.lines().next().unwrap();
    assert!(line.contains("000000001.data: damaged at offset "), "{line}");
    assert!(line.contains("record body checksum mismatch"), "{line}");
    assert!(line.contains(&format!("probably key \"{key}\"")), "{line}");
    let found = json_lines(&store.run(&["--json", "verify"]).fails(1, "damaged"));
    assert_eq!(found[0]["finding"], "damage");
    assert_eq!(found[0]["probable_key"], json!(key));
    assert_eq!((&found[1]["sound"], &found[1]["records"]), (&json!(false), &json!(2)));
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was changed");
}

#[test]
fn repair_makes_a_store_usable_and_says_what_it_did() {
    let (store, path) = store_with_file();
    let text = store.run(&["repair"]).done();
    assert!(text.starts_with("nothing to repair, nothing was changed\n"), "{text}");
    let key = damage(&path);
    let bytes = std::fs::read(&path).unwrap();
    // The hint names it, and its value is damaged.
    assert_eq!(store.run(&["count"]).done(), "3\n");
    let refused = store.run(&["get", &key]);
    assert_eq!(refused.0.status.code(), Some(1));
    assert!(refused.stderr().contains("damaged at offset"), "{}", refused.stderr());
    let text = store.run(&["repair"]).done();
    for part in
        ["probably key", "000000001.data.damaged: the damaged original", "1 are known to be lost"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(store.run(&["count"]).done(), "2\n");
    assert_eq!(store.run(&["get", &key]).fails(1, "no such key"), "");
    store.run(&["verify"]).done();
    assert_eq!(std::fs::read(path.with_extension("data.damaged")).unwrap(), bytes);
    let report = json_lines(&store.run(&["--json", "repair"]).done());
    assert_eq!((report.len(), &report[0]["changed"]), (1, &json!(false)));
}

#[test]
fn an_open_store_is_neither_verified_nor_repaired() {
    let (store, path) = store_with_file();
    let db = futures::executor::block_on(ringcask::Db::open(store.path().join("store"))).unwrap();
    for command in ["verify", "repair"] {
        store.run(&[command]).fails(1, "open in another instance");
    }
    // One file of it may be looked at all the same.
    let text = store.run(&["inspect", path.to_str().unwrap()]).done();
    assert!(text.starts_with("data file\n"), "{text}");
    futures::executor::block_on(db.close()).unwrap();
}

#[test]
fn a_backup_is_made_again_and_restored() {
    let (store, back) = (Store::with(&[("a", "1"), ("b", "2")]), Store::new());
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("backup").display().to_string();
    let text = store.run(&["backup", &to]).done();
    assert!(text.contains("linked"), "{text}");
    store.run(&["put", "a", "3"]).done();
    let again = store.run(&["--json", "backup", &to]).done_json();
    assert_eq!(again["incremental"], true);
    assert!(again["files_kept"].as_u64().unwrap() > 0, "{again}");
    store.run(&["put", "a", "4"]).done();
    let text = back.run(&["restore", &to, "--verify"]).done();
    assert!(text.contains("records are sound") && text.contains("linked"), "{text}");
    assert_eq!(back.run(&["get", "a"]).done(), "3");
    assert_eq!(back.run(&["get", "b"]).done(), "2");
    back.run(&["restore", &to]).fails(1, "it holds a store");
    store.run(&["backup", &store.path().display().to_string()]).fails(1, "inside of it");
    let other = Store::with(&[("a", "1")]);
    other.run(&["backup", &to]).fails(1, "it holds a backup of another store");

    let files = std::fs::read_dir(dir.path().join("backup/partition-000")).unwrap();
    let data = files
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "data"));
    let Some(data) = data else { return };
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[140] ^= 1;
    std::fs::remove_file(&data).unwrap();
    std::fs::write(&data, bytes).unwrap();
    let nowhere = Store::new();
    nowhere.run(&["restore", &to, "--verify"]).fails(1, "damaged");
    assert!(!nowhere.exists());
}

#[test]
fn inspect_prints_every_structure_of_a_file() {
    let (store, path) = store_with_file();
    let directory = path.parent().unwrap();
    let inspect = |path: &Path, args: &[&str]| {
        store.run(&[&["inspect", path.to_str().unwrap()], args].concat())
    };
    let text = inspect(&path, &[]).done();
    for part in [
        "data file",
        "  file               1\n",
        "       128  group 1: ",
        "    put ",
        "closing mark: digest ",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let lines = json_lines(&inspect(&path, &["--json"]).done());
    let whats: Vec<&str> = lines.iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert_eq!(whats[..3], ["data file", "group", "record"]);
    assert_eq!(whats.last(), Some(&"closing mark"));
    let records = whats.iter().filter(|what| **what == "record").count() as u64;
    let limited = json_lines(&inspect(&path, &["--json", "--limit", "1"]).done());
    assert_eq!(limited[..], lines[..3]);

    let hint = path.with_extension("hint");
    let text = inspect(&hint, &[]).done();
    for part in
        ["hint file", "       128  block: ", "    put ", "\", ", "  index: 1 blocks", "trailer"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let entries = json_lines(&inspect(&hint, &["--json"]).done());
    let of_entries = entries.iter().filter(|line| line["what"] == "entry");
    for entry in of_entries.clone() {
        let record = lines.iter().find(|line| line["offset"] == entry["record_offset"]).unwrap();
        for field in ["seqno", "key", "kind"] {
            assert_eq!(entry[field], record[field]);
        }
        assert_eq!(entry["record_len"], record["len"]);
    }
    assert_eq!(of_entries.count() as u64, records);
    let trailer = entries.last().unwrap();
    assert_eq!(trailer["digest"], lines.last().unwrap()["digest"]);
    let limited = json_lines(&inspect(&hint, &["--json", "--limit", "1"]).done());
    assert_eq!(limited[..], entries[..3]);
    // Damage in each of its parts is told with its place, and ends nothing but what needs it.
    let sound = std::fs::read(&hint).unwrap();
    for what in ["block", "index", "filter", "trailer"] {
        let part = entries.iter().find(|line| line["what"] == what).unwrap();
        let offset = part["offset"].as_u64().unwrap();
        let mut bytes = sound.clone();
        bytes[offset as usize + 20] ^= 1;
        std::fs::write(&hint, &bytes).unwrap();
        let found = inspect(&hint, &["--json"]);
        assert_eq!(found.0.status.code(), Some(1));
        let found = json_lines(&String::from_utf8(found.0.stdout).unwrap());
        let damage = found.iter().find(|line| line["what"] == "damage").unwrap();
        assert!(damage["offset"].as_u64().unwrap() >= offset, "{damage}");
        assert_eq!(found[0], entries[0]);
        if what != "trailer" {
            assert_eq!(found.last(), entries.last(), "{what}");
        }
    }
    std::fs::write(&hint, &sound).unwrap();

    let list = json_lines(&inspect(&directory.join("FILES"), &["--json"]).done());
    assert_eq!((&list[0]["what"], &list[0]["sealed"]), (&json!("list of files"), &json!(1)));
    assert_eq!((&list[1]["file"], &list[1]["records"]), (&json!(1), &json!(records)));
    assert_eq!(list[1]["digest"], lines.last().unwrap()["digest"]);
    let manifest = inspect(&store.path().join("store/MANIFEST"), &["--json"]).done_json();
    assert_eq!(manifest["store"], lines[0]["store"]);
    assert_eq!(manifest["hash_key"], lines[0]["hash_key"]);

    // Damage is a line among the others.
    let key = damage(&path);
    let found = inspect(&path, &["--json"]);
    assert_eq!(found.0.status.code(), Some(1));
    let found = json_lines(&String::from_utf8(found.0.stdout).unwrap());
    assert_eq!(found.len(), lines.len());
    let damage = found.iter().find(|line| line["what"] == "damage").unwrap();
    assert_eq!(damage["probable_key"], json!(key));
    assert_eq!(found.last(), lines.last(), "it goes on behind it");

    let letter = store.file("letter.txt", "Dear Ada");
    inspect(Path::new(&letter), &[]).fails(1, "like no file of a Ringcask store");
    inspect(Path::new("/nowhere"), &[]).fails(1, "/nowhere");
    for (name, offset) in [("FILES", 20), ("FILES", 0), ("MANIFEST", 30), ("MANIFEST", 0)] {
        let from = if name == "FILES" { directory } else { directory.parent().unwrap() };
        let mut bytes = std::fs::read(from.join(name)).unwrap();
        bytes[offset] ^= 1;
        std::fs::write(from.join(name), &bytes).unwrap();
        inspect(&from.join(name), &[]).fails(1, name);
        bytes[offset] ^= 1;
        std::fs::write(from.join(name), &bytes).unwrap();
    }
}

#[test]
fn commands_that_look_create_nothing() {
    let store = Store::new();
    let commands: [&[&str]; 12] = [
        &["repartition", "3"],
        &["ttl", "k"],
        &["keyspaces"],
        &["verify"],
        &["repair"],
        &["get", "k"],
        &["exists", "k"],
        &["del", "k"],
        &["scan"],
        &["count"],
        &["stats"],
        &["dump"],
    ];
    for command in commands {
        store.run(command).fails(1, "there is no store");
        assert!(!store.exists(), "{command:?}");
    }
}

#[test]
fn arguments_that_make_no_sense_end_with_2() {
    let store = Store::new();
    store.run(&[]).refused("Usage");
    store.run(&["frobnicate"]).refused("frobnicate");
    store.run(&["put", "k"]).refused("VALUE");
    store.run(&["del"]).refused("KEY");
    store.run(&["scan", "--limit", "many"]).refused("--limit");
    store.run(&["--value-len-max", "18446744073709551615", "count"]).refused("--value-len-max");
    store.run(&["bench", "--reads", "101"]).refused("--reads");
    store.run(&["repartition", "0"]).refused("4096");
    store.run(&["bench", "--seconds", "1", "--operations", "1"]).refused("--operations");
    let mut command = cargo_bin_cmd!("ringcask");
    let ran = Ran(command.env_remove("RINGCASK_DIR").args(["get", "k"]).output().unwrap());
    ran.fails(2, "--dir");
    assert!(!store.exists());
}

#[test]
fn the_store_may_be_named_by_the_environment() {
    let store = Store::with(&[("k", "v")]);
    let mut command = cargo_bin_cmd!("ringcask");
    let ran = command.env("RINGCASK_DIR", store.path().join("store")).args(["get", "k"]).output();
    assert_eq!(Ran(ran.unwrap()).done(), "v");
}

#[test]
fn help_tells_the_formats_and_exit_codes() {
    let help = Store::new().run(&["--help"]).done();
    for part in ["base64", "tsv", "0 done, 1 failed or not found, 2 usage", "RINGCASK_LOG"] {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn the_engine_refuses_and_the_sentence_arrives() {
    let store = Store::new();
    store.run(&["put", "", "v"]).fails(1, "the key is empty");
    store.pipe(&["--value-len-max", "3", "put", "k", "-"], "1234").fails(1, "--value-len-max");
    store.run(&["--value-len-max", "3", "put", "k", "1234"]).fails(1, "value_len_max is 3");
    std::fs::create_dir_all(store.path().join("other")).unwrap();
    let foreign = store.file("other/letter.txt", "Dear Ada");
    let other = store.path().join("other");
    let ran = store.run(&["--dir", other.to_str().unwrap(), "put", "k", "v"]);
    // Twice `--dir` is a mistake, not a choice.
    ran.refused("--dir");
    let mut command = cargo_bin_cmd!("ringcask");
    let ran = command.arg("--dir").arg(&other).args(["put", "k", "v"]).output().unwrap();
    Ran(ran).fails(1, "not a Ringcask store");
    assert_eq!(std::fs::read(foreign).unwrap(), b"Dear Ada");
}

#[test]
fn plain_system_calls_read_what_the_ring_wrote() {
    let store = Store::with(&[("k", "v")]);
    assert_eq!(store.run(&["--io", "blocking", "get", "k"]).done(), "v");
    let io = store.run(&["--io", "blocking", "--json", "stats"]).done_json();
    assert_eq!(io["io"], "blocking");
}

#[test]
fn events_go_to_standard_error_when_asked_for() {
    let store = Store::with(&[("k", "v")]);
    let ran = store.run(&["-v", "get", "k"]);
    assert!(ran.stderr().contains("store opened"), "{}", ran.stderr());
    assert_eq!(ran.0.stdout, b"v");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let store = Store::new();
    // Far more than a pipe holds, so that the writer must notice.
    let lines = (0..20_000).map(|n| format!("{n:06}\t{}\n", "x".repeat(100)));
    store.pipe(&["load", "-", "--format", "tsv"], lines.collect::<String>()).done();
    let binary = cargo_bin_cmd!("ringcask").get_program().to_owned();
    for command in ["scan", "dump"] {
        let mut child = Command::new(&binary)
            .arg("--dir")
            .arg(store.path().join("store"))
            .arg(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    }
}

#[test]
fn load_reports_what_it_did() {
    let store = Store::new();
    let file =
        store.file("in.jsonl", "{\"key\":\"a\",\"value\":\"12\"}\n{\"key\":\"b\",\"value\":\"3\"}");
    let report = store.run(&["load", &file]).done();
    assert!(report.starts_with("loaded 2 records, "), "{report}");
    let report = store.run(&["--json", "load", &file, "--durability", "sync"]).done_json();
    assert_eq!((&report["records"], &report["bytes"]), (&json!(2), &json!(5)));
    assert_eq!(store.run(&["scan"]).done(), "a\t12\nb\t3\n", "no newline at the end is no loss");
    assert_eq!(store.pipe(&["load", "-", "--json"], "").done_json()["records"], 0);
}

/// Breaks if the option is not heeded, if a store has to be opened as it was written, or if nobody can see how
/// a value is stored.
#[test]
fn values_can_be_stored_compressed() {
    let value = "said again and ".repeat(100);
    for (how, word) in [("none", ""), ("lz4", ", lz4"), ("zstd", ", zstd"), ("zstd:-3", ", zstd")] {
        let store = Store::new();
        store.run(&["put", "put", &value, "--compression", how]).done();
        let line = format!("load\t{value}\n");
        store.pipe(&["load", "-", "--format", "tsv", "--compression", how], line).done();
        for key in ["put", "load"] {
            assert_eq!(store.run(&["get", key]).done(), value);
        }
        let files = store.data_files();
        let texts = files.iter().map(|file| store.run(&["inspect", file]).done());
        let text = texts.collect::<String>();
        assert_eq!(
            text.matches(", uncompressed 1500").count(),
            if word.is_empty() { 0 } else { 2 }
        );
        assert!(text.contains(&format!("{word}, ")), "{text}");
        assert_eq!(store.run(&["dump"]).done().matches(&value).count(), 2);
    }
    let store = Store::new();
    for wrong in ["brotli", "zstd:20", "zstd:", "lz4:3"] {
        store.run(&["put", "k", "v", "--compression", wrong]).refused("--compression");
    }
    assert!(!store.exists());
}

/// Breaks if a command works without the key, if a key file is read another way than it says, or if `inspect` shows
/// keys to whoever lacks the key.
#[test]
fn an_encrypted_store_needs_its_key_file() {
    let store = Store::new();
    let raw = store.file("raw", [b'k'; 32]);
    let hex = store.file("hex", "6b".repeat(32) + "\n");
    let other = store.file("other", "00".repeat(32));
    store.run(&["--key-file", &raw, "put", "a key", "a value"]).done();
    assert_eq!(store.run(&["--key-file", &hex, "get", "a key"]).done(), "a value");
    for args in [&["get", "a key"][..], &["--key-file", &other, "get", "a key"]] {
        store.run(args).fails(1, "encrypted with the key");
    }
    for wrong in ["", "6b", &"xy".repeat(32), &"6b".repeat(33)] {
        let file = store.file("wrong", wrong);
        store.run(&["--key-file", &file, "get", "a key"]).fails(1, "64 hex digits");
    }
    assert!(store.run(&["verify"]).done().contains("records are sound"));
    for file in store.data_files() {
        let hint = file.replace(".data", ".hint");
        for file in [&file, &hint] {
            let text = store.run(&["--key-file", &hex, "inspect", file]).done();
            assert!(text.contains("\"a key\"") && text.contains("xchacha20poly1305"), "{text}");
        }
        let text = store.run(&["inspect", &file]).done();
        assert!(!text.contains("a key") && text.contains("xchacha20poly1305"), "{text}");
        store.run(&["inspect", &hint]).fails(1, "encrypted with the key");
    }
    let both = ["--key-file", &other, "--key-file", &raw];
    store.run(&[&both[..], &["compact"]].concat()).done();
    assert_eq!(store.run(&["--key-file", &other, "get", "a key"]).done(), "a value");
    store.run(&["--key-file", &raw, "get", "a key"]).fails(1, "encrypted with the key");
}

/// Many puts are in flight at once; if they could pass each other, an old value could come last.
#[test]
fn of_two_lines_with_one_key_the_last_stays() {
    let store = Store::new();
    let lines = (0..30_000).map(|n| format!("key{}\t{n}\n", n % 3));
    store.pipe(&["load", "-", "--format", "tsv"], lines.collect::<String>()).done();
    assert_eq!(store.run(&["scan"]).done(), "key0\t29997\nkey1\t29998\nkey2\t29999\n");
}

#[test]
fn a_load_error_names_the_line_and_keeps_what_came_before() {
    let store = Store::new();
    let bad_lines: [(&str, &str, &str); 8] = [
        ("tsv", "no tab here", "no tab"),
        ("tsv", "a\tb\tc", "no time in milliseconds"),
        ("tsv", "a\tb\t1\td", "more than two tabs"),
        ("tsv", "a\\q\tb", "\\q is no escape"),
        ("tsv", "\tempty key", "the key is empty"),
        ("json", "{\"key\":\"a\"}", "missing field `value`"),
        ("json", "{\"key\":\"a\",\"value\":{\"base64\":\"*\"}}", "column"),
        ("json", "", "no JSON record"),
    ];
    for (index, (format, bad, sentence)) in bad_lines.into_iter().enumerate() {
        let good = match format {
            "tsv" => format!("before{index}\tv\n"),
            _ => format!("{{\"key\":\"before{index}\",\"value\":\"v\"}}\n"),
        };
        let file =
            store.file("in", format!("{good}{good}{bad}\n{}", good.replace("before", "after")));
        let stdout = store.run(&["load", &file, "--format", format]);
        assert!(stdout.stderr().contains("in line 3: "), "{}", stdout.stderr());
        stdout.fails(1, sentence);
        assert_eq!(store.run(&["get", &format!("before{index}")]).done(), "v");
    }
    store.run(&["load", "/nowhere/in"]).fails(1, "/nowhere/in");
}

#[test]
fn a_line_longer_than_any_record_is_refused_before_it_is_held() {
    let store = Store::new();
    let long = format!("a\tb\n{}\n", "x".repeat(200_000));
    store
        .pipe(&["--value-len-max", "100", "load", "-", "--format", "tsv"], long)
        .fails(1, "standard input line 2: the line is longer than");
    let value = format!("k\t{}\n", "x".repeat(101));
    store
        .pipe(&["--value-len-max", "100", "load", "-", "--format", "tsv"], value)
        .fails(1, "standard input line 1: the value is 101 bytes");
}

/// What arrives through a slow pipe must not wait in a buffer for more: whoever follows a log with
/// `load -` would find it missing.
#[test]
fn a_load_from_a_pipe_that_pauses_puts_what_has_arrived() {
    let store = Store::new();
    let mut child = Command::new(cargo_bin_cmd!("ringcask").get_program())
        .arg("--dir")
        .arg(store.path().join("store"))
        .args(["load", "-", "--format", "tsv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"early\tv\n").unwrap();
    // Its log grows while the pipe is still open; the test's own limit ends it if that never happens.
    while !holds_bytes(&store.path().join("store"), b"early") {
        std::thread::yield_now();
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

fn holds_bytes(dir: &Path, bytes: &[u8]) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds_bytes(&entry.path(), bytes),
        _ => std::fs::read(entry.path())
            .is_ok_and(|file| file.windows(bytes.len()).any(|window| window == bytes)),
    })
}

#[test]
fn a_dump_loads_into_the_same_store() {
    let seed = std::env::var("RINGCASK_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("RINGCASK_SEED is a number"),
    );
    println!("RINGCASK_SEED={seed}");
    let records = random_records(seed);
    for format in ["json", "tsv"] {
        let (first, second) = (Store::new(), Store::new());
        fill(&first, &records);
        let dump = first.run(&["dump", "--format", format]).done_bytes();
        assert_eq!(dump.split(|&byte| byte == b'\n').count(), records.len() + 1);
        second.pipe(&["load", "-", "--format", format], dump.clone()).done();
        assert!(second.run(&["dump", "--format", format]).done_bytes() == dump, "{format}");
        assert!(contents(&second) == records, "{format}");
    }
}

/// Breaks if what is loaded lives longer than it did where it was dumped, or if what has expired comes back.
#[test]
fn times_to_live_survive_a_dump_and_a_load() {
    for format in ["json", "tsv"] {
        let (first, second) = (Store::new(), Store::new());
        first.run(&["put", "stays", "v"]).done();
        first.run(&["put", "goes", "a\tb", "--ttl", "1h"]).done();
        let dump = first.run(&["dump", "--format", format]).done();
        assert_eq!(
            dump.lines().filter(|line| line.contains("expires_at_ms")).count() == 1,
            format == "json"
        );
        // One line of what had an hour when it was dumped, and has been over for long.
        let expired = match format {
            "json" => "{\"key\":\"past\",\"value\":\"v\",\"expires_at_ms\":1600000000000}\n",
            _ => "past\tv\t1600000000000\n",
        };
        let report =
            second.pipe(&["load", "-", "--format", format], format!("{dump}{expired}")).done();
        assert!(
            report.contains("left out 1 records") && report.contains("loaded 2 records"),
            "{report}"
        );
        assert_eq!(second.run(&["dump", "--format", format]).done(), dump);
        let left: Value =
            serde_json::from_str(&second.run(&["--json", "ttl", "goes"]).done()).unwrap();
        assert!((3_540_000..=3_600_000).contains(&left["left_ms"].as_u64().unwrap()), "{left}");
        assert_eq!(second.run(&["ttl", "stays"]).done(), "forever\n");
        second.run(&["get", "past"]).fails(1, "no such key");
        // A time to live that the line does not have is taken away.
        second.run(&["expire", "stays", "1h"]).done();
        let found =
            second.pipe(&["--json", "load", "-", "--format", format], dump + expired).done_json();
        assert_eq!((&found["records"], &found["expired"]), (&json!(2), &json!(1)));
        assert_eq!(second.run(&["ttl", "stays"]).done(), "forever\n");
    }
    let store = Store::new();
    let beyond = format!("k\tv\t{}\n", u64::MAX);
    store.pipe(&["load", "-", "--format", "tsv"], beyond).fails(1, "line 1");
    store.pipe(&["load", "-", "--format", "tsv"], "k\tv\tsoon\n").fails(1, "milliseconds");
}

/// Keys and values that are text, that are not, and that hold what lines trip over.
fn random_records(seed: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = |least: usize, most: usize| -> Vec<u8> {
        let alphabet: &[u8] = match random.u8(..4) {
            0 => b"\t\n\r\\\0tnr0",
            1 => b"abc\"{}/ ",
            2 => b"\xff\x80\xc3\xa4",
            _ => &[],
        };
        let len = random.usize(least..=most);
        let any = |random: &mut fastrand::Rng| match alphabet {
            [] => random.u8(..),
            _ => alphabet[random.usize(..alphabet.len())],
        };
        (0..len).map(|_| any(&mut random)).collect()
    };
    let mut records: BTreeMap<_, _> = (0..2_000).map(|_| (bytes(1, 40), bytes(0, 300))).collect();
    records.insert(bytes(65_535, 65_535), bytes(2 << 20, 2 << 20));
    records
}

fn fill(store: &Store, records: &BTreeMap<Vec<u8>, Vec<u8>>) {
    futures::executor::block_on(async {
        let db = ringcask::Db::open(store.path().join("store")).await.unwrap();
        let puts = records.iter().map(|(key, value)| db.put(key, value));
        futures::future::try_join_all(puts).await.unwrap();
        db.close().await.unwrap();
    });
}

fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    futures::executor::block_on(async {
        let db = ringcask::Db::open(store.path().join("store")).await.unwrap();
        let mut records = BTreeMap::new();
        let mut scan = db.scan();
        while let Some(entry) = scan.next().await {
            let (key, value) = entry.unwrap();
            records.insert(key.to_vec(), value.to_vec());
        }
        db.close().await.unwrap();
        records
    })
}

const BENCH: [&str; 9] =
    ["bench", "--records", "500", "--operations", "1000", "--clients", "7", "--threads", "2"];

/// Breaks if a command that only looks writes, as on a store that was killed, or is kept out by another that looks.
#[test]
fn commands_that_look_change_nothing() {
    let store = Store::new();
    store.run(&["put", "k", "v"]).done();
    let files = store.data_files();
    let file = Path::new(files.first().unwrap());
    let look = || {
        let names = std::fs::read_dir(file.parent().unwrap()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = look();
    let reader = ringcask::Options::new().read_only(true);
    let reader = futures::executor::block_on(reader.open(store.path().join("store"))).unwrap();
    for command in [&["get", "k"][..], &["exists", "k"], &["ttl", "k"], &["scan"], &["count"]] {
        store.run(command).done();
    }
    for command in [&["stats"][..], &["dump"], &["keyspaces"]] {
        store.run(command).done();
    }
    store.run(&["put", "k", "w"]).fails(1, "open in another instance");
    assert_eq!(look(), before);
    futures::executor::block_on(reader.close()).unwrap();
    store.run(&["put", "k", "w"]).done();
}

/// Breaks if a replica that is fed by a pipe lacks a change, or cannot go on where it was.
#[test]
fn changes_are_told_from_a_position_on() {
    let store = Store::with(&[("a", "1"), ("b", "2")]);
    let told = |since: &str, limit: &[&str]| {
        let args = [&["changes", "--since", since], limit].concat();
        let mut lines = json_lines(&store.run(&args).done());
        let last = lines.pop().unwrap();
        (lines, last["position"].as_str().unwrap().to_owned())
    };
    let (all, behind_all) = told("start", &[]);
    let keys: Vec<&str> = all.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!((&all[0]["change"], &all[0]["value"]), (&json!("put"), &json!("1")));
    let (none, _) = told(&behind_all, &[]);
    assert_eq!(none, [json!(null); 0]);
    let (none, now) = told("now", &[]);
    assert!(none.is_empty());

    store.run(&["del", "a"]).done();
    store.run(&["put", "c", "3", "--ttl", "1h"]).done();
    store.run(&["put", "d\t", "4", "--keyspace", "other"]).done();
    store.run(&["del", "--prefix", "b"]).done();
    let changes_of = |lines: &[Value]| {
        let mut changes: Vec<String> = lines
            .iter()
            .map(|line| {
                let field = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
                ["change", "keyspace", "key", "value", "begin", "end"].map(field).join(" ")
            })
            .collect();
        changes.sort();
        // Once for each partition.
        changes.dedup();
        changes
    };
    let expected = ["del - a - - -", "del_range - - - b c", "put - c 3 - -", "put other d\t 4 - -"];
    for since in [&behind_all, &now] {
        let (lines, _) = told(since, &[]);
        assert_eq!(changes_of(&lines), expected);
        let expiring: Vec<_> =
            lines.iter().filter(|line| !line["expires_at_ms"].is_null()).collect();
        assert!(expiring.len() == 1 && expiring[0]["key"] == "c");
    }
    // One after the other is the same.
    let (mut lines, mut position) = (Vec::new(), now.clone());
    loop {
        let (some, next) = told(&position, &["--limit", "1"]);
        if some.is_empty() {
            break;
        }
        assert_eq!(some.len(), 1);
        lines.extend(some);
        position = next;
    }
    assert_eq!(changes_of(&lines), expected);

    let tsv = store.run(&["changes", "--since", &now, "--format", "tsv"]);
    assert!(tsv.stderr().starts_with("position: "), "{}", tsv.stderr());
    let text = String::from_utf8(tsv.0.stdout).unwrap();
    for line in ["del\t\ta\n", "put\tother\td\\t\t4\n", "del_range\t\tb\tc\n", "put\t\tc\t3\t1"] {
        assert!(text.contains(line), "{text}");
    }
    let (from_the_start, _) = told("start", &[]);
    assert_eq!(changes_of(&from_the_start), ["put - c 3 - -", "put other d\t 4 - -"]);

    store.run(&["changes", "--since", "nonsense"]).refused("position");
    let other = Store::with(&[("a", "1")]);
    other.run(&["changes", "--since", &now]).fails(1, "another store");
    // Whoever comes too late is told so.
    for n in 0..50 {
        store.run(&["put", "a", &n.to_string()]).done();
    }
    store.run(&["compact"]).done();
    store.run(&["changes", "--since", &now]).fails(1, "not there any more");
    let empty = Store::new();
    empty.run(&["changes"]).fails(1, "there is no store");
    assert!(!empty.exists());
}

#[test]
fn repartition_says_what_moved() {
    let store = Store::new();
    let lines: Vec<String> = (0..200).map(|key| format!("key-{key}\tvalue\n")).collect();
    store.pipe(&["load", "-", "--format", "tsv"], lines.concat()).done();
    let before = store.run(&["dump"]).done();
    let count = stats_partitions(&store) as u64;
    let report = store.run(&["--json", "repartition", "5"]).done_json();
    assert_eq!(
        (&report["partitions_before"], &report["partitions_after"]),
        (&json!(count), &json!(5))
    );
    let of = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(of("keys_moved") + of("keys_kept"), 200);
    assert_eq!(stats_partitions(&store), 5);
    assert_eq!(store.run(&["dump"]).done(), before);
    let text = store.run(&["repartition", "2"]).done();
    assert!(text.starts_with("from 5 partitions to 2: "), "{text}");
    let text = store.run(&["repartition", "2"]).done();
    assert!(text.contains("2 partitions already"), "{text}");
    assert_eq!(store.run(&["dump"]).done(), before);
    store.run(&["verify"]).done();
}

#[test]
fn bench_runs_in_memory() {
    let store = Store::new();
    let found = store.run(&[&BENCH[..], &["--json", "--memory"]].concat()).done_json();
    assert_eq!(found["mix"]["operations"], 1000);
    assert!(!store.exists());
}

#[test]
fn bench_counts_every_operation() {
    let store = Store::new();
    let extra = ["--json", "--distribution", "zipf", "--reads", "90", "--durability", "buffered"];
    let found = store.run(&[&BENCH[..], &extra].concat()).done_json();
    assert_eq!(found["load"]["records"], 500);
    assert_eq!(found["mix"]["operations"], 1000);
    let operations = |name: &str| found["mix"][name]["operations"].as_u64().unwrap();
    assert_eq!(operations("get") + operations("put"), 1000);
    assert!(operations("get") > operations("put"));
    assert!(found["engine"]["keydir_bytes_per_key"].as_f64().unwrap() > 0.0);
    // Only with this are values such as compress.
    let compressed = [&BENCH[..], &["--value-size", "1000", "--compression", "zstd:1"]].concat();
    let other = Store::new();
    other.run(&compressed).done();
    let files = other.data_files();
    let used: u64 = files.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum();
    assert!(used < 800_000, "{used} bytes");
    // The records, and the key that marks the store as a bench's.
    assert_eq!(store.run(&["count"]).done(), "501\n");
    // An earlier bench's store may be used again.
    let text = store.run(&BENCH).done();
    for part in ["store", "load", "mix", "p99.9", "get", "put", "commits", "keydir"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// Breaks if an operation measures another one than its name says.
#[test]
fn bench_measures_what_it_is_asked_to() {
    // Keys that are there at the end: the records, the mark of a bench's store, and what is new.
    let cases = [
        ("put", 0..=0),
        ("put-ttl", 0..=0),
        ("incr", 1..=500),
        ("put-if-absent", 1000..=1000),
        ("insert", 1000..=1000),
        ("batch", 0..=0),
    ];
    for (op, new) in cases {
        let store = Store::new();
        let extra = ["--json", "--reads", "0", "--op", op, "--durability", "buffered"];
        let found = store.run(&[&BENCH[..], &extra].concat()).done_json();
        assert_eq!(found["mix"]["op"], op);
        assert_eq!(found["mix"][op]["operations"], 1000);
        let keys: u64 = store.run(&["count"]).done().trim().parse().unwrap();
        assert!(new.contains(&(keys - 501)), "{op}: {keys} keys");
        let stats = store.run(&["--json", "stats"]).done_json();
        assert_eq!(stats["total"]["keys_mortal"].as_u64().unwrap() > 0, op == "put-ttl", "{stats}");
        let text = store.run(&[&BENCH[..], &extra[1..]].concat()).done();
        assert!(text.contains(op), "{op} in {text}");
    }
    Store::new().run(&["bench", "--op", "guess"]).refused("--op");
}

/// Breaks if a workload is another mix than YCSB has under this letter.
#[test]
fn bench_runs_the_workloads_of_ycsb() {
    type Operations = &'static [(&'static str, u64)];
    let cases: [(&str, &str, Operations, &str); 6] = [
        ("a", "put", &[("get", 500), ("put", 500)], "zipf"),
        ("B", "put", &[("get", 950), ("put", 50)], "zipf"),
        ("c", "put", &[("get", 1000), ("put", 0)], "zipf"),
        ("d", "insert", &[("get", 950), ("insert", 50)], "latest"),
        ("e", "insert", &[("get", 0), ("scan", 950), ("insert", 50)], "zipf"),
        ("f", "put", &[("get", 500), ("read-modify-write", 500)], "zipf"),
    ];
    for (workload, op, shares, distribution) in cases {
        let store = Store::new();
        let extra = ["--json", "--workload", workload, "--durability", "buffered"];
        let found = store.run(&[&BENCH[..], &extra].concat()).done_json();
        let mix = &found["mix"];
        assert_eq!((&mix["op"], &mix["distribution"]), (&op.into(), &distribution.into()));
        assert_eq!(found["value_size"], 1000);
        let mut sum = 0;
        for (name, expected) in shares {
            let operations = mix[name]["operations"].as_u64().unwrap();
            // Some ten times as far as chance goes.
            assert!(operations.abs_diff(*expected) < 120, "{workload}: {operations} {name}");
            assert!(*expected != 0 || operations == 0, "{workload}: {operations} {name}");
            sum += operations;
        }
        assert_eq!(sum, 1000, "{workload}: {mix}");
        let inserted = mix["insert"]["operations"].as_u64().unwrap_or_default();
        assert_eq!(store.run(&["count"]).done(), format!("{}\n", 501 + inserted));
    }
    Store::new().run(&["bench", "--workload", "a", "--reads", "5"]).refused("--reads");
}

/// Breaks if gets of a cold bench find their records in the page cache.
#[test]
fn a_cold_bench_reads_from_the_disk() {
    // Not where files may be held in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let hop_free = |extra: &[&str]| {
        let store = dir.path().join(extra.len().to_string());
        let mut command = cargo_bin_cmd!("ringcask");
        command.arg("--dir").arg(store).args(BENCH).args(["--json", "--reads", "100"]);
        let found = Ran(command.args(extra).output().unwrap()).done_json();
        assert!(found["engine"]["resident_bytes"].as_u64().unwrap() > 0);
        found["engine"]["hop_free_percent"].as_f64().unwrap()
    };
    assert!(hop_free(&[]) > 99.0);
    assert!(hop_free(&["--cold"]) < 99.0);
    assert!(hop_free(&["--cold", "--recovery"]) < 99.0);
    Store::new().run(&["bench", "--cold", "--memory"]).refused("--memory");
}

/// Breaks if records are put again, or if those that are not there are read.
#[test]
fn a_bench_goes_on_with_what_an_earlier_one_has_put() {
    let store = Store::new();
    let run =
        |extra: &[&str]| store.run(&[&BENCH[..], &["--json", "--reads", "100"], extra].concat());
    run(&["--no-load"]).fails(1, "--no-load");
    assert_eq!(run(&[]).done_json()["load"]["records"], 500);
    let found = run(&["--no-load"]).done_json();
    assert_eq!((&found["load"]["records"], &found["mix"]["operations"]), (&0.into(), &1000.into()));
    store.run(&["bench", "--no-load", "--records", "501"]).fails(1, "501 records");
}

#[test]
fn bench_times_opening_and_draws_a_page() {
    let store = Store::new();
    let page = store.path().join("page.html");
    let page = page.to_str().unwrap();
    let extra = ["--json", "--recovery", "--html", page, "--durability", "buffered"];
    let found = store.run(&[&BENCH[..], &extra].concat()).done_json();
    assert_eq!(found["open"]["keys"], 501);
    assert!(found["open"]["with_hints_keys_per_second"].as_f64().unwrap() > 0.0);
    assert!(found["open"]["without_hints_bytes_per_second"].as_f64().unwrap() > 0.0);
    let drawn = std::fs::read_to_string(page).unwrap();
    for part in ["<svg", "polyline", "99.9 %", "records per commit", "without hints seconds"] {
        assert!(drawn.contains(part), "{part} in {drawn}");
    }
    assert!(!drawn.contains("http"), "the page needs no network");
    // Opening without hints lost nothing, and made them anew.
    assert_eq!(store.run(&["count"]).done(), "501\n");
    let text = store.run(&[&BENCH[..], &["--recovery"]].concat()).done();
    assert!(text.contains("with hints"), "{text}");
    let nowhere = format!("{page}/page.html");
    store.run(&[&BENCH[..], &["--html", &nowhere]].concat()).fails(1, "page.html");
}

/// Breaks if what is beside the mix is not done, if something of it is left, or if looking counts keys that are not there.
#[test]
fn bench_looks_at_many_beside_the_mix() {
    for beside in ["scan", "scan-keys", "snapshot", "backup"] {
        let store = Store::new();
        let extra = ["--json", "--beside", beside, "--look", "--seconds", "1"];
        let bench = ["bench", "--records", "500", "--clients", "4", "--durability", "buffered"];
        let found = store.run(&[&bench[..], &extra].concat()).done_json();
        assert_eq!(found["beside"]["what"], beside);
        assert!(found["beside"]["times"].as_u64().unwrap() > 0, "{found}");
        assert_eq!(found["look"]["keys"], 501);
        assert!(found["look"]["prefix_keys"].as_f64().unwrap() > 10.0);
        assert!(found["look"]["backup_files"].as_u64().unwrap() > 0);
        let left: Vec<_> = std::fs::read_dir(store.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
    let store = Store::new();
    let text = store.run(&[&BENCH[..], &["--beside", "scan", "--look"]].concat()).done();
    for line in ["beside   scan: ", "scan     501 keys: ", "prefix   of ", "moment   of "] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn bench_leaves_other_data_alone() {
    let store = Store::with(&[("k", "v")]);
    store.run(&BENCH).fails(1, "other data");
    assert_eq!(store.run(&["scan"]).done(), "k\tv\n");
}

#[test]
fn bench_without_a_directory_leaves_none_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = cargo_bin_cmd!("ringcask");
    let ran = command.env("TMPDIR", temporary.path()).env_remove("RINGCASK_DIR").args(BENCH);
    Ran(ran.output().unwrap()).done();
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn keys_live_for_a_time() {
    let store = Store::new();
    store.run(&["put", "k", "v", "--ttl", "1h 30m"]).done();
    let left = store.run(&["ttl", "k"]).done();
    assert!(left.starts_with("1h 29m 59s") || left == "1h 30m\n", "{left}");
    store.run(&["expire", "k", "7days"]).done();
    let left: Value = serde_json::from_str(&store.run(&["--json", "ttl", "k"]).done()).unwrap();
    let week_ms = 7 * 86_400_000;
    assert!((week_ms - 60_000..=week_ms).contains(&left["left_ms"].as_u64().unwrap()), "{left}");
    store.run(&["persist", "k"]).done();
    assert_eq!(store.run(&["ttl", "k"]).done(), "forever\n");
    assert_eq!(store.run(&["get", "k"]).done(), "v");
    for missing in [&["ttl", "no"][..], &["expire", "no", "1s"], &["persist", "no"]] {
        store.run(missing).fails(1, "no such key");
    }
    for refused in [&["put", "k", "v", "--ttl", "soon"][..], &["expire", "k", "10"]] {
        store.run(refused).refused("invalid value");
    }
    store.run(&["put", "k", "v", "--ttl", "0s"]).fails(1, "zero");
}

#[test]
fn a_counter_counts() {
    let store = Store::new();
    assert_eq!(store.run(&["incr", "n"]).done(), "1\n");
    assert_eq!(store.run(&["incr", "n", "41"]).done(), "42\n");
    assert_eq!(store.run(&["incr", "n", "-50"]).done(), "-8\n");
    assert_eq!(store.run(&["get", "n"]).done(), "-8");
    store.run(&["put", "n", "eight"]).done();
    store.run(&["incr", "n"]).fails(1, "integer");
}

/// Breaks if a command looks into another keyspace than the one that is named, or creates one by looking.
#[test]
fn keyspaces_are_apart() {
    let store = Store::with(&[("k", "default")]);
    store.run(&["put", "k", "named", "--keyspace", "s"]).done();
    assert_eq!(store.run(&["get", "k"]).done(), "default");
    assert_eq!(store.run(&["get", "k", "--keyspace", "s"]).done(), "named");
    assert_eq!(store.run(&["scan", "--keyspace", "s"]).done(), "k\tnamed\n");
    assert_eq!(store.run(&["count"]).done(), "1\n");
    assert_eq!(store.run(&["keyspaces"]).done(), "s\n");
    let dump = store.run(&["dump", "--keyspace", "s"]).done();
    store.pipe(&["load", "-", "--keyspace", "t"], dump).done();
    assert_eq!(store.run(&["get", "k", "--keyspace", "t"]).done(), "named");
    assert_eq!(store.run(&["get", "k", "--keyspace", "other"]).0.status.code(), Some(1));
    assert_eq!(store.run(&["keyspaces"]).done(), "s\nt\n");
    store.run(&["drop-keyspace", "s"]).done();
    assert_eq!(store.run(&["keyspaces"]).done(), "t\n");
    assert_eq!(store.run(&["drop-keyspace", "s"]).0.status.code(), Some(1));
    store.run(&["clear", "--keyspace", "t"]).done();
    assert_eq!(store.run(&["count", "--keyspace", "t"]).done(), "0\n");
    assert_eq!(store.run(&["count"]).done(), "1\n");
}

#[test]
fn ranges_are_deleted_by_prefix_and_by_bounds() {
    let store = Store::with(&[("a", "1"), ("b1", "2"), ("b2", "3"), ("c", "4"), ("d", "5")]);
    store.run(&["del", "--prefix", "b"]).done();
    assert_eq!(store.run(&["scan", "--keys-only"]).done(), "a\nc\nd\n");
    store.run(&["del", "--from", "c", "--to", "d"]).done();
    assert_eq!(store.run(&["scan", "--keys-only"]).done(), "a\nd\n");
    assert_eq!(store.run(&["del"]).0.status.code(), Some(2));
    assert_eq!(store.run(&["del", "a", "--prefix", "b"]).0.status.code(), Some(2));
    store.run(&["clear"]).done();
    assert_eq!(store.run(&["count"]).done(), "0\n");
}
