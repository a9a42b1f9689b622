//! `Storage::push` against a stand-in for the model hub: what arrives, what is not sent again, and what an
//! error leaves behind.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod hub;

use hub::{Behaviour, Hub, What};
use std::{collections::BTreeMap, path::PathBuf};
use wmtp_base::paths::PathsConfig;
use wmtp_storage::{
    Endpoint, HubName, Kind, Push, PushContent, PushFile, PushState, Pushed, Storage, StorageConfig, StorageError,
    Transfer,
};

const TOKEN: &str = "hf_secretsecretsecret";
const REPOSITORY: &str = "owner/model";

/// A model on this disk, and the storage that pushes it.
struct Here {
    dir: tempfile::TempDir,
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl Here {
    fn new() -> Self {
        let weights = |seed: u32| (0..300_000u32).map(|i| (i.wrapping_mul(seed) >> 24) as u8).collect();
        let files: BTreeMap<&'static str, Vec<u8>> = [
            ("README.md", b"# model\n".to_vec()),
            ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
            ("model.safetensors", weights(2_654_435_761)),
            ("mtp_heads.safetensors", weights(40_503)),
            ("tokenizer.json", b"{\"version\": \"1.0\"}".to_vec()),
            ("tokenizer_config.json", Vec::new()),
        ]
        .into();
        Self {
            dir: tempfile::tempdir().unwrap(),
            files,
        }
    }

    fn storage(&self, hub: &Hub, token: Option<&str>) -> Storage {
        let at = |name: &str| self.dir.path().join(name);
        let paths = PathsConfig {
            models: at("models"),
            datasets: at("datasets"),
            cache: at("cache"),
            runs: at("runs"),
            ..PathsConfig::default()
        };
        let config = StorageConfig {
            retries: 2,
            retry_delay_ms: 1,
            timeout_seconds: 5,
            ..StorageConfig::default()
        };
        Storage::new(&config, &paths)
            .with_endpoint(Endpoint::new(&hub.url(), token))
            .with_shared_cache(&at("shared"))
    }

    fn request(&self) -> Push {
        let files = self.files.iter().map(|(name, bytes)| {
            let path = self.dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            // The card is made in memory, all else is on the disk.
            let content = match *name {
                "README.md" => PushContent::Memory(bytes.clone()),
                _ => PushContent::Disk(path),
            };
            PushFile {
                name: (*name).to_owned(),
                content,
            }
        });
        Push {
            to: HubName {
                owner: "owner".into(),
                name: "model".into(),
                revision: "main".into(),
            },
            public: false,
            message: "Push a model".into(),
            files: files.collect(),
            dry_run: false,
        }
    }

    fn push(&self, hub: &Hub) -> Result<Pushed, StorageError> {
        self.storage(hub, Some(TOKEN)).push(&self.request(), &mut |_| {})
    }

    /// What the branch must have, with the file that the hub itself makes.
    fn expected(&self) -> BTreeMap<String, Vec<u8>> {
        let attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n".to_vec();
        let own = self
            .files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
        own.chain([(".gitattributes".to_owned(), attributes)]).collect()
    }
}

fn start(chunk: Option<usize>) -> Hub {
    Hub::start(Behaviour {
        token: Some(TOKEN),
        large: 1 << 20,
        chunk,
        faults: Vec::new(),
    })
}

fn states(pushed: &Pushed) -> Vec<(&str, PushState)> {
    pushed
        .files
        .iter()
        .map(|file| (file.name.as_str(), file.state))
        .collect()
}

fn count(lines: &[String], part: &str) -> usize {
    lines.iter().filter(|line| line.contains(part)).count()
}

#[test]
fn a_model_arrives_in_one_commit_of_a_private_repository() {
    for chunk in [None, Some(64 << 10)] {
        let (hub, here) = (start(chunk), Here::new());
        let mut told: Vec<Transfer> = Vec::new();
        let storage = here.storage(&hub, Some(TOKEN));
        let pushed = storage.push(&here.request(), &mut |t| told.push(t.clone())).unwrap();
        assert!(pushed.created && pushed.private && pushed.committed, "{pushed:?}");
        assert_eq!(pushed.url, format!("{}/owner/model", hub.url()));
        assert_eq!(hub.files(REPOSITORY, "main"), here.expected());
        assert_eq!(hub.messages(REPOSITORY, "main"), ["initial commit", "Push a model"]);
        {
            let state = hub.state();
            assert!(state.repositories[REPOSITORY].private);
            let head = state.repositories[REPOSITORY].head("main").unwrap();
            assert_eq!(pushed.commit.as_ref(), Some(&head.oid));
            let large: Vec<&String> = head
                .files
                .iter()
                .filter(|(_, b)| b.large)
                .map(|(name, _)| name)
                .collect();
            assert_eq!(large, ["model.safetensors", "mtp_heads.safetensors"]);
            let stored = state.requests.iter().filter(|r| r.line.contains("/storage/"));
            assert!(stored.clone().count() >= 2);
            assert!(
                stored.clone().all(|r| r.authorization.is_none()),
                "the token goes to the hub alone"
            );
        }
        let lines = hub.taken();
        let parts = 300_000usize.div_ceil(64 << 10);
        assert_eq!(
            count(&lines, "PUT /storage/"),
            if chunk.is_some() { 2 * parts } else { 2 }
        );
        assert_eq!(count(&lines, "/commit/"), 1);
        assert!(
            lines.last().unwrap().contains("/commit/main"),
            "the commit is the last request: {lines:?}"
        );
        assert_eq!(told.last().map(|t| (t.done, t.total)), Some((600_000, Some(600_000))));
    }
}

#[test]
fn what_was_pushed_is_read_back_by_the_reader() {
    let (hub, here) = (start(Some(100_000)), Here::new());
    let commit = here.push(&hub).unwrap().commit.unwrap();
    for uri in ["hf://owner/model".to_owned(), format!("hf://owner/model@{commit}")] {
        let dir = here
            .storage(&hub, Some(TOKEN))
            .resolve(&uri, Kind::Model, &mut |_| {})
            .unwrap();
        for (name, bytes) in here.files.iter().filter(|(name, _)| **name != "README.md") {
            assert_eq!(&std::fs::read(dir.join(name)).unwrap(), bytes, "{uri} {name}");
        }
    }
    let stranger = Here::new();
    let denied = stranger
        .storage(&hub, None)
        .resolve("hf://owner/model", Kind::Model, &mut |_| {});
    assert!(
        matches!(denied, Err(StorageError::Denied { status: 401, .. })),
        "it is private: {denied:?}"
    );
}

#[test]
fn files_that_are_there_are_not_sent_again() {
    let (hub, mut here) = (start(None), Here::new());
    let first = here.push(&hub).unwrap().commit;
    hub.taken();
    let again = here.push(&hub).unwrap();
    assert!(!again.committed && !again.created, "{again:?}");
    assert_eq!(again.commit, first);
    assert!(
        again.files.iter().all(|file| file.state == PushState::Unchanged),
        "{again:?}"
    );
    let lines = hub.taken();
    assert_eq!(
        count(&lines, "POST") + count(&lines, "PUT"),
        0,
        "nothing is written: {lines:?}"
    );

    // One file is another, of the same size: it alone is sent.
    here.files.get_mut("model.safetensors").unwrap()[7] ^= 1;
    here.files.insert("README.md", b"# Model\n".to_vec());
    let pushed = here.push(&hub).unwrap();
    let sent: Vec<_> = states(&pushed)
        .into_iter()
        .filter(|(_, state)| *state == PushState::Sent)
        .collect();
    assert_eq!(
        sent,
        [("README.md", PushState::Sent), ("model.safetensors", PushState::Sent)]
    );
    assert_eq!(count(&hub.taken(), "PUT /storage/"), 1);
    assert_eq!(hub.files(REPOSITORY, "main"), here.expected());
}

#[test]
fn files_of_another_model_are_removed_by_the_same_commit() {
    let (hub, mut here) = (start(None), Here::new());
    here.files.insert("notes.txt", b"kept".to_vec());
    here.push(&hub).unwrap();
    here.files.remove("mtp_heads.safetensors");
    here.files.remove("notes.txt");
    let pushed = here.push(&hub).unwrap();
    assert_eq!(pushed.removed, ["mtp_heads.safetensors"]);
    here.files.insert("notes.txt", b"kept".to_vec());
    assert_eq!(hub.files(REPOSITORY, "main"), here.expected());
    assert_eq!(hub.messages(REPOSITORY, "main").len(), 3, "both in one commit");
}

#[test]
fn a_cut_connection_is_tried_again_and_a_later_push_resumes() {
    for chunk in [None, Some(64 << 10)] {
        // Cut once: this push gets through.
        let (hub, here) = (start(chunk), Here::new());
        hub.fault("PUT /storage/", 1, 1, What::Cut);
        here.push(&hub).unwrap();
        assert_eq!(hub.files(REPOSITORY, "main"), here.expected());

        // Cut for good after the first file: the branch is as it was.
        let hub = start(chunk);
        let puts = if chunk.is_some() { 5 } else { 1 };
        hub.fault("PUT /storage/", puts, 3, What::Cut);
        let error = here.push(&hub).unwrap_err();
        assert!(matches!(error, StorageError::Network { .. }), "{error:?}");
        assert!(
            error.to_string().contains("mtp_heads.safetensors to hf://owner/model"),
            "{error}"
        );
        assert_eq!(
            hub.messages(REPOSITORY, "main"),
            ["initial commit"],
            "nothing half done is visible"
        );
        hub.taken();
        let pushed = here.push(&hub).unwrap();
        assert!(!pushed.created && pushed.committed);
        let large: Vec<_> = states(&pushed)
            .into_iter()
            .filter(|(name, _)| name.ends_with(".safetensors"))
            .collect();
        assert_eq!(
            large,
            [
                ("model.safetensors", PushState::Stored),
                ("mtp_heads.safetensors", PushState::Sent)
            ]
        );
        assert_eq!(count(&hub.taken(), "PUT /storage/"), puts, "only what is missing");
        assert_eq!(hub.files(REPOSITORY, "main"), here.expected());
    }
}

#[test]
fn a_commit_whose_answer_was_lost_is_not_made_twice() {
    let (hub, here) = (start(None), Here::new());
    hub.fault("/commit/main", 0, 1, What::Lost);
    let pushed = here.push(&hub).unwrap();
    assert_eq!(hub.messages(REPOSITORY, "main"), ["initial commit", "Push a model"]);
    let head = hub.state().repositories[REPOSITORY].head("main").unwrap().oid.clone();
    assert_eq!(pushed.commit, Some(head));
}

#[test]
fn a_branch_is_made_for_a_revision() {
    let (hub, mut here) = (start(None), Here::new());
    here.push(&hub).unwrap();
    let on_main = here.expected();
    // Another model: what `main` has of the first one is no part of it.
    here.files.remove("mtp_heads.safetensors");
    here.files.insert("config.json", b"{}".to_vec());
    let mut request = here.request();
    request.to.revision = "v2".into();
    hub.fault("/commit/v2", 0, 1, What::Lost);
    let storage = here.storage(&hub, Some(TOKEN));
    let pushed = storage.push(&request, &mut |_| {}).unwrap();
    assert_eq!(
        (pushed.committed, pushed.removed),
        (true, vec!["mtp_heads.safetensors".to_owned()])
    );
    assert_eq!(hub.files(REPOSITORY, "v2"), here.expected());
    assert_eq!(
        hub.messages(REPOSITORY, "v2"),
        ["initial commit", "Push a model", "Push a model"]
    );
    assert_eq!(hub.files(REPOSITORY, "main"), on_main);
    assert!(!storage.push(&request, &mut |_| {}).unwrap().committed);
    request.to.revision = "0123456789abcdef0123456789abcdef01234567".into();
    let error = storage.push(&request, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("push to a branch"), "{error}");
}

#[test]
fn a_public_repository_takes_a_word_more() {
    let (hub, here) = (start(None), Here::new());
    let storage = here.storage(&hub, Some(TOKEN));
    let request = Push {
        public: true,
        ..here.request()
    };
    assert!(!storage.push(&request, &mut |_| {}).unwrap().private);
    let error = here.push(&hub).unwrap_err();
    assert!(error.to_string().contains("is public: add --public"), "{error}");
    assert_eq!(hub.messages(REPOSITORY, "main").len(), 2);
}

#[test]
fn a_dry_run_writes_nothing() {
    let (hub, here) = (start(None), Here::new());
    let storage = here.storage(&hub, Some(TOKEN));
    let request = Push {
        dry_run: true,
        ..here.request()
    };
    let plan = storage.push(&request, &mut |_| {}).unwrap();
    assert!(
        plan.created && plan.private && !plan.committed && plan.commit.is_none(),
        "{plan:?}"
    );
    assert!(plan.files.iter().all(|file| file.state == PushState::Sent));
    assert!(hub.state().repositories.is_empty());
    here.push(&hub).unwrap();
    hub.taken();
    let plan = storage.push(&request, &mut |_| {}).unwrap();
    assert!(plan.files.iter().all(|file| file.state == PushState::Unchanged));
    let lines = hub.taken();
    assert!(lines.iter().all(|line| line.starts_with("GET ")), "{lines:?}");
}

#[test]
fn a_busy_server_is_asked_again() {
    let (hub, here) = (start(None), Here::new());
    hub.fault("", 0, 2, What::Status(429, "slow down"));
    hub.fault("/commit/", 0, 1, What::Status(503, "busy"));
    here.push(&hub).unwrap();
    assert_eq!(hub.files(REPOSITORY, "main"), here.expected());
    let (hub, here) = (start(None), Here::new());
    hub.fault("/preupload/", 0, 3, What::Status(429, "slow down"));
    let error = here.push(&hub).unwrap_err().to_string();
    assert!(
        error.contains("the server wants fewer requests (status 429)"),
        "{error}"
    );
    assert_eq!(count(&hub.taken(), "/preupload/"), 3, "one try and two retries");
}

#[test]
fn refusals_are_one_sentence_and_the_branch_stays_as_it_was() {
    for (on, status, says) in [
        ("GET /api/models", 401, "the token in HF_TOKEN may not write there"),
        ("/repos/create", 403, "the token in HF_TOKEN may not write there"),
        ("/preupload/", 404, "check owner, name and branch"),
        (
            "/objects/batch",
            403,
            "check the name, and that the token has write access",
        ),
        ("PUT /storage/", 413, "it is larger than the server takes"),
        ("POST /verify", 404, "model.safetensors to hf://owner/model"),
        ("/commit/", 409, "push again in a moment"),
        ("/commit/", 412, "its branch changed meanwhile"),
        ("/commit/", 400, "the server says `\"license\" must be one of them`"),
        ("/repos/create", 307, "give the repository's new name"),
    ] {
        let (hub, here) = (start(None), Here::new());
        hub.fault(on, 0, 1, What::Status(status, "\"license\"  must be one of them"));
        let error = here.push(&hub).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(says), "{on} {status}: {text}");
        assert!(error.to_string().starts_with(&hub.url()), "{error}");
        assert!(!text.contains(TOKEN) && !error.to_string().contains('\n'), "{text}");
        assert_eq!(
            count(&hub.taken(), &on.replace("GET ", "")),
            1,
            "it is not tried again: {on} {status}"
        );
        if hub.state().repositories.contains_key(REPOSITORY) {
            assert_eq!(hub.messages(REPOSITORY, "main"), ["initial commit"], "{on} {status}");
        }
    }
}

#[test]
fn without_a_token_or_a_server_nothing_is_sent() {
    let (hub, here) = (start(None), Here::new());
    let push = |endpoint: Endpoint| {
        here.storage(&hub, None)
            .with_endpoint(endpoint)
            .push(&here.request(), &mut |_| {})
            .unwrap_err()
    };
    let none = push(Endpoint::new(&hub.url(), None));
    assert!(none.to_string().contains("set HF_TOKEN"), "{none}");
    assert!(hub.taken().is_empty());
    let wrong = push(Endpoint::new(&hub.url(), Some("hf_wrongwrongwrong")));
    assert!(matches!(wrong, StorageError::Denied { status: 401, .. }), "{wrong:?}");
    // Nobody listens on port 1.
    let nobody = push(Endpoint::new("http://user:password@127.0.0.1:1", Some(TOKEN)));
    assert!(
        nobody.to_string().contains("check the connection and try again"),
        "{nobody}"
    );
    for error in [none, wrong, nobody] {
        let text = format!("{error} {error:?}");
        for secret in [TOKEN, "hf_wrong", "password@"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    let mut lost = here.request();
    lost.files.push(PushFile {
        name: "gone.safetensors".into(),
        content: PushContent::Disk(PathBuf::from("/no/such/file")),
    });
    let error = here.storage(&hub, Some(TOKEN)).push(&lost, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("/no/such/file"), "{error}");
    assert!(
        hub.state().repositories.is_empty(),
        "files are read before anything is asked"
    );
}
