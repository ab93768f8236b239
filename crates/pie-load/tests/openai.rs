//! The same streams as whole prompts for a `/v1/completions` server.

use pie_load::LoadError;
use pie_load::measure::Metric;
use pie_load::run::{CompletionTrigger, EditStreamSource, Options, Tempo, run};
use pie_load::script::{compile, parse};
use pie_load::target::{LoadTarget, OpenAi};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Requests = Arc<Mutex<Vec<serde_json::Value>>>;

/// Answers with three tokens and `[DONE]`; prompts with "refuse" in them with 503.
async fn serve(requests: Requests) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, requests.clone()));
        }
    });
    format!("http://{address}")
}

async fn answer(mut stream: TcpStream, requests: Requests) {
    let mut bytes = Vec::new();
    let body = loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.expect("a request");
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("POST /v1/completions HTTP/1.1"), "{head}");
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() == length.unwrap_or(0) {
            break serde_json::from_str::<serde_json::Value>(body).expect("JSON");
        }
    };
    let refused = body["prompt"].as_str().expect("a prompt").contains("refuse");
    requests.lock().expect("no panic").push(body);
    if refused {
        let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\nloading the model").await;
        return;
    }
    // A client that goes away in the middle is what cancels.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
    for event in [
        ": a comment\n\ndata: {\"choices\":[{\"te",
        "xt\":\" one\",\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"text\":\" two\"}]}\r\n\r\n",
        "data: {\"choices\":[{\"text\":\" three\",\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n",
    ] {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if stream.write_all(event.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn whole_prompts_are_sent_and_first_tokens_measured() {
    let requests = Requests::default();
    let url = serve(requests.clone()).await;
    let script = r#"{"pie_load_script":1}
{"open":{"text":"ab"}}
{"move":{"to":1}}
{"type":{"text":"x"}}
{"complete":{"mode":"fim","max_tokens":3}}
{"pause":{"ms":150}}
{"accept":"word"}
{"complete":{"at":"end"}}
{"pause":{"ms":12}}
{"type":{"text":" refuse"}}
{"complete":{}}
{"pause":{"ms":5000}}
"#;
    let streams = compile(&parse(script).expect("lines")).expect("a script");
    let options = Options {
        sessions: 1,
        tempo: Tempo::Speed(1.0),
        warmup: Duration::ZERO,
        duration: Duration::from_millis(400),
        drain: Duration::from_secs(5),
        tokens: 7,
        limit: Duration::from_secs(5),
        asking: CompletionTrigger::AsWritten,
        place: None,
        mode: None,
        strategy: Default::default(),
        compare: true,
        process: None,
    };
    let target = LoadTarget::OpenAi(Box::new(OpenAi::new(&format!("{url}/v1"), "m").expect("an address")));
    let source = EditStreamSource::Script(Arc::new(streams));
    let report = run(&options, &source, &target, &mut |_| {}).await.expect("a run");
    let asked: Vec<(String, Option<String>, u64)> = requests
        .lock()
        .expect("no panic")
        .iter()
        .map(|body| {
            assert_eq!((body["model"].as_str(), body["stream"].as_bool()), (Some("m"), Some(true)));
            let suffix = body["suffix"].as_str().map(str::to_owned);
            (
                body["prompt"].as_str().expect("text").to_owned(),
                suffix,
                body["max_tokens"].as_u64().expect("a number"),
            )
        })
        .collect();
    let wanted = [("ax", Some("b"), 3), ("ax oneb", None, 7), ("ax one refuse", None, 7)];
    assert_eq!(
        asked,
        wanted.map(|(prompt, suffix, most)| (prompt.to_owned(), suffix.map(str::to_owned), most))
    );
    let counts = &report.completions;
    assert_eq!((counts.asked, counts.finished, counts.failed, counts.accepted), (3, 1, 1, 1), "{counts:?}");
    assert_eq!(counts.cancelled_answered + counts.cancelled_unanswered, 1, "{counts:?}");
    assert!(report.latency(Metric::FirstToken).expect("it was measured").p50 >= 10.0);
    assert!(report.latency(Metric::EditAck).is_none(), "nobody acknowledges edits");
    assert_eq!(report.errors["HTTP_503"].example, "loading the model");
    for wrong in ["", "127.0.0.1:80", "https://example.com", "http://"] {
        assert!(matches!(OpenAi::new(wrong, "m"), Err(LoadError::BadUrl { .. })), "{wrong}");
    }
}
