//! `text`: loss on everything.

use super::{Schema, optional};
use crate::Body;

/// A text.
pub(super) const SCHEMA: Schema = Schema {
    name: "text",
    fits: |row| row.has("text"),
    read: |row, schema| {
        let body = Body::Text(row.trained_text("text")?);
        optional::record(row, schema, vec![optional::Part::new(body)])
    },
};
