//! The bucket that the tests use, as another program would see it.

use crate::{unique, variable};
use opendal::{Operator, blocking, options::ListOptions, services::S3};
use std::path::Path;

/// The bucket's name.
pub const BUCKET: &str = "wmtp";

/// A part of the bucket that belongs to one test, removed with it.
pub struct Bucket {
    operator: blocking::Operator,
    prefix: String,
    // Drives the connections until the end.
    _runtime: tokio::runtime::Runtime,
}

impl Bucket {
    pub fn new(test: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        opendal::install_default();
        let service = S3::default()
            .bucket(BUCKET)
            .endpoint(&endpoint())
            .region("us-east-1")
            .access_key_id(&variable("AWS_ACCESS_KEY_ID"))
            .secret_access_key(&variable("AWS_SECRET_ACCESS_KEY"));
        let _guard = runtime.enter();
        let operator = Operator::new(service).expect("a connection");
        let operator = blocking::Operator::new(operator).expect("a runtime");
        drop(_guard);
        Self {
            operator,
            prefix: format!("tests/{}", unique(test)),
            _runtime: runtime,
        }
    }

    /// `s3://…/NAME` of this test.
    pub fn url(&self, name: &str) -> String {
        format!("s3://{BUCKET}/{}", self.key(name))
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    pub fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.operator
            .write(&self.key(name), bytes.into())
            .expect("the server takes it");
    }

    pub fn get(&self, name: &str) -> Vec<u8> {
        self.operator.read(&self.key(name)).expect("it is there").to_vec()
    }

    pub fn delete(&self, name: &str) {
        self.operator.delete(&self.key(name)).expect("the server removes it");
    }

    /// Names of all objects under one, without it, in order.
    pub fn names(&self, under: &str) -> Vec<String> {
        let root = self.key(under);
        let options = ListOptions {
            recursive: true,
            ..ListOptions::default()
        };
        let listed = self
            .operator
            .list_options(&format!("{root}/"), options)
            .expect("a listing");
        let mut names: Vec<String> = listed
            .iter()
            .filter(|entry| entry.metadata().is_file())
            .filter_map(|entry| entry.path().strip_prefix(&format!("{root}/")).map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    /// Sends a directory's files.
    pub fn put_dir(&self, name: &str, dir: &Path) {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            self.put(&format!("{name}/{file}"), std::fs::read(&path).expect("a file"));
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        for name in self.names("") {
            // Best effort: a server that is gone keeps nothing.
            let _ = self
                .operator
                .delete(&format!("{}/{}", self.prefix, name.trim_start_matches('/')));
        }
    }
}

/// Where the tests' S3 server listens.
pub fn endpoint() -> String {
    variable("WMTP_TEST_S3_ENDPOINT")
}
