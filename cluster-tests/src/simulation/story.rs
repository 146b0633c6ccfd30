//! What happened in a run, a line each, to be read by people. Kept for each thread, so that it can be shown even if the
//! run ends in a panic.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Arguments;

use super::{Nanos, Settings};

/// Older lines are dropped.
const LINES_MAX: usize = 4000;
const LINE_CHARS_MAX: usize = 600;

#[derive(Debug, Default)]
struct Story {
    now: Nanos,
    detailed: bool,
    lines: VecDeque<String>,
}

thread_local! {
    static STORY: RefCell<Story> = RefCell::default();
}

/// A new run begins.
pub(super) fn begin(settings: &Settings) {
    let detailed = settings.detailed;
    STORY.with_borrow_mut(|story| *story = Story { detailed, ..Story::default() });
}

pub(super) fn is_detailed() -> bool {
    STORY.with_borrow(|story| story.detailed)
}

pub(super) fn set_now(now: Nanos) {
    STORY.with_borrow_mut(|story| story.now = now);
}

pub(super) fn add(text: Arguments<'_>) {
    STORY.with_borrow_mut(|story| {
        let mut line = format!("{:10.3} ms  {text}", story.now as f64 / 1e6);
        if let Some((end, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
            line.truncate(end);
            line.push_str(" ...");
        }
        if story.lines.len() == LINES_MAX {
            story.lines.pop_front();
        }
        story.lines.push_back(line);
    });
}

/// Everything that was told since the begin.
pub(super) fn take() -> Vec<String> {
    STORY.with_borrow_mut(|story| std::mem::take(&mut story.lines).into())
}

/// Tells a line; the text is only made if it is wanted.
macro_rules! detail {
    ($($text:tt)*) => {
        if $crate::simulation::story::is_detailed() {
            $crate::simulation::story::add(format_args!($($text)*));
        }
    };
}

macro_rules! tell {
    ($($text:tt)*) => { $crate::simulation::story::add(format_args!($($text)*)) };
}

pub(super) use {detail, tell};
