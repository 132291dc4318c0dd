//! The hand-over in random schedules. `hub/tests` has the other tests of replays.

mod hand_over;
