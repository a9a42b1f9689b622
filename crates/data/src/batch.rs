//! A packed micro-batch, as numbers on the host.

/// One document inside a [`Batch`]: where it lies and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Index of the document in its data set, so that a score can be cached or an error can name it.
    pub sample: usize,
    /// Name for people: `mbpp/601/reference`.
    pub name: String,
    /// Solutions of one problem share this number.
    pub problem: u32,
    /// Row of the batch, 0..B.
    pub row: usize,
    /// First token of the document within the row.
    pub start: usize,
    /// Tokens of prompt and response together.
    pub len: usize,
    /// Tokens of the prompt; the response is `start + prompt_len .. start + len`. In a conversation the
    /// response also has tokens that are not trained ([`Batch::trained`]).
    pub prompt_len: usize,
    /// Verified label: 1 if the program passed its tests, 0 if not, None if unknown.
    pub reward: Option<f32>,
}

impl Document {
    /// Flat indices `b * S + t` of the response tokens, in order.
    pub fn response(&self, seq_len: usize) -> std::ops::Range<usize> {
        let base = self.row * seq_len + self.start;
        base + self.prompt_len..base + self.len
    }
}

/// A packed micro-batch of B rows and S columns; all vectors are row-major `[B, S]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Rows, B.
    pub rows: usize,
    /// Columns, S.
    pub seq_len: usize,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Positions, restarting at 0 in each document.
    pub positions: Vec<u32>,
    /// Document number within the row, counted from 0; padding has [`Batch::PADDING`].
    pub docs: Vec<i32>,
    /// True where the token belongs to what the model must learn to write.
    pub response: Vec<bool>,
    /// The weight that the data give the token, 1 where they say nothing.
    pub given: Vec<f32>,
    /// The documents, in row and column order.
    pub documents: Vec<Document>,
}

impl Batch {
    /// Document number of padding: padding attends to itself only and is never a target.
    pub const PADDING: i32 = -1;
    /// Target of a row that has none; the loss skips it.
    pub const NO_TARGET: i32 = -1;

    /// The ragged form: the same documents packed without padding, one after another in a single row,
    /// each with a number of its own. Positions, attention and targets never leave a document, so every
    /// one computes what it computed before, and where attention goes document by document nothing is
    /// spent on padding.
    pub fn ragged(&self) -> Self {
        let total = self.documents.iter().map(|d| d.len).sum();
        let mut batch = Self {
            rows: 1,
            seq_len: total,
            tokens: Vec::with_capacity(total),
            positions: Vec::with_capacity(total),
            docs: Vec::with_capacity(total),
            response: Vec::with_capacity(total),
            given: Vec::with_capacity(total),
            documents: Vec::with_capacity(self.documents.len()),
        };
        for (document, number) in self.documents.iter().zip(0..) {
            let first = document.row * self.seq_len + document.start;
            let range = first..first + document.len;
            batch.documents.push(Document {
                row: 0,
                start: batch.tokens.len(),
                ..document.clone()
            });
            batch.tokens.extend(&self.tokens[range.clone()]);
            batch.positions.extend(&self.positions[range.clone()]);
            batch.docs.extend(range.clone().map(|_| number));
            batch.response.extend(&self.response[range.clone()]);
            batch.given.extend(&self.given[range]);
        }
        batch
    }

    /// Flat indices of the tokens of `document` that are trained, in order.
    pub fn trained(&self, document: &Document) -> impl Iterator<Item = usize> + use<'_> {
        let mut response = document.response(self.seq_len);
        std::iter::from_fn(move || response.find(|&i| self.response.get(i).copied().unwrap_or_default()))
    }

    /// `valid_k(t)` of section 1 for every position: the token k steps ahead exists, is of the
    /// same document and belongs to a response.
    pub fn valid(&self, k: usize) -> Vec<bool> {
        (0..self.tokens.len())
            .map(|i| {
                let t = i % self.seq_len;
                t + k < self.seq_len
                    && self.docs[i] != Self::PADDING
                    && self.response[i + k]
                    && self.docs[i] == self.docs[i + k]
            })
            .collect()
    }

    /// Head k's target at every position, [`Batch::NO_TARGET`] where there is none.
    pub fn targets(&self, k: usize) -> Vec<i32> {
        self.valid(k)
            .iter()
            .enumerate()
            .map(|(i, &valid)| {
                if valid {
                    self.tokens[i + k] as i32
                } else {
                    Self::NO_TARGET
                }
            })
            .collect()
    }

    /// The loss's denominator: response tokens j with valid_1(j - 1).
    pub fn response_tokens(&self) -> usize {
        self.valid(1).iter().filter(|&&v| v).count()
    }
}
