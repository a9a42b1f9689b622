//! The small world: short programming tasks that a model of a few million parameters learns in minutes.
//!
//! A task takes a list of numbers or a string, filters its elements, maps them and reduces them. It has a
//! description, asserts, right programs in several styles, and for each of them a wrong program that differs in
//! one natural mistake. Everything is a pure function of the seed and the sizes.
//!
//! * **Truth.** Expected values are computed by evaluating the task's tree; a mistake is another tree,
//!   and is kept only if one of the tests fails with it. No program is run. Python's semantics are kept: `//` and
//!   `%` of negative numbers round down, strings are ASCII and compare by code point.
//! * **Generalisation.** A tenth of the combinations of input, filter, map and reduction is held out: no program
//!   of a training task, right or wrong, has one of them.
//! * **Labels.** A task's right and wrong programs share names, style and layout, and an edit and its reverse are
//!   made equally often, so that a classifier without the description stays at chance.
//!
//! The tasks need few of Python's statements and functions: results here say little about programs in general.
//!
//! ```
//! use wmtp_world::{World, WorldConfig};
//!
//! let world = World::new(&WorldConfig { training: 100, ..WorldConfig::default() });
//! let task = &world.training[0];
//! assert!(task.prompt().ends_with("\n[BEGIN]\n"));
//! assert_eq!(task.right.len(), task.wrong.len());
//! ```

mod balance;
mod draw;
mod filter;
mod input;
mod map;
mod mistake;
mod reduce;
mod style;
mod task;
mod tree;
mod value;
mod world;

pub use mistake::MistakeKind;
pub use style::Style;
pub use task::{DONE, Mistake, Program, Task};
pub use world::{World, WorldConfig};
