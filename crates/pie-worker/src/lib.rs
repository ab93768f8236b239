//! one rank: an engine thread that applies plans, and its gRPC shell.
