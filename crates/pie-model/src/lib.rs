//! the Llama family: sharded weights and the ragged forward pass.
