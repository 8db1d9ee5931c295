//! Files that only mean something together, and the last good thing they meant.
//!
//! What is held changes by content alone, however it was noticed that there may be something new, and only for
//! something better: a file that is half-written, or wrong, or gone, leaves what was there in place.

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::file::{self, Stamp, Way};
use crate::config::Diagnostics;

/// A writer may need a moment between one file and the next. What is wrong for less than this is nobody's business.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long a file may take to write, by whoever writes it in pieces.
const WRITING: Duration = Duration::from_secs(2);

/// What only waits is told when it has waited longer than anything is made to wait.
const WAITING: Duration = Duration::from_secs(6);

/// A file's bytes, or why there are none.
pub type Content = Result<Zeroizing<Vec<u8>>, String>;

/// What files were found to hold.
pub enum Offer<T> {
    /// Better than anything held before.
    Take(T),
    /// What is held already, in other words.
    Same,
    /// Works, but not as it should: for want of something fit.
    LastResort(T),
    /// Not to be used now, though it may be later with nothing changed.
    Later,
    Nothing,
}

/// What there is to know for a judgement besides the content.
pub struct Circumstances<'a, T> {
    pub held: Option<&'a T>,
    pub attention: Attention,
    /// How long the files have been what they are now.
    pub unchanged_for: Duration,
    pub now: SystemTime,
}

impl<T> Circumstances<'_, T> {
    /// Whether these files may be on their way to another content: somebody writes in pieces, nobody said that all is
    /// there, and it is not long ago.
    pub fn may_be_unfinished(&self, contents: &[Content]) -> bool {
        let lacks_end = |content: &Content| content.as_ref().is_ok_and(|text| !text.ends_with(b"\n"));
        self.is_fresh() && contents.iter().any(lacks_end)
    }

    /// Whether what is less than before may still become more.
    pub fn is_fresh(&self) -> bool {
        self.held.is_some() && self.attention == Attention::Glance && self.unchanged_for < WRITING
    }
}

/// How closely files are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// From outside; they are read if that shows a difference.
    Glance,
    /// They are read.
    Read,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Unchanged,
    Taken,
    /// The files hold something else than what is held, and it is not taken.
    Refused,
}

/// What is held, and of which files.
#[derive(Debug)]
pub struct Held<T> {
    value: Option<T>,
    pub files: Files,
}

/// Files that belong together, and how they were found.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    /// Where a change can be seen.
    way: Way,
    seen: Option<Seen>,
    /// Of the content that is held.
    held: Option<[u8; 32]>,
    /// How often a content was taken.
    generation: u64,
    taken_at: SystemTime,
    trouble: Option<Trouble>,
    /// Whether they were read since somebody asked.
    were_read: bool,
}

/// The files as they were when they were read last.
#[derive(Debug)]
struct Seen {
    stamps: Vec<Option<Stamp>>,
    digest: [u8; 32],
    /// Whether all of them could be read. What hinders may pass without a trace on the files.
    is_whole: bool,
    /// When this content was seen first.
    since: Instant,
}

/// Why the files' content is not what is held.
#[derive(Debug)]
pub struct Trouble {
    pub diagnostics: Diagnostics,
    since: Instant,
    /// Whether it may go away with nothing changed.
    passing: bool,
    told: bool,
}

impl Trouble {
    fn new(diagnostics: Diagnostics) -> Self {
        Self { diagnostics, since: Instant::now(), passing: false, told: false }
    }

    /// The same trouble, as it is now: of the same content, and as bad. Messages that say how long it has lasted or will
    /// last are no new ones.
    fn lasting(self, diagnostics: Diagnostics) -> Self {
        if self.diagnostics.has_errors() == diagnostics.has_errors() {
            Self { diagnostics, ..self }
        } else {
            Self::new(diagnostics)
        }
    }

    fn is_unsettled(&self) -> bool {
        !self.told || (self.passing && self.since.elapsed() < 10 * PATIENCE)
    }

    /// What is to be said of it, which has been said then.
    pub fn told(&mut self) -> &Diagnostics {
        self.told = true;
        &self.diagnostics
    }

    /// What is to be said of it now: once, when it has lasted.
    pub fn tell(&mut self) -> Option<&Diagnostics> {
        let patience = if self.diagnostics.has_errors() { PATIENCE } else { WAITING };
        (!self.told && self.since.elapsed() >= patience).then(|| self.told())
    }
}

impl Files {
    fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            way: Way::of_all(&paths),
            paths,
            seen: None,
            held: None,
            generation: 0,
            taken_at: SystemTime::UNIX_EPOCH,
            trouble: None,
            were_read: false,
        }
    }

    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether they were others until now.
    pub fn set_paths(&mut self, paths: Vec<PathBuf>) -> bool {
        if self.paths == paths {
            return false;
        }
        self.way = Way::of_all(&paths);
        self.paths = paths;
        self.seen = None;
        self.were_read = true;
        true
    }

    /// Where a change can be seen.
    pub fn directories(&self) -> &[PathBuf] {
        &self.way.directories
    }

    /// What changes there have to do with them that only change the content of something.
    pub fn names(&self) -> &[OsString] {
        &self.way.names
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn taken_at(&self) -> SystemTime {
        self.taken_at
    }

    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    pub fn trouble_mut(&mut self) -> Option<&mut Trouble> {
        self.trouble.as_mut()
    }

    /// Whether they were read since this was asked last, so that a change may now be seen elsewhere.
    pub fn take_read(&mut self) -> bool {
        std::mem::take(&mut self.were_read)
    }

    /// Whether something may come of looking again soon.
    pub fn are_unsettled(&self) -> bool {
        self.seen.is_none() || self.trouble.as_ref().is_some_and(Trouble::is_unsettled)
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.paths.iter().map(|path| Stamp::of(path)).collect()
    }

    fn are_as_seen(&self, stamps: &[Option<Stamp>], now: SystemTime) -> bool {
        let settled = |stamp: &Option<Stamp>| stamp.as_ref().is_none_or(|stamp| stamp.is_settled(now));
        let same = |seen: &Seen| seen.is_whole && seen.stamps == stamps;
        self.seen.as_ref().is_some_and(same) && stamps.iter().all(settled)
    }

    fn trouble_may_pass(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.passing)
    }

    /// All of them as they were at one time; `None` if they change faster than they can be read.
    fn contents(&self) -> Option<(Vec<Content>, Vec<Option<Stamp>>)> {
        for pause in [0, 5, 20] {
            thread::sleep(Duration::from_millis(pause));
            let before = self.stamps();
            let contents = self.paths.iter().map(|path| file::read(path)).collect();
            if self.stamps() == before {
                return Some((contents, before));
            }
        }
        None
    }

    /// Reads the files if there may be something new in them.
    fn read(&mut self, attention: Attention, now: SystemTime) -> Reading {
        let stamps = self.stamps();
        if attention == Attention::Glance && !self.trouble_may_pass() && self.are_as_seen(&stamps, now) {
            return Reading::Same;
        }
        self.way = Way::of_all(&self.paths);
        self.were_read = true;
        let Some((contents, stamps)) = self.contents() else {
            // Somebody is writing all the while. With nothing seen they are unsettled, and looked at again soon.
            self.seen = None;
            return Reading::Same;
        };
        let digest = digest(&contents);
        let before = self.seen.take().filter(|seen| seen.digest == digest);
        let is_new = before.is_none();
        let since = before.map_or_else(Instant::now, |seen| seen.since);
        self.seen = Some(Seen { stamps, digest, is_whole: contents.iter().all(Result::is_ok), since });
        if self.held == Some(digest) {
            // Also when it is again as it was before somebody began to change it.
            self.trouble = None;
            Reading::Same
        } else if is_new || self.trouble_may_pass() {
            Reading::Other { contents, digest, is_new, unchanged_for: since.elapsed() }
        } else {
            Reading::Same
        }
    }
}

/// What reading came to.
enum Reading {
    /// Nothing that was not judged before.
    Same,
    Other {
        contents: Vec<Content>,
        digest: [u8; 32],
        is_new: bool,
        unchanged_for: Duration,
    },
}

impl<T> Held<T> {
    /// Nothing yet, of files that were not looked at yet.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { value: None, files: Files::new(paths) }
    }

    /// The same is held, of other files from now on, until those hold something good.
    pub fn of_other_files(self, paths: Vec<PathBuf>) -> Self {
        let Files { generation, taken_at, .. } = self.files;
        Self { value: self.value, files: Files { generation, taken_at, ..Files::new(paths) } }
    }

    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Looks whether there is something new, and has `judge` say what it is. Whether what is held is still `fit`
    /// decides over a last resort. Remarks on something that is taken end up in `remarks`.
    pub fn look(
        &mut self,
        attention: Attention,
        remarks: &mut Diagnostics,
        judge: impl FnOnce(&[Content], &Circumstances<'_, T>, &mut Diagnostics) -> Offer<T>,
        is_fit: impl Fn(&T) -> bool,
    ) -> Outcome {
        let now = SystemTime::now();
        let Reading::Other { contents, digest, is_new, unchanged_for } = self.files.read(attention, now) else {
            return if self.files.trouble.is_some() { Outcome::Refused } else { Outcome::Unchanged };
        };
        let circumstances = Circumstances { held: self.value.as_ref(), attention, unchanged_for, now };
        let mut found = Diagnostics::default();
        let (taken, passing) = match judge(&contents, &circumstances, &mut found) {
            Offer::Same => {
                self.files.held = Some(digest);
                self.files.trouble = None;
                return Outcome::Unchanged;
            }
            Offer::Take(value) => (Some(value), false),
            Offer::LastResort(value) if !self.value.as_ref().is_some_and(is_fit) => (Some(value), false),
            Offer::LastResort(_) | Offer::Later => (None, true),
            Offer::Nothing => (None, false),
        };
        if taken.is_some() {
            self.value = taken;
            self.files.held = Some(digest);
            self.files.generation += 1;
            self.files.taken_at = now;
            self.files.trouble = None;
            remarks.extend(found);
            return Outcome::Taken;
        }
        let trouble = match self.files.trouble.take() {
            Some(trouble) if !is_new => trouble.lasting(found),
            _ => Trouble::new(found),
        };
        self.files.trouble = Some(Trouble { passing, ..trouble });
        Outcome::Refused
    }
}

/// The same for the same contents in the same files.
fn digest(contents: &[Content]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for content in contents {
        let bytes: &[u8] = match content {
            Ok(bytes) => bytes,
            Err(error) => error.as_bytes(),
        };
        context.update(&[u8::from(content.is_ok())]);
        context.update(&bytes.len().to_be_bytes());
        context.update(bytes);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// `good N`, `poor N`, `late N`; anything else is nothing.
    fn judge(contents: &[Content]) -> Offer<u32> {
        let text = contents.first().and_then(|content| content.as_ref().ok());
        let text = text.and_then(|text| str::from_utf8(text).ok()).unwrap_or_default();
        match text.split_once(' ').map(|(word, number)| (word, number.parse().unwrap_or_default())) {
            Some(("good", number)) => Offer::Take(number),
            Some(("poor", number)) => Offer::LastResort(number),
            Some(("late", _)) => Offer::Later,
            _ => Offer::Nothing,
        }
    }

    /// Values from 10 on are no longer fit.
    fn look(held: &mut Held<u32>, attention: Attention) -> Outcome {
        let mut remarks = Diagnostics::default();
        held.look(attention, &mut remarks, |contents, _, _| judge(contents), |value| *value < 10)
    }

    #[test]
    fn what_comes_back_is_nothing_new() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let mut held = Held::new(vec![path.clone()]);
        for (text, outcome) in [
            ("good 1", Outcome::Taken),
            ("broken", Outcome::Refused),
            ("good 1", Outcome::Unchanged),
            ("good 2", Outcome::Taken),
        ] {
            fs::write(&path, text).expect("written");
            assert_eq!(look(&mut held, Attention::Glance), outcome, "{text}");
            assert_eq!(held.files.trouble().is_some(), outcome == Outcome::Refused);
        }
        assert_eq!((held.value(), held.files.generation()), (Some(&2), 2));
    }

    #[test]
    fn of_other_files_the_value_is_held_until_they_are_good() {
        let directory = tempfile::tempdir().expect("a directory");
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        fs::write(&one, "good 1").expect("written");
        let mut held = Held::new(vec![one]);
        look(&mut held, Attention::Read);
        let mut held = held.of_other_files(vec![other.clone()]);
        assert_eq!((look(&mut held, Attention::Glance), held.value()), (Outcome::Refused, Some(&1)));
        fs::write(&other, "good 2").expect("written");
        assert_eq!((look(&mut held, Attention::Glance), held.value()), (Outcome::Taken, Some(&2)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(&'static str, u32),
        Remove,
        Look(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (prop::sample::select(vec!["good", "poor", "late", "bad"]), 0..20u32)
                .prop_map(|(word, n)| Step::Write(word, n)),
            Just(Step::Remove),
            any::<bool>().prop_map(Step::Look),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_the_last_good_thing_that_a_look_met(steps in prop::collection::vec(step(), 1..40)) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("file");
            let mut held = Held::new(vec![path.clone()]);
            let (mut content, mut model) = (None, None);
            for step in steps {
                match step {
                    Step::Write(word, number) => {
                        fs::write(&path, format!("{word} {number}")).expect("written");
                        content = Some((word, number));
                    }
                    Step::Remove => {
                        let _ = fs::remove_file(&path);
                        content = None;
                    }
                    Step::Look(closely) => {
                        model = match content {
                            Some(("good", number)) => Some(number),
                            Some(("poor", number)) if model.is_none_or(|value| value >= 10) => Some(number),
                            _ => model,
                        };
                        look(&mut held, if closely { Attention::Read } else { Attention::Glance });
                        prop_assert_eq!(held.value().copied(), model);
                    }
                }
            }
        }
    }
}
