use super::{batch, input};
use crate::{CachedScores, Offline, Parts, Random, Scorer, ScorerConfig, WeightPolicy};
use std::fs;

fn key(settings: &str) -> String {
    CachedScores::key("data", &["model", "reference"], settings)
}

fn filled() -> CachedScores {
    let batch = batch(&[(2, 5), (1, 3)], 12);
    let scores = Random::new(4).score(&input(&batch, None)).unwrap();
    let mut cached = CachedScores::new(key("s"));
    cached.add(&batch, &scores);
    cached
}

#[test]
fn scores_come_back_from_disk_and_serve_any_packing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("not/there/yet");
    assert_eq!(CachedScores::load(&cache, &key("s")).unwrap(), None);
    let path = filled().save(&cache).unwrap();
    assert_eq!(path, CachedScores::path(&cache, &key("s")));
    let loaded = CachedScores::load(&cache, &key("s")).unwrap().unwrap();
    assert_eq!(loaded, filled());
    assert_eq!(loaded.len(), 2);
    // Nothing else is left in the directory.
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    let mut offline = Offline::new("random", WeightPolicy::Softmax, loaded);
    assert_eq!((offline.name(), offline.needs().ce), ("random", false));
    for seq_len in [12, 8] {
        let batch = batch(&[(2, 5), (1, 3)], seq_len);
        let direct = Random::new(4).score(&input(&batch, None)).unwrap();
        assert_eq!(offline.score(&input(&batch, None)).unwrap(), direct);
    }
    let larger = batch(&[(2, 5), (1, 4)], 12);
    let message = offline.score(&input(&larger, None)).unwrap_err().to_string();
    assert!(
        message.contains("document doc/11 has 3 cached scores for 4 response tokens"),
        "{message}"
    );
}

#[test]
fn offline_keeps_the_policy() {
    let parts = Parts {
        cached: Some(filled()),
        ..Parts::default()
    };
    let offline = ScorerConfig::Rho1(Default::default()).build(parts).unwrap();
    assert_eq!(offline.name(), "rho1");
    assert_eq!(
        offline.policy(),
        WeightPolicy::Lift {
            top_p: 0.2,
            emphasis: 2.0
        }
    );
}

#[test]
fn the_key_tells_parts_apart() {
    let all = [
        CachedScores::key("a", &["b", "c"], "d"),
        CachedScores::key("a", &["bc"], "d"),
        CachedScores::key("ab", &["c"], "d"),
        CachedScores::key("a", &["c", "b"], "d"),
        CachedScores::key("a", &["b", "c"], "e"),
    ];
    for (i, key) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|other| other != key));
    }
}

#[test]
fn every_altered_or_truncated_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled().save(dir.path()).unwrap();
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut altered = good.clone();
        altered[at] ^= 0x10;
        fs::write(&path, &altered).unwrap();
        // White space inside the header may change without a change of content.
        match CachedScores::load(dir.path(), &key("s")) {
            Err(e) => assert!(e.to_string().contains("delete the file"), "{e}"),
            Ok(loaded) => assert_eq!(loaded, Some(filled()), "byte {at}"),
        }
    }
    for len in (0..good.len()).step_by(7) {
        fs::write(&path, &good[..len]).unwrap();
        assert!(CachedScores::load(dir.path(), &key("s")).is_err(), "{len} bytes");
    }
    fs::rename(&path, CachedScores::path(dir.path(), &key("t"))).unwrap();
    fs::write(CachedScores::path(dir.path(), &key("t")), &good).unwrap();
    let message = CachedScores::load(dir.path(), &key("t")).unwrap_err().to_string();
    assert!(message.contains("are of other data, models or settings"), "{message}");
}
