//! K and V rows of a rank, RoPE, turning in place.
