//! What stands for the network in a program built without the feature `remote`: connecting is refused, and
//! without a connection none of the methods can be called.

use super::{Broken, Endpoint, Found};
use crate::{HubName, Kind, StorageConfig, StorageError, listing::Listing};
use std::{convert::Infallible, io::Read, ops::Range};

fn refused(uri: impl ToString) -> StorageError {
    StorageError::NotBuilt { uri: uri.to_string() }
}

#[derive(Clone)]
pub(crate) struct Remote {
    never: Infallible,
    pub endpoint: String,
    pub config: StorageConfig,
}

impl Remote {
    pub fn read(
        &self,
        _: &str,
        _: &str,
        _: Option<Range<u64>>,
        _: Option<&str>,
        _: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), Broken> {
        match self.never {}
    }

    pub fn patiently<T>(&self, _: impl FnMut() -> Result<T, Broken>) -> Result<T, Broken> {
        match self.never {}
    }

    pub fn quiet(&self) {
        match self.never {}
    }

    pub fn network(&self, _: &'static str, _: &str, _: &str) -> StorageError {
        match self.never {}
    }

    pub fn give_up(&self, _: Broken, _: &str) -> StorageError {
        match self.never {}
    }
}

pub(crate) struct Hub(Infallible);

impl Hub {
    pub fn connect(name: &HubName, _: Kind, _: &Endpoint, _: &StorageConfig) -> Result<Self, StorageError> {
        Err(refused(name))
    }

    pub fn remote(&self) -> &Remote {
        match self.0 {}
    }

    pub fn pinned(&self, _: &str) -> HubName {
        match self.0 {}
    }

    pub fn revision(&self) -> Result<(String, Vec<String>), StorageError> {
        match self.0 {}
    }

    pub fn listing(&self, _: &str, _: Vec<String>) -> Result<Listing, StorageError> {
        match self.0 {}
    }
}

#[derive(Clone, Debug)]
pub(crate) struct S3(Infallible);

impl S3 {
    pub fn connect(bucket: &str, _: &StorageConfig) -> Result<Self, StorageError> {
        Err(refused(format!("s3://{bucket}")))
    }

    pub fn remote(&self) -> &Remote {
        match self.0 {}
    }

    pub fn list(&self, _: &str) -> Result<Vec<Found>, StorageError> {
        match self.0 {}
    }

    pub fn directories(&self, _: &str) -> Result<Vec<String>, StorageError> {
        match self.0 {}
    }

    pub fn find_bucket(&self) -> Result<(), StorageError> {
        match self.0 {}
    }

    pub fn stat(&self, _: &str) -> Result<Option<Found>, StorageError> {
        match self.0 {}
    }

    pub fn get(&self, _: &str) -> Result<Option<Vec<u8>>, StorageError> {
        match self.0 {}
    }

    pub fn put(&self, _: &str, _: &[u8]) -> Result<(), StorageError> {
        match self.0 {}
    }

    pub fn send<R: Read>(
        &self,
        _: &str,
        _: u64,
        _: &str,
        _: &mut dyn FnMut() -> Result<R, StorageError>,
        _: &mut dyn FnMut(u64),
    ) -> Result<(), StorageError> {
        match self.0 {}
    }

    pub fn copy(&self, _: &str, _: &str, _: u64) -> Result<bool, StorageError> {
        match self.0 {}
    }

    pub fn delete(&self, _: &str) -> Result<(), StorageError> {
        match self.0 {}
    }
}
