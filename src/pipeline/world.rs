//! The small world as training data: `builtin:world`.

use crate::data::{Body, DataError, Place, Record, Sample, Tests, source::Dataset};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use wmtp_world::{Task, World, WorldConfig};

/// One side of the small world: its training tasks, or the held-out ones.
pub struct WorldTasks {
    name: String,
    tasks: Vec<Task>,
}

impl WorldTasks {
    /// The training tasks, and the tasks of held-out combinations.
    pub fn both() -> [Self; 2] {
        let world = World::new(&WorldConfig::default());
        let named = |name: &str, tasks| Self {
            name: name.into(),
            tasks,
        };
        [
            named("builtin:world", world.training),
            named("builtin:world, held out", world.held_out),
        ]
    }
}

impl Dataset for WorldTasks {
    fn name(&self) -> &str {
        &self.name
    }

    /// One record a task: its right programs with reward 1, its wrong ones with reward 0.
    fn records(&self) -> Box<dyn Iterator<Item = Result<Record, DataError>> + Send + '_> {
        let file: Arc<str> = self.name.as_str().into();
        Box::new(self.tasks.iter().map(move |task| Ok(record(task, file.clone()))))
    }

    fn hash(&self) -> Result<String, DataError> {
        Ok(hex::encode(Sha256::digest(format!("{:?}", self.tasks))))
    }

    fn len_hint(&self) -> Option<usize> {
        Some(self.tasks.len())
    }
}

fn record(task: &Task, file: Arc<str>) -> Record {
    let sample = |code: &str, reward: f32| Sample {
        reward: Some(reward),
        ..Sample::new(Body::Completion {
            prompt: task.prompt(),
            completion: Task::response(code),
        })
    };
    let right = task.right.iter().map(|program| sample(&program.code, 1.0));
    let wrong = task.wrong.iter().map(|mistake| sample(&mistake.code, 0.0));
    Record {
        place: Place {
            file,
            row: task.id as usize,
        },
        schema: "world",
        task_id: Some(task.name.clone()),
        samples: right.chain(wrong).collect(),
        tests: Some(Tests::Asserts {
            setup: String::new(),
            asserts: task.tests.clone(),
            entry_point: Some(task.entry_point.clone()),
        }),
        language: Some("python".into()),
    }
}
