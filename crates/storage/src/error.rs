/// Something that can't be fetched, found or sent. No message ever holds a token or key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// A URI of an unknown or incomplete form.
    #[error("`{uri}` {problem}")]
    BadUri {
        /// What was written.
        uri: String,
        /// What is wrong and what to do, starting with a verb.
        problem: String,
    },
    /// A path that is not there, or not of the right sort.
    #[error("{what} `{path}` {problem}")]
    Missing {
        /// `model` or `data set`.
        what: &'static str,
        /// What was written.
        path: String,
        /// What is wrong and what to do, starting with a verb.
        problem: String,
    },
    /// The network may not be used.
    #[error(
        "{uri} is not in the cache, and storage.offline forbids fetching it: set it to false, or give a local directory"
    )]
    Offline {
        /// What was asked for.
        uri: String,
    },
    /// Not in a program that was built without the network.
    #[error(
        "{uri} is not on this disk, and this program was built without access to S3 and the model hub: build it with the feature `remote`, or give a local directory"
    )]
    NotBuilt {
        /// What was asked for.
        uri: String,
    },
    /// The server wants another token or key, or one at all.
    #[error("{endpoint} refuses {uri} (status {status}): {advice}")]
    Denied {
        /// The server, without credentials.
        endpoint: String,
        /// What was asked for.
        uri: String,
        /// 401 or 403.
        status: u16,
        /// What to do about token or key.
        advice: &'static str,
    },
    /// The server will not carry out an upload, and says why.
    #[error("{endpoint} refuses {uri} (status {status}): {problem}")]
    Refused {
        /// The server, without credentials.
        endpoint: String,
        /// What was to be sent.
        uri: String,
        /// The HTTP status.
        status: u16,
        /// The reason, and what to do.
        problem: String,
    },
    /// The server has no such repository, bucket, revision or file.
    #[error("{endpoint} has no {uri}: {advice}")]
    NotFound {
        /// The server, without credentials.
        endpoint: String,
        /// What was asked for.
        uri: String,
        /// What to check.
        advice: &'static str,
    },
    /// The server did not answer as it should, after all retries.
    #[error("{doing} {uri} {preposition} {endpoint} failed: {problem}", preposition = if *.doing == "fetching" { "from" } else { "at" })]
    Network {
        /// `fetching`, `sending`, `listing` or `removing`.
        doing: &'static str,
        /// The server, without credentials.
        endpoint: String,
        /// What was asked for.
        uri: String,
        /// What happened and what to do.
        problem: String,
    },
    /// An object became another while it was fetched.
    #[error("{uri} on {endpoint} changed while it was fetched, time and again: try when nobody writes it")]
    Changed {
        /// The server, without credentials.
        endpoint: String,
        /// What was asked for.
        uri: String,
    },
    /// What arrives is not what was listed, time and again.
    #[error("{uri} on {endpoint} is damaged: {problem}")]
    Damaged {
        /// The server, without credentials.
        endpoint: String,
        /// What was asked for.
        uri: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What was found is not a model directory.
    #[error("{uri} is not a usable model: {problem}")]
    NotAModel {
        /// What was asked for.
        uri: String,
        /// What is missing.
        problem: String,
    },
    /// The cache can't be written.
    #[error("cannot write the cache `{path}`: {reason}; choose another with paths.cache")]
    Cache {
        /// The directory or file.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// A file to send can't be read, or a fetched run can't be put in its place.
    #[error("{what} `{path}` failed: {reason}")]
    Disk {
        /// `reading`, `making`, ...
        what: &'static str,
        /// The directory or file.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// No run to resume.
    #[error("{uri} holds no {what}: {problem}")]
    NoRun {
        /// Where it was looked for.
        uri: String,
        /// `run` or `complete checkpoint`.
        what: &'static str,
        /// What was found instead, and what to do.
        problem: String,
    },
}
