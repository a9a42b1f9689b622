use crate::{
    SetupError,
    redact::{credentials, redact},
};
use std::fmt;

/// An MLflow server's address, and what opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: String,
    pub(super) access: Access,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Access {
    Open,
    Bearer(String),
    Basic(String, String),
}

/// Says how the server is opened, never with what.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Open => "open",
            Access::Bearer(_) => "token",
            Access::Basic(..) => "password",
        };
        f.debug_struct("Address")
            .field("url", &self.url)
            .field("access", &access)
            .finish()
    }
}

impl Address {
    /// The address in the settings, else `MLFLOW_TRACKING_URI`; opened with `MLFLOW_TRACKING_TOKEN`,
    /// else `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, else what stands in the
    /// variable's address.
    ///
    /// # Errors
    /// There is no address, or it is not that of an HTTP server.
    pub fn find(setting: Option<&str>) -> Result<Self, SetupError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let url = setting
            .map(str::to_owned)
            .or_else(|| variable("MLFLOW_TRACKING_URI"))
            .ok_or_else(|| {
                SetupError(
                    "`tracking.kinds` names mlflow and there is no server: set tracking.mlflow.uri or MLFLOW_TRACKING_URI to http://HOST:PORT"
                        .into(),
                )
            })?;
        let name_and_password =
            variable("MLFLOW_TRACKING_USERNAME").zip(Some(variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default()));
        Self::new(&url, variable("MLFLOW_TRACKING_TOKEN").as_deref(), name_and_password)
    }

    /// An address (`http://` or `https://`), with a token or with a name and a password.
    ///
    /// # Errors
    /// It is not that of an HTTP server, or the token holds characters that no token has.
    pub fn new(url: &str, token: Option<&str>, name: Option<(String, String)>) -> Result<Self, SetupError> {
        let url = url.trim().trim_end_matches('/');
        let shown = redact(url);
        let is_http = ["http://", "https://"]
            .iter()
            .any(|scheme| shown.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        if !is_http {
            return Err(SetupError(format!(
                "`{shown}` is no MLflow server's address: it must start with http:// or https://"
            )));
        }
        let access = match (token.map(str::trim), name.or_else(|| credentials(url))) {
            (Some(token), _) if !token.chars().all(|c| c.is_ascii_graphic()) => {
                return Err(SetupError(
                    "MLFLOW_TRACKING_TOKEN holds characters that no token has: set it again".into(),
                ));
            }
            (Some(token), _) => Access::Bearer(token.to_owned()),
            (None, Some((name, password))) => Access::Basic(name, password),
            (None, None) => Access::Open,
        };
        Ok(Self { url: shown, access })
    }

    /// Without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_an_address() {
        let address = Address::new("http://me:se%40cret@host:5000/", None, None).unwrap();
        assert_eq!(address.url(), "http://host:5000");
        assert!(address.access == Access::Basic("me".into(), "se@cret".into()));
        assert!(!format!("{address:?}").contains("cret"));
        let token = Address::new("http://me:secret@host", Some("tok"), None).unwrap();
        assert!(token.access == Access::Bearer("tok".into()));
    }

    #[test]
    fn what_is_no_server_is_refused_without_showing_passwords() {
        for bad in ["mlruns", "file:///x", "ftp://u:secret@host", "http://"] {
            let error = Address::new(bad, None, None).unwrap_err().to_string();
            assert!(
                error.contains("no MLflow server") && !error.contains("secret"),
                "{error}"
            );
        }
        assert!(Address::new("http://h", Some("a b"), None).is_err());
    }
}
