//! What it costs to find the session that holds most of a prompt, among a thousand that hold code.
//!
//! `cargo bench -p pie-http`

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pie_http::likeness::{Likeness, Sketch};
use std::hint::black_box;

const SESSIONS: usize = 1000;
const CODE: [&str; 4] = [
    include_str!("../src/held.rs"),
    include_str!("../src/sessions.rs"),
    include_str!("../src/openai.rs"),
    include_str!("../src/llama.rs"),
];

/// So many bytes of code, which differ from session to session in a name and where they begin.
fn prompt(session: usize, bytes: usize) -> String {
    let code = CODE.concat().replace("self", &format!("self_{session}"));
    let lines: Vec<&str> = code.split_inclusive('\n').collect();
    let from = session * 7 % lines.len();
    let mut text: String = lines.iter().cycle().skip(from).take(4 * lines.len()).copied().collect();
    let end = (bytes..).find(|end| text.is_char_boundary(*end)).expect("it is long enough");
    text.truncate(end);
    text
}

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("find among 1,000");
    for bytes in [4 << 10, 16 << 10, 64 << 10] {
        let mut likeness = Likeness::default();
        for session in 0..SESSIONS {
            let sketch = Sketch::of(std::iter::once(prompt(session, bytes).as_bytes()));
            likeness.insert(&"tenant", session, &sketch);
        }
        let typed = prompt(500, bytes).replacen("self_500", "self_50x", 3);
        let found = likeness.alike(&"tenant", &Sketch::of(std::iter::once(typed.as_bytes())));
        assert_eq!(found.first().map(|alike| alike.key), Some(500));
        group.bench_function(BenchmarkId::from_parameter(format!("{} KiB", bytes >> 10)), |bencher| {
            bencher.iter(|| {
                let sketch = Sketch::of(std::iter::once(black_box(&typed).as_bytes()));
                likeness.alike(&"tenant", &sketch).first().map(|alike| alike.key)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);
