//! Observing: asks every host what the planner needs to know, one batch per host, all hosts at once.
