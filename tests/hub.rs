//! `hf://` against a local server that answers like the model hub.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod support;

use std::path::{Path, PathBuf};
use support::hub::{Behaviour, COMMIT, Server};
use wmtp::{
    paths::PathsConfig,
    storage::{Endpoint, Kind, Storage, StorageConfig, StorageError, Transfer},
};

const TOKEN: &str = "hf_secretsecretsecret";

struct Cache(tempfile::TempDir);

impl Cache {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn storage(&self, endpoint: Endpoint, offline: bool) -> Storage {
        let paths = PathsConfig {
            models: self.0.path().join("models"),
            datasets: self.0.path().join("datasets"),
            cache: self.0.path().join("cache"),
            runs: self.0.path().join("runs"),
            ..PathsConfig::default()
        };
        let config = StorageConfig {
            offline,
            retries: 2,
            timeout_seconds: 5,
            ..StorageConfig::default()
        };
        Storage::new(&config, &paths).with_endpoint(endpoint)
    }

    fn fetch(&self, server: &Server, token: Option<&str>, uri: &str) -> Result<PathBuf, StorageError> {
        self.storage(Endpoint::new(&server.url(), token), false)
            .resolve(uri, Kind::Model, &mut |_| {})
    }

    /// Every file and directory under the cache.
    fn contents(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                out.push(entry.path());
                walk(&entry.path(), out);
            }
        }
        let mut out = Vec::new();
        walk(&self.0.path().join("cache"), &mut out);
        out
    }

    /// No model, whole or in part, and nothing that would be taken for one.
    fn assert_no_snapshot(&self) {
        let store = self.0.path().join("cache/store");
        for kind in ["trees", "refs"] {
            let found: Vec<PathBuf> = self
                .contents()
                .into_iter()
                .filter(|p| p.starts_with(store.join(kind)) && *p != store.join(kind))
                .collect();
            assert_eq!(found, Vec::<PathBuf>::new());
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_fetched_once_and_whole() {
    let server = Server::start(Behaviour::default());
    let cache = Cache::new();
    let mut transfers: Vec<Transfer> = Vec::new();
    let storage = cache.storage(Endpoint::new(&server.url(), None), false);
    let dir = storage
        .resolve("hf://owner/model", Kind::Model, &mut |t| transfers.push(t.clone()))
        .unwrap();
    assert_eq!(
        names(&dir),
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "mtp_heads.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ],
        "neither README nor pickles nor files in folders"
    );
    for (name, bytes) in server.files() {
        if dir.join(name).exists() {
            assert_eq!(&std::fs::read(dir.join(name)).unwrap(), bytes, "{name}");
        }
    }
    let last = transfers.last().unwrap();
    assert_eq!(Some(last.done), last.total, "progress reaches the end");
    assert!(transfers.windows(2).all(|pair| pair[0].done <= pair[1].done));

    let requests = server.requests().len();
    let again = cache.fetch(&server, None, "hf://owner/model").unwrap();
    assert_eq!(again, dir);
    assert_eq!(
        server.requests().len(),
        requests + 1,
        "the branch is asked for, nothing is fetched again"
    );
    let by_commit = cache
        .fetch(&server, None, &format!("hf://owner/model@{COMMIT}"))
        .unwrap();
    assert_eq!(by_commit, dir);
    assert_eq!(server.requests().len(), requests + 1, "a commit never changes");
}

#[test]
fn a_repository_without_safetensors_gives_pytorchs_file() {
    let server = Server::start(Behaviour {
        unlisted: &[".safetensors"],
        ..Behaviour::default()
    });
    let cache = Cache::new();
    let dir = cache.fetch(&server, None, "hf://owner/model").unwrap();
    assert_eq!(
        &std::fs::read(dir.join("pytorch_model.bin")).unwrap(),
        server.file("pytorch_model.bin")
    );
}

#[test]
fn a_data_set_is_fetched_with_its_folders() {
    let server = Server::start(Behaviour::default());
    let cache = Cache::new();
    let storage = cache.storage(Endpoint::new(&server.url(), None), false);
    let mut last = None;
    let dir = storage
        .resolve("hf://owner/model", Kind::Data, &mut |t| last = Some(t.clone()))
        .unwrap();
    for name in ["README.md", "onnx/model.safetensors", "pytorch_model.bin"] {
        assert_eq!(&std::fs::read(dir.join(name)).unwrap(), server.file(name), "{name}");
    }
    assert!(!dir.join(".gitattributes").exists());
    let last = last.unwrap();
    assert_eq!(Some(last.done), last.total, "sizes of files in folders are known, too");
    let sections = server.requests();
    assert!(sections.iter().all(|r| r.contains("datasets/")), "{sections:?}");
    // A model of the same name is another thing.
    let model = cache.fetch(&server, None, "hf://owner/model").unwrap();
    assert!(!model.join("README.md").exists());
}

#[test]
fn a_server_without_sizes_will_do() {
    let server = Server::start(Behaviour {
        no_tree: true,
        ..Behaviour::default()
    });
    let cache = Cache::new();
    let dir = cache.fetch(&server, None, "hf://owner/model").unwrap();
    assert_eq!(
        &std::fs::read(dir.join("model.safetensors")).unwrap(),
        server.file("model.safetensors")
    );
}

#[test]
fn a_token_is_sent_and_never_shown() {
    let server = Server::start(Behaviour {
        token: Some(TOKEN),
        ..Behaviour::default()
    });
    let cache = Cache::new();
    cache.fetch(&server, Some(TOKEN), "hf://owner/model").unwrap();

    let cache = Cache::new();
    let none = cache.fetch(&server, None, "hf://owner/model").unwrap_err();
    assert!(matches!(none, StorageError::Denied { status: 401, .. }), "{none:?}");
    assert!(none.to_string().contains("set HF_TOKEN"), "{none}");
    let wrong = cache
        .fetch(&server, Some("hf_wrongwrongwrong"), "hf://owner/model")
        .unwrap_err();
    assert!(
        wrong.to_string().contains("the token in HF_TOKEN does not open it"),
        "{wrong}"
    );
    cache.assert_no_snapshot();

    let endpoint = Endpoint::new("http://user:password@127.0.0.1:1", Some(TOKEN));
    let storage = cache.storage(endpoint.clone(), false);
    let unreachable = storage
        .resolve("hf://owner/model", Kind::Model, &mut |_| {})
        .unwrap_err();
    for text in [
        format!("{none:?} {none}"),
        format!("{wrong:?} {wrong}"),
        format!("{unreachable:?} {unreachable}"),
        format!("{endpoint:?} {storage:?}"),
    ] {
        for secret in [TOKEN, "hf_wrong", "password"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn what_the_hub_has_not_is_not_found() {
    let server = Server::start(Behaviour::default());
    let cache = Cache::new();
    for uri in [
        "hf://owner/other",
        "hf://nobody/model",
        "hf://owner/model@no-such-branch",
    ] {
        let error = cache.fetch(&server, None, uri).unwrap_err();
        assert!(matches!(error, StorageError::NotFound { .. }), "{error:?}");
        assert!(error.to_string().contains(uri), "{error}");
    }
    cache.assert_no_snapshot();
}

#[test]
fn a_listed_file_that_is_gone_is_named() {
    let server = Server::start(Behaviour {
        missing: Some("tokenizer.json"),
        ..Behaviour::default()
    });
    let cache = Cache::new();
    let error = cache.fetch(&server, None, "hf://owner/model").unwrap_err();
    assert!(
        error.to_string().contains("tokenizer.json of hf://owner/model"),
        "{error}"
    );
    cache.assert_no_snapshot();
}

#[test]
fn a_server_that_stumbles_is_asked_again() {
    let server = Server::start(Behaviour {
        errors_first: 2,
        ..Behaviour::default()
    });
    let cache = Cache::new();
    cache.fetch(&server, None, "hf://owner/model").unwrap();

    let server = Server::start(Behaviour {
        errors_first: usize::MAX,
        ..Behaviour::default()
    });
    let cache = Cache::new();
    let error = cache.fetch(&server, None, "hf://owner/model").unwrap_err();
    assert!(error.to_string().contains("status 500"), "{error}");
    assert_eq!(server.requests().len(), 3, "one try and two retries");
    cache.assert_no_snapshot();
}

#[test]
fn a_broken_connection_is_picked_up_where_it_broke() {
    let server = Server::start(Behaviour {
        truncate_times: 1,
        ..Behaviour::default()
    });
    let cache = Cache::new();
    let dir = cache.fetch(&server, None, "hf://owner/model").unwrap();
    assert_eq!(
        &std::fs::read(dir.join("model.safetensors")).unwrap(),
        server.file("model.safetensors")
    );
    let resumed = server
        .requests()
        .into_iter()
        .filter(|r| r.contains("model.safetensors"))
        .count();
    assert!(resumed >= 2, "{resumed}");
}

#[test]
fn a_truncated_file_never_counts() {
    for no_tree in [false, true] {
        let server = Server::start(Behaviour {
            truncate_times: usize::MAX,
            no_tree,
            ..Behaviour::default()
        });
        let cache = Cache::new();
        let error = cache.fetch(&server, None, "hf://owner/model").unwrap_err();
        assert!(matches!(error, StorageError::Network { .. }), "{error:?}");
        assert!(
            error.to_string().contains("model.safetensors of hf://owner/model"),
            "{error}"
        );
        cache.assert_no_snapshot();
    }
}

#[test]
fn other_bytes_than_listed_never_count() {
    let server = Server::start(Behaviour {
        corrupt: true,
        ..Behaviour::default()
    });
    let cache = Cache::new();
    let error = cache.fetch(&server, None, "hf://owner/model").unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    cache.assert_no_snapshot();
}

#[test]
fn without_a_network_the_cache_answers() {
    let cache = Cache::new();
    let server = Server::start(Behaviour::default());
    let offline = cache.storage(Endpoint::new(&server.url(), None), true);
    let error = offline
        .resolve("hf://owner/model", Kind::Model, &mut |_| {})
        .unwrap_err();
    assert!(matches!(error, StorageError::Offline { .. }), "{error:?}");
    assert_eq!(server.requests(), Vec::<String>::new());

    let dir = cache.fetch(&server, None, "hf://owner/model").unwrap();
    assert_eq!(
        offline.resolve("hf://owner/model", Kind::Model, &mut |_| {}),
        Ok(dir.clone())
    );
    // Nobody listens on port 1.
    let unreachable = cache.storage(Endpoint::new("http://127.0.0.1:1", None), false);
    assert_eq!(
        unreachable.resolve("hf://owner/model", Kind::Model, &mut |_| {}),
        Ok(dir)
    );
    let error = unreachable
        .resolve("hf://owner/second", Kind::Model, &mut |_| {})
        .unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

/// What `hf download owner/model` would have left behind, but for its links.
fn shared_cache(server: &Server) -> tempfile::TempDir {
    let shared = tempfile::tempdir().unwrap();
    let repo = shared.path().join("models--owner--model");
    let snapshot = repo.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    for (name, bytes) in server.files().filter(|(name, _)| !name.contains('/')) {
        std::fs::write(snapshot.join(name), bytes).unwrap();
    }
    shared
}

#[test]
fn a_model_in_the_cache_of_hugging_faces_tools_is_not_fetched_again() {
    let server = Server::start(Behaviour::default());
    let shared = shared_cache(&server);
    let snapshot = shared.path().join("models--owner--model/snapshots").join(COMMIT);
    let cache = Cache::new();
    let storage = |offline| {
        let endpoint = Endpoint::new(&server.url(), None);
        cache.storage(endpoint, offline).with_shared_cache(shared.path())
    };
    let resolve = |offline| storage(offline).resolve("hf://owner/model", Kind::Model, &mut |_| {});
    assert_eq!(resolve(false), Ok(snapshot.clone()));
    let fetched = |request: &String| request.contains("/resolve/");
    assert_eq!(server.requests().into_iter().filter(fetched).count(), 0);
    assert_eq!(resolve(true), Ok(snapshot.clone()), "without a network");

    // A snapshot that lacks a file, or holds a part of one, does not count.
    std::fs::write(snapshot.join("model.safetensors"), "half").unwrap();
    let dir = resolve(false).unwrap();
    assert!(dir != snapshot, "{}", dir.display());
    assert_eq!(
        &std::fs::read(dir.join("model.safetensors")).unwrap(),
        server.file("model.safetensors")
    );
}

#[test]
fn a_repository_that_is_no_model_is_refused() {
    let cases: [(&'static [&'static str], &str); 2] = [
        (&["config.json"], "no config.json"),
        (
            &[".safetensors", ".bin"],
            "no *.safetensors file and no pytorch_model.bin",
        ),
    ];
    for (removed, says) in cases {
        let server = Server::start(Behaviour {
            unlisted: removed,
            ..Behaviour::default()
        });
        let cache = Cache::new();
        let error = cache.fetch(&server, None, "hf://owner/model").unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        cache.assert_no_snapshot();
    }
    let server = Server::start(Behaviour {
        not_json: true,
        ..Behaviour::default()
    });
    let error = Cache::new().fetch(&server, None, "hf://owner/model").unwrap_err();
    assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
}

#[test]
fn the_disk_is_asked_first() {
    let server = Server::start(Behaviour::default());
    let cache = Cache::new();
    let local = cache.0.path().join("models/owner/model");
    std::fs::create_dir_all(&local).unwrap();
    assert_eq!(cache.fetch(&server, None, "hf://owner/model"), Ok(local.clone()));
    assert_eq!(
        cache.fetch(&server, None, "owner/model"),
        Ok(local.clone()),
        "a plain path, under paths.models"
    );
    let absolute = local.display().to_string();
    assert_eq!(cache.fetch(&server, None, &absolute), Ok(local.clone()));
    assert_eq!(
        cache.fetch(&server, None, &format!("file://{absolute}")),
        Ok(local.clone())
    );
    assert_eq!(server.requests(), Vec::<String>::new());

    std::fs::write(local.join("config.json"), "{}").unwrap();
    for (uri, says) in [
        ("no/such", "hf://no/such"),
        ("/no/such/dir", "does not exist"),
        (&*format!("{absolute}/config.json"), "is a file"),
        ("builtin:micro", "built into the program"),
    ] {
        let error = cache.fetch(&server, None, uri).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn two_at_once_get_the_same_snapshot() {
    let server = Server::start(Behaviour::default());
    let cache = Cache::new();
    let dirs: Vec<PathBuf> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| cache.fetch(&server, None, "hf://owner/model").unwrap()))
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    assert!(dirs.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(names(&dirs[0]).len(), 6);
}
