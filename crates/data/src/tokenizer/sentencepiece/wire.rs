//! The wire format of protocol buffers: fields of one message, one after another.
//!
//! A field is a varint key (number and wire type) and a value. Lengths are checked against the bytes that
//! are there, so that a damaged file neither panics nor allocates. A generated reader of four small
//! messages would be more code than this one, and a dependency.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

/// A field's value as it is encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Integers, enumerations and booleans.
    Varint(u64),
    /// A number of 4 bytes, little-endian.
    Fixed32(u32),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// A number of 8 bytes; the messages read here have none.
    Fixed64,
}

/// Bytes that are not a message: cut off, or of another format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Value<'a> {
    /// The bytes of a string or a message.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    /// The text of a string.
    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// The number of an `int32` or an enumeration: negative ones have all 64 bits.
    pub fn int(self) -> Result<i32, Malformed> {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "the format drops the upper bits")]
            Self::Varint(value) => Ok(value as i32),
            _ => Err(Malformed),
        }
    }

    /// Whether a boolean is set.
    pub fn flag(self) -> Result<bool, Malformed> {
        match self {
            Self::Varint(value) => Ok(value != 0),
            _ => Err(Malformed),
        }
    }

    /// A `float`.
    pub fn float(self) -> Result<f32, Malformed> {
        match self {
            Self::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(Malformed),
        }
    }
}

/// The fields of a message: number and value, in the order of the file. Ends after the first error.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// At most 10 groups of 7 bits, the lowest first.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(Malformed) };
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Malformed)?)),
            // Groups, which SentencePiece does not use, and two numbers without a meaning.
            _ => return Err(Malformed),
        };
        match key >> 3 {
            0 => Err(Malformed),
            number => Ok((number, value)),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
