//! the group as a pure state machine.
