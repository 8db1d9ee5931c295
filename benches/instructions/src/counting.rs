//! What callgrind is told to count, by the names of these functions: count.py has it collect from [`counted`] on but
//! for what is [`aside`], and write down what it has at each [`mark`]. They do nothing, and must not be inlined.

use std::hint::black_box;

/// Counts what `run` does on this thread.
#[inline(never)]
pub fn counted(run: &mut dyn FnMut()) {
    run();
    // Nothing is called last, where a jump would take the place of the call.
    black_box("counted");
}

/// Does not count what `run` does within something that is counted.
#[inline(never)]
pub fn aside(run: &mut dyn FnMut()) {
    run();
    black_box("aside");
}

/// What is counted between the first call and the second is the figure.
#[inline(never)]
pub fn mark() {
    black_box("mark");
}
