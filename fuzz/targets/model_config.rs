//! `config.json`: what is taken can be asked for all that start-up asks, and can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pie_comm::Member;
use pie_fuzz::explained;
use pie_kv::Rope;
use pie_model::{Config, Shard};
use std::path::Path;

fuzz_target!(|text: &str| {
    let Some(config) = explained(Config::parse(text, Path::new("config.json"))) else { return };
    let again =
        Config::parse(&config.to_json(), Path::new("config.json")).expect("what is written can be read");
    // Decimal fractions are read to within their last bit.
    let near = |one: f64, other: f64| (one - other).abs() <= 1e-12 * one.abs();
    assert!(near(config.rms_norm_eps, again.rms_norm_eps) && near(config.rope_theta, again.rope_theta));
    let Config { rms_norm_eps, rope_theta, rope_scaling, .. } = config.clone();
    assert_eq!(config, Config { rms_norm_eps, rope_theta, rope_scaling, ..again });
    assert!(config.parameters() > 0);
    // The cosines and sines of long contexts are not this target's work.
    if config.head_dim <= 256 {
        explained(Rope::new(config.head_dim, config.rope_theta, &config.rope_scaling));
    }
    for world in [1_u32, 2, 3, 8, 64] {
        if explained(config.check_world_size(world as usize)).is_none() {
            continue;
        }
        let mut vocabulary = 0;
        for rank in 0..world {
            let Ok(member) = Member::new(rank, world) else { return };
            let shard = Shard::new(&config, member).expect("the world size fits");
            assert_eq!(shard.heads.len() * world as usize, config.heads);
            assert!(shard.kv_heads.end <= config.kv_heads && !shard.kv_heads.is_empty());
            vocabulary += shard.vocabulary.len();
        }
        assert_eq!(vocabulary, config.vocab_size);
    }
});
