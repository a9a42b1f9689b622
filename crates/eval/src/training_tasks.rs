//! Problems of an evaluation that were trained on: a score over them measures memory as well as skill.

use serde::Serialize;

/// MBPP's own training split (Austin et al. 2021, section 2.1).
pub const MBPP_TRAINING: (u32, u32) = (601, 974);

/// Some of an evaluation's problems.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TaskSet {
    /// How many.
    pub count: usize,
    /// Their numbers as ranges: `601-607, 609`.
    pub tasks: String,
    /// The same one by one, ascending.
    #[serde(skip)]
    pub numbers: Vec<u32>,
}

impl TaskSet {
    /// Of ascending or unordered numbers, each once.
    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut numbers: Vec<u32> = numbers.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &number in &numbers {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        let text = |(first, last): &(u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        Self {
            count: numbers.len(),
            tasks: ranges.iter().map(text).collect::<Vec<_>>().join(", "),
            numbers,
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Why problems of an evaluation are no unseen ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrainingTasks {
    /// The evaluated run, or one that its model comes from, was trained on these.
    #[serde(skip_serializing_if = "TaskSet::is_empty")]
    pub trained_on: TaskSet,
    /// The run's checkpoint was chosen by its validation loss on these.
    #[serde(skip_serializing_if = "TaskSet::is_empty")]
    pub validated_on: TaskSet,
    /// These are MBPP's own training split, which published models may have been trained on.
    #[serde(skip_serializing_if = "TaskSet::is_empty")]
    pub mbpp_training_split: TaskSet,
    /// Their solutions are in the few-shot prompt.
    #[serde(skip_serializing_if = "TaskSet::is_empty")]
    pub in_prompt: TaskSet,
}

impl TrainingTasks {
    /// Whether no problem is flagged.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a problem is flagged for any reason.
    pub fn contains(&self, task: u32) -> bool {
        [
            &self.trained_on,
            &self.validated_on,
            &self.mbpp_training_split,
            &self.in_prompt,
        ]
        .iter()
        .any(|set| set.numbers.binary_search(&task).is_ok())
    }

    /// A sentence for each reason.
    pub fn sentences(&self) -> Vec<String> {
        let reasons = [
            (
                &self.trained_on,
                "were trained on by this run or one that its model comes from",
            ),
            (&self.validated_on, "were this run's validation problems"),
            (&self.mbpp_training_split, "belong to MBPP's training split"),
            (&self.in_prompt, "have their solution in the prompt"),
        ];
        let seen = reasons.into_iter().filter(|(set, _)| !set.is_empty());
        seen.map(|(set, what)| format!("{} of the evaluated problems ({}) {what}", set.count, set.tasks))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_ranges() {
        let set = TaskSet::of([609, 601, 602, 603, 602, 605]);
        assert_eq!((set.count, set.tasks.as_str()), (5, "601-603, 605, 609"));
        assert_eq!(TaskSet::of([]).tasks, "");
        assert_eq!(TaskSet::of([u32::MAX, 0]).count, 2);
    }

    #[test]
    fn every_reason_is_a_sentence() {
        let seen = TrainingTasks {
            trained_on: TaskSet::of([601, 602]),
            mbpp_training_split: TaskSet::of([601]),
            ..TrainingTasks::default()
        };
        let sentences = seen.sentences();
        assert_eq!(sentences.len(), 2);
        assert!(sentences[0].starts_with("2 of the evaluated problems (601-602) were trained on"));
        assert!(sentences[1].contains("(601) belong to MBPP's training split"));
        assert!(TrainingTasks::default().is_empty() && TrainingTasks::default().sentences().is_empty());
    }
}
