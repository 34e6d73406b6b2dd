//! `read_range` end to end, in turn with a bare socket that drains the same
//! replies, on a server of its own.
//!
//! The server's binary is `POLARS_REDIS_SERVER`, or `redis-server` on PATH; the
//! number of entries is `POLARS_REDIS_ENTRIES`, or a million.

mod drain;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use polars_redis::decode::{Field, FieldType, Fields, IdColumns, OnMisfit, Plan};
use polars_redis::read::{Condition, Notes, RangeQuery, read_range};
use polars_redis::{Deployment, End, EntryId, ReadFrom, Start};

const ROUNDS: usize = 9;

struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about a server that is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Self {
        let binary = std::env::var("POLARS_REDIS_SERVER").unwrap_or("redis-server".into());
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let process = Command::new(binary)
            .args([
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--bind",
                "127.0.0.1",
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("a redis-server: set POLARS_REDIS_SERVER to its path");
        let server = Self { process, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "the server starts"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).expect("the server answers");
        socket.set_nodelay(true).expect("an open socket");
        socket
    }

    fn fill(&self, entries: usize) {
        const ACTIONS: [&str; 6] = ["click", "view", "purchase", "search", "login", "logout"];
        let mut socket = self.connect();
        let mut answers = socket.try_clone().expect("an open socket");
        let drain = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while !buffer.starts_with(b"done") {
                let len = answers.read(&mut buffer).expect("answers");
                let end = buffer[..len].windows(6).position(|w| w == b"done\r\n");
                if let Some(end) = end {
                    buffer.drain(..end);
                }
            }
        });
        let mut batch = Vec::new();
        for n in 0..entries {
            redis::cmd("XADD")
                .arg("events")
                .arg(drain::entry_id(n))
                .arg(&["user_id", &format!("user_{}", n * 7919 % 100_000)])
                .arg(&["action", ACTIONS[n % 6]])
                .arg(&["quantity", &(n * 31 % 1000).to_string()])
                .arg(&["value", &format!("{}.{:02}", n * 17 % 500, n % 100)])
                .write_packed_command(&mut batch);
            if batch.len() > 1 << 18 {
                socket.write_all(&batch).expect("an open socket");
                batch.clear();
            }
        }
        redis::cmd("ECHO")
            .arg("done")
            .write_packed_command(&mut batch);
        socket.write_all(&batch).expect("an open socket");
        drain.join().expect("all answers came");
    }
}

/// Seconds that the bare client takes.
fn drain(server: &Server, pages: &[Vec<u8>], total: usize) -> f64 {
    let socket = server.connect();
    let begun = Instant::now();
    drain::drain(socket, pages, Some(total));
    begun.elapsed().as_secs_f64()
}

fn plan() -> Arc<Plan> {
    let ids = IdColumns {
        key: None,
        id: Some("_id".into()),
        timestamp: Some("_ts".into()),
        sequence: None,
        deliveries: None,
    };
    let schema = [
        ("user_id", FieldType::String),
        ("action", FieldType::String),
        ("quantity", FieldType::Int64),
        ("value", FieldType::Float64),
    ];
    let fields = schema.map(|(name, dtype)| Field {
        name: name.into(),
        dtype,
    });
    Arc::new(Plan::new(ids, Fields::Schema(fields.into()), OnMisfit::Raise).expect("names differ"))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let entries = std::env::var("POLARS_REDIS_ENTRIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let server = Server::start();
    server.fill(entries);
    let pages = drain::pages("events", entries);
    let total = drain::drain(server.connect(), &pages, None);

    let url = format!("redis://127.0.0.1:{}", server.port);
    let deployment = Arc::new(Deployment::parse(&url).expect("a valid URL"));
    let query = RangeQuery {
        stream: "events".into(),
        start: Start::At(EntryId::MIN),
        end: End::At(EntryId::MAX),
        count: None,
        condition: Condition::Anything,
        read_from: ReadFrom::Master,
    };
    let plan = plan();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");

    let (mut bare, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let seconds = drain(&server, &pages, total);
        let begun = Instant::now();
        let table = runtime
            .block_on(read_range(&deployment, &query, &plan, &Notes::default()))
            .expect("the server answers");
        let read = begun.elapsed().as_secs_f64();
        assert_eq!(table.rows, entries);
        bare.push(seconds);
        ours.push(read);
        ratios.push(read / seconds);
    }
    let (bare, ours) = (median(&mut bare), median(&mut ours));
    let mega = 1e-6;
    println!(
        "live: {entries} entries, {:.1} MB of RESP, {ROUNDS} rounds in turn",
        total as f64 * mega
    );
    println!(
        "  bare socket  {bare:.3} s  {:.2} M entries/s",
        entries as f64 / bare * mega
    );
    println!(
        "  read_range   {ours:.3} s  {:.2} M entries/s",
        entries as f64 / ours * mega
    );
    println!(
        "  ratio        {:.2} (of medians), {:.2} (median of pairs)",
        ours / bare,
        median(&mut ratios)
    );
}
