use super::*;
use crate::ids::Digest;

fn entry(number: u64, id: u8, first: u64) -> LineageEntry {
    let generation = Generation { number, id: [id; 16] };
    let digest = Digest([u8::try_from(first % 251).unwrap(); 32]);
    LineageEntry { generation, first_epoch: Epoch(first), digest }
}

/// A generation that was formatted, and one that was promoted over it behind epoch 100.
fn first() -> Vec<LineageEntry> {
    vec![entry(1, 1, 1)]
}

fn promoted(id: u8, fork: u64) -> Vec<LineageEntry> {
    vec![entry(1, 1, 1), entry(2, id, fork + 1)]
}

fn primary(lineage: Vec<LineageEntry>, last: u64) -> Standing {
    let (role, content) = (Role::Primary, Content::Consistent);
    let last_epoch = Epoch(last);
    Standing { role, content, lineage, last_epoch, alone: None, numbered: None, with_loss: false }
}

fn alone(standing: Standing, since: u64) -> Standing {
    Standing { alone: Some(Epoch(since)), ..standing }
}

fn backup(lineage: Vec<LineageEntry>, last: u64) -> Standing {
    Standing { role: Role::Backup, ..primary(lineage, last) }
}

fn holding(standing: Standing, content: Content) -> Standing {
    Standing { content, ..standing }
}

/// What I find, and what the other side finds of me at the same time.
fn both(mine: &Standing, theirs: &Standing) -> (Relation, Relation) {
    (compare(mine, theirs), compare(theirs, mine))
}

#[test]
fn one_history() {
    use Relation::{Outdated, Overtakes, Same};
    let p = primary(first(), 90);
    assert_eq!(both(&p, &backup(first(), 90)), (Same, Same));
    assert_eq!(both(&p, &backup(first(), 80)), (Same, Same), "behind");
    assert_eq!(both(&p, &backup(first(), 95)), (Same, Same), "ahead of what the primary knows");
    let q = primary(promoted(2, 100), 120);
    let fork = Epoch(100);
    // Put away before the other was promoted: a backup that is behind.
    assert_eq!(both(&q, &backup(first(), 100)), (Overtakes { fork }, Outdated { fork }));
    assert_eq!(both(&q, &backup(first(), 40)), (Overtakes { fork }, Outdated { fork }));
    let inconsistent = Content::Inconsistent { base_id: [1; 16], base: None };
    for content in [inconsistent, Content::Outdated { fork: Some(fork) }, Content::Outdated { fork: None }] {
        let b = holding(backup(first(), 140), content);
        assert_eq!(both(&q, &b), (Overtakes { fork }, Outdated { fork }), "{content:?}");
    }
}

#[test]
fn nothing_there_yet_or_nothing_in_common() {
    use Relation::{Fresh, Unrelated};
    let fresh = holding(backup(vec![], 0), Content::Blank);
    assert_eq!(both(&primary(first(), 90), &fresh), (Fresh, Fresh));
    assert_eq!(both(&alone(primary(promoted(2, 100), 110), 100), &fresh), (Fresh, Fresh), "a replaced disk");
    let other = vec![entry(1, 9, 1)];
    assert_eq!(both(&primary(first(), 90), &backup(other.clone(), 90)), (Unrelated, Unrelated));
    assert_eq!(both(&primary(first(), 90), &primary(other, 90)), (Unrelated, Unrelated));
    // The same id with another beginning is no proof of anything.
    let forged = vec![entry(1, 1, 7)];
    assert_eq!(both(&primary(first(), 90), &backup(forged, 90)), (Unrelated, Unrelated));
}

#[test]
fn promoted_once() {
    use Relation::{Outdated, Overtakes, SplitBrain};
    let fork = Epoch(100);
    let (old, new) = (primary(first(), 100), primary(promoted(2, 100), 100));
    assert_eq!(both(&old, &new), (Outdated { fork }, Overtakes { fork }));
    let went_on = alone(primary(promoted(2, 100), 130), 100);
    assert_eq!(both(&old, &went_on), (Outdated { fork }, Overtakes { fork }), "the new one went on");
    assert_eq!(both(&alone(old, 98), &went_on), (SplitBrain { fork }, SplitBrain { fork }));
    // A backup that committed more than what the other was promoted at, from a copy of it.
    let ahead = backup(first(), 101);
    assert_eq!(both(&ahead, &went_on), (SplitBrain { fork }, SplitBrain { fork }));
}

#[test]
fn a_primary_whose_disks_were_put_back() {
    use Relation::{Same, SplitBrain};
    let numbered = |last, numbered| Standing { numbered: Some(Epoch(numbered)), ..primary(first(), last) };
    for (numbers, found) in [(95, Same), (120, Same), (94, SplitBrain { fork: Epoch(90) })] {
        assert_eq!(both(&numbered(90, numbers), &backup(first(), 95)), (found, found), "{numbers}");
    }
    // Nothing of it could be promoted.
    for content in [Content::Inconsistent { base_id: [1; 16], base: None }, Content::Outdated { fork: None }]
    {
        assert_eq!(both(&numbered(90, 94), &holding(backup(first(), 95), content)), (Same, Same));
    }
}

#[test]
fn a_promote_that_took_a_loss_gives_way_to_nobody_and_overwrites_nobody_by_itself() {
    use Relation::{Outdated, Overtakes, SplitBrain};
    let fork = Epoch(100);
    let split = (SplitBrain { fork }, SplitBrain { fork });
    let old = primary(first(), 100);
    let lossy = Standing { with_loss: true, ..alone(primary(promoted(2, 100), 130), 100) };
    assert_eq!(both(&old, &lossy), split, "the old one may have what was lost");
    let put_away = holding(backup(first(), 100), Content::Outdated { fork: Some(fork) });
    assert_eq!(both(&put_away, &lossy), (Outdated { fork }, Overtakes { fork }), "a person gave it up");
    assert_eq!(both(&backup(first(), 90), &lossy), (Outdated { fork }, Overtakes { fork }));
}

#[test]
fn promoted_both() {
    let split = |fork| Relation::SplitBrain { fork: Epoch(fork) };
    for (a, b) in [(100, 100), (130, 100), (100, 170), (130, 170)] {
        // Both went on, one of them, or neither wrote an epoch: nobody can tell which counts.
        let (p, q) = (primary(promoted(2, 100), a), primary(promoted(3, 100), b));
        assert_eq!(both(&p, &q), (split(100), split(100)));
    }
    let (p, q) = (primary(promoted(2, 100), 100), primary(promoted(3, 80), 80));
    assert_eq!(both(&p, &q), (split(80), split(80)));
    let further = [promoted(2, 100), vec![entry(3, 4, 151)]].concat();
    let split_brain = both(&primary(further, 160), &primary(promoted(3, 80), 90));
    assert_eq!(split_brain, (split(80), split(80)), "the first fork counts");
    assert_eq!(both(&primary(first(), 9), &primary(first(), 7)), (split(7), split(7)), "a copied state");
}

#[test]
fn a_side_that_stepped_down_has_no_say_any_more() {
    let (fork, put_away) = (Epoch(80), Content::Outdated { fork: Some(Epoch(80)) });
    let mine = alone(primary(promoted(2, 100), 130), 100);
    let theirs = holding(backup(promoted(3, 80), 170), put_away);
    let overtakes = (Relation::Overtakes { fork }, Relation::Outdated { fork });
    assert_eq!(both(&mine, &theirs), overtakes, "a split brain was resolved");
    let first_one = alone(primary(first(), 130), 70);
    assert_eq!(both(&first_one, &theirs), overtakes, "the promoted one gave way");
}

#[test]
fn promoted_again_and_again() {
    use Relation::{Outdated, Overtakes, Unrelated};
    let chain: Vec<_> = (1u8..=9).map(|n| entry(n.into(), n, u64::from(n) * 100)).collect();
    for older in 1..9usize {
        let fork = Epoch((older as u64 + 1) * 100 - 1);
        let (old, new) = (primary(chain[..older].to_vec(), fork.0), primary(chain.clone(), 950));
        assert_eq!(both(&old, &new), (Outdated { fork }, Overtakes { fork }));
        // The beginning was dropped from a long lineage; what both still have is proof enough.
        let cut = primary(chain[older - 1..].to_vec(), 950);
        assert_eq!(both(&old, &cut), (Outdated { fork }, Overtakes { fork }));
        let too_short = primary(chain[older..].to_vec(), 950);
        assert_eq!(both(&old, &too_short), (Unrelated, Unrelated));
    }
}

#[test]
fn both_sides_always_agree_on_what_is_lost() {
    let lineages =
        [vec![], first(), promoted(2, 100), promoted(3, 100), promoted(3, 80), vec![entry(1, 9, 1)]];
    let contents = [
        Content::Blank,
        Content::Consistent,
        Content::Outdated { fork: None },
        Content::Inconsistent { base_id: [1; 16], base: None },
    ];
    let mut all = Vec::new();
    for lineage in lineages {
        for content in contents {
            for role in [Role::Primary, Role::Backup] {
                for alone in [None, Some(Epoch(100))] {
                    for (numbered, with_loss) in [(None, false), (Some(Epoch(90)), false), (None, true)] {
                        let (last_epoch, lineage) = (Epoch(100), lineage.clone());
                        all.push(Standing { role, content, lineage, last_epoch, alone, numbered, with_loss });
                    }
                }
            }
        }
    }
    for (mine, theirs) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
        let mirrored = match compare(theirs, mine) {
            Relation::Outdated { fork } => Relation::Overtakes { fork },
            Relation::Overtakes { fork } => Relation::Outdated { fork },
            other => other,
        };
        assert_eq!(compare(mine, theirs), mirrored, "{mine:?} and {theirs:?}");
    }
}

#[test]
fn a_standing_says_who_it_is() {
    let text = alone(primary(promoted(2, 100), 130), 100).to_string();
    assert_eq!(text, "primary of generation 2, epoch 130, alone since epoch 100");
}
