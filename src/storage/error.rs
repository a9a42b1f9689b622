/// Something that can't be fetched or found. No message ever holds a token.
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
    /// The hub wants another token, or one at all.
    #[error("{endpoint} refuses {uri} (status {status}): it may be private or gated, {advice}")]
    Denied {
        /// The server, without credentials.
        endpoint: String,
        /// What was asked for.
        uri: String,
        /// 401 or 403.
        status: u16,
        /// What to do about the token.
        advice: &'static str,
    },
    /// The hub has no such repository, revision or file.
    #[error("{endpoint} has no {uri}: check owner, name and revision; a private model needs HF_TOKEN")]
    NotFound {
        /// The server, without credentials.
        endpoint: String,
        /// What was asked for.
        uri: String,
    },
    /// The hub did not answer as it should, after all retries.
    #[error("fetching {uri} from {endpoint} failed: {problem}")]
    Network {
        /// The server, without credentials.
        endpoint: String,
        /// What was asked for.
        uri: String,
        /// What happened and what to do.
        problem: String,
    },
    /// The hub's repository is not a model directory.
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
}
