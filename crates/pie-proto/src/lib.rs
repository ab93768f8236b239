//! generated wire types and the only checked conversions from them.
