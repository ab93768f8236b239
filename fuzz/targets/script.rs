//! Scripts of `pie load`: what is taken can be played on a text, and can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pie_fuzz::explained;
use pie_load::script::{ScriptStep, compile, parse, write};

fuzz_target!(|text: &str| {
    let Some(lines) = explained(parse(text)) else { return };
    let written = write(&lines).expect("lines can be written");
    assert_eq!(parse(&written).expect("what is written can be read"), lines);
    let Some(streams) = explained(compile(&lines)) else { return };
    for stream in streams {
        let (mut text, mut before) = (stream.text, std::time::Duration::ZERO);
        for event in stream.events {
            assert!(event.at >= before && event.at <= stream.length, "events are in order of time");
            before = event.at;
            match event.step {
                ScriptStep::Edit { changes, .. } => {
                    for change in changes.iter().rev() {
                        assert!(text.get(change.start..change.end).is_some(), "changes fit the text");
                        text.replace_range(change.start..change.end, &change.text);
                    }
                }
                ScriptStep::Complete(ask) => assert!(text.is_char_boundary(ask.offset)),
                ScriptStep::Accept(_) | ScriptStep::Discard | ScriptStep::Note(_) => {}
            }
        }
    }
});
