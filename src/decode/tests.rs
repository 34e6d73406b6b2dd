//! The decoder against replies cut anywhere, and against hostile ones.

use polars_arrow::array::{PrimitiveArray, Utf8ViewArray};

use super::*;

fn plan(schema: &[(&str, FieldType)], on_misfit: OnMisfit) -> Arc<Plan> {
    let ids = IdColumns {
        key: None,
        id: Some("_id".into()),
        timestamp: Some("_ts".into()),
        sequence: Some("_seq".into()),
        deliveries: None,
    };
    let field = |(name, dtype): &(&str, FieldType)| Field {
        name: (*name).to_owned(),
        dtype: dtype.clone(),
    };
    let fields = match schema {
        [] => Fields::Discover,
        _ => Fields::Schema(schema.iter().map(field).collect()),
    };
    Arc::new(Plan::new(ids, fields, on_misfit).unwrap())
}

/// The reply that a server would send.
fn reply(entries: &[(&str, &[&str])]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", entries.len());
    for (id, fields) in entries {
        bytes += &format!("*2\r\n${}\r\n{id}\r\n*{}\r\n", id.len(), fields.len());
        for text in *fields {
            bytes += &format!("${}\r\n{text}\r\n", text.len());
        }
    }
    bytes.into_bytes()
}

/// Where decoding stopped.
type Stopped = Box<(Fault, ChunkBuilder, Decoder)>;

/// Decodes pieces of one reply; how far it came.
fn decode(plan: &Arc<Plan>, pieces: &[&[u8]]) -> Result<(Progress, Table), Stopped> {
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(plan, 0);
    decoder.begin_reply(Shape::Entries, IdRange::ALL, usize::MAX);
    let mut progress = Progress::NeedMore;
    for piece in pieces {
        let mut input = *piece;
        match decoder.decode(&mut input, &mut chunk) {
            Ok(now) => progress = now,
            Err(fault) => return Err(Box::new((fault, chunk, decoder))),
        }
        assert!(input.is_empty(), "all input is taken");
    }
    if progress == Progress::NeedMore {
        decoder.abandon(&mut chunk);
    }
    let table = Table::new(plan, decoder.names(), vec![chunk.finish()]);
    Ok((progress, table))
}

fn strings(table: &Table, name: &str) -> Vec<Option<String>> {
    let column = table.columns.iter().find(|c| c.name == name).unwrap();
    let array = column.chunks[0].as_any().downcast_ref::<Utf8ViewArray>();
    array
        .unwrap()
        .iter()
        .map(|v| v.map(str::to_owned))
        .collect()
}

fn integers(table: &Table, name: &str) -> Vec<Option<i64>> {
    let column = table.columns.iter().find(|c| c.name == name).unwrap();
    let array = column.chunks[0]
        .as_any()
        .downcast_ref::<PrimitiveArray<i64>>();
    array.unwrap().iter().map(|v| v.copied()).collect()
}

fn rendered(table: &Table) -> String {
    let columns = table.columns.iter();
    columns
        .map(|c| format!("{} {:?}\n", c.name, c.chunks))
        .collect()
}

fn mixed() -> Vec<u8> {
    let long = "a text of more than twelve bytes, é€🦀 and all, ".repeat(3);
    reply(&[
        (
            "1-0",
            &[
                "name",
                "short",
                "n",
                "1",
                "extra",
                "passed over by the schema",
            ],
        ),
        ("1-1", &["n", "-22", "name", &long]),
        ("2-0", &["name", "", "n", "3", "n", "33"]),
        ("3-0", &[]),
        (
            "18446744073709551-7",
            &["a name that is longer than any prediction", "x", "n", "5"],
        ),
    ])
}

const MIXED: &[(&str, FieldType)] = &[("name", FieldType::String), ("n", FieldType::Int64)];

#[test]
fn rows_hold_what_the_entries_held() {
    let (progress, table) = decode(&plan(MIXED, OnMisfit::Raise), &[&mixed()])
        .ok()
        .unwrap();
    assert_eq!(progress, Progress::Done { entries: 5 });
    assert_eq!(
        strings(&table, "_id")[4].as_deref(),
        Some("18446744073709551-7")
    );
    assert_eq!(integers(&table, "_ts")[4], Some(18_446_744_073_709_551));
    assert_eq!(integers(&table, "_seq"), [0, 1, 0, 0, 7].map(Some));
    assert_eq!(
        integers(&table, "n"),
        [Some(1), Some(-22), Some(33), None, Some(5)]
    );
    let names = strings(&table, "name");
    assert_eq!(names[0].as_deref(), Some("short"));
    assert_eq!(names[2].as_deref(), Some(""));
    assert_eq!(names[3..], [None, None]);
}

#[test]
fn a_reply_may_be_cut_anywhere() {
    for schema in [MIXED, &[]] {
        let plan = plan(schema, OnMisfit::Raise);
        let bytes = mixed();
        let whole = rendered(&decode(&plan, &[&bytes]).ok().unwrap().1);
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            let (progress, table) = decode(&plan, &[head, tail]).ok().unwrap();
            assert_eq!(progress, Progress::Done { entries: 5 });
            assert_eq!(rendered(&table), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(rendered(&decode(&plan, &single).ok().unwrap().1), whole);
    }
}

#[test]
fn a_truncated_reply_gives_the_entries_that_came_whole() {
    for schema in [MIXED, &[]] {
        let plan = plan(schema, OnMisfit::Raise);
        let bytes = mixed();
        let mut rows_before = 0;
        for end in 0..bytes.len() {
            let (progress, table) = decode(&plan, &[&bytes[..end]]).ok().unwrap();
            assert_eq!(progress, Progress::NeedMore, "{end}");
            assert!(table.rows >= rows_before);
            rows_before = table.rows;
            for column in &table.columns {
                assert_eq!(column.chunks[0].len(), table.rows, "{end} {}", column.name);
            }
        }
        assert_eq!(rows_before, 4);
    }
}

#[test]
fn an_abandoned_row_leaves_nothing_behind() {
    for schema in [MIXED, &[]] {
        let plan = plan(schema, OnMisfit::Raise);
        let bytes = mixed();
        for end in 0..bytes.len() {
            let mut decoder = Decoder::new(plan.clone());
            let mut chunk = ChunkBuilder::with_room(&plan, 0);
            decoder.begin_reply(Shape::Entries, IdRange::ALL, usize::MAX);
            let decoded = decoder.decode(&mut &bytes[..end], &mut chunk);
            assert_eq!(decoded, Ok(Progress::NeedMore));
            decoder.abandon(&mut chunk);
            // The connection was cut; the same decoder reads another entry.
            let next = reply(&[("99-0", &["other", "value"])]);
            decoder.begin_reply(Shape::Entries, IdRange::ALL, usize::MAX);
            let decoded = decoder.decode(&mut next.as_slice(), &mut chunk);
            assert_eq!(decoded, Ok(Progress::Done { entries: 1 }));
            let rows = chunk.rows();
            let table = Table::new(&plan, decoder.names(), vec![chunk.finish()]);
            assert_eq!(table.rows, rows);
            assert_eq!(
                strings(&table, "_id").last().unwrap().as_deref(),
                Some("99-0")
            );
            for column in table.columns.iter().skip(3).filter(|c| c.name != "other") {
                assert!(column.chunks[0].is_null(rows - 1), "{end} {}", column.name);
            }
        }
    }
}

#[test]
fn fields_are_discovered_in_order_of_first_appearance() {
    let bytes = reply(&[
        ("1-0", &["b", "1"]),
        ("2-0", &["c", "2", "a", "3"]),
        ("3-0", &["b", "4"]),
    ]);
    let (_, table) = decode(&plan(&[], OnMisfit::Raise), &[&bytes]).ok().unwrap();
    let names: Vec<_> = table.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["_id", "_ts", "_seq", "b", "c", "a"]);
    assert_eq!(strings(&table, "c"), [None, Some("2".into()), None]);
}

#[test]
fn a_value_that_does_not_fit_names_entry_and_field() {
    let bytes = reply(&[("1-0", &["n", "1"]), ("2-5", &["name", "x", "n", "1.5"])]);
    let (fault, mut chunk, mut decoder) = *decode(&plan(MIXED, OnMisfit::Raise), &[&bytes])
        .err()
        .unwrap();
    let reason = Misfit::Value {
        dtype: "Int64".to_owned(),
        text: "\"1.5\"".into(),
    };
    let field = "n".into();
    assert_eq!(
        fault,
        Fault::Value {
            id: EntryId::new(2, 5),
            field,
            reason
        }
    );
    decoder.abandon(&mut chunk);
    assert_eq!(chunk.rows(), 1);

    let (_, table) = decode(&plan(MIXED, OnMisfit::Null), &[&bytes])
        .ok()
        .unwrap();
    assert_eq!(integers(&table, "n"), [Some(1), None]);
    assert_eq!(strings(&table, "name"), [None, Some("x".into())]);
}

#[test]
fn of_a_field_named_twice_only_the_last_value_must_fit() {
    let schema = [("a", FieldType::Int8), ("b", FieldType::Int8)];
    let raise = plan(&schema, OnMisfit::Raise);
    let fits = reply(&[("1-0", &["a", "x", "a", "2", "b", "1", "a", "3"])]);
    let (_, table) = decode(&raise, &[&fits]).ok().unwrap();
    assert_eq!(table.rows, 1);
    // A later field's misfit is not forgotten when an earlier one is mended.
    let misfit = reply(&[("1-0", &["a", "x", "b", "y", "a", "2"])]);
    let (fault, ..) = *decode(&raise, &[&misfit]).err().unwrap();
    assert!(matches!(fault, Fault::Value { field, .. } if field == "b"));
    let misfit = reply(&[("1-0", &["a", "1", "a", "x"])]);
    assert!(decode(&raise, &[&misfit]).is_err());
    let (_, table) = decode(&plan(&schema, OnMisfit::Null), &[&misfit])
        .ok()
        .unwrap();
    assert!(table.columns[3].chunks[0].is_null(0));
}

#[test]
fn a_discovered_field_must_not_have_the_name_of_an_id_column() {
    let bytes = reply(&[("1-0", &["_ts", "1"])]);
    let (fault, ..) = *decode(&plan(&[], OnMisfit::Null), &[&bytes]).err().unwrap();
    assert!(matches!(
        fault,
        Fault::Value {
            reason: Misfit::NameClash,
            ..
        }
    ));
}

#[test]
fn names_and_values_that_are_not_utf8_do_not_become_strings() {
    let bytes =
        b"*1\r\n*2\r\n$3\r\n1-0\r\n*4\r\n$1\r\n\xff\r\n$1\r\nx\r\n$1\r\na\r\n$2\r\n\xc3\x28\r\n";
    let (fault, ..) = *decode(&plan(&[], OnMisfit::Raise), &[bytes]).err().unwrap();
    assert!(matches!(
        fault,
        Fault::Value {
            reason: Misfit::NameNotUtf8,
            ..
        }
    ));
    let (_, table) = decode(&plan(&[], OnMisfit::Null), &[bytes]).ok().unwrap();
    assert_eq!(strings(&table, "a"), [None]);
    assert_eq!(table.columns.len(), 4);
}

#[test]
fn parts_of_an_id_that_no_int64_holds_do_not_fit() {
    let id = format!("1-{}", u64::MAX);
    let bytes = reply(&[(&id, &[])]);
    let (fault, ..) = *decode(&plan(&[], OnMisfit::Raise), &[&bytes])
        .err()
        .unwrap();
    assert!(matches!(fault, Fault::Value { field, .. } if field == "_seq"));
    let (_, table) = decode(&plan(&[], OnMisfit::Null), &[&bytes]).ok().unwrap();
    assert_eq!(integers(&table, "_seq"), [None]);
    assert_eq!(integers(&table, "_ts"), [Some(1)]);
}

#[test]
fn hostile_replies_are_errors() {
    let hostile: &[&str] = &[
        "hello\r\n",
        "+OK\r\n",
        ":5\r\n",
        "$5\r\nhello\r\n",
        "*-2\r\n",
        "*x\r\n",
        "*99999999999999999999\r\n",
        "*1\n",
        "*1\r\n*1\r\n",
        "*1\r\n*3\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
        "*1\r\n$3\r\n1-0\r\n",
        "*1\r\n*2\r\n$1\r\n1\r\n",
        "*1\r\n*2\r\n$3\r\nx-0\r\n",
        "*1\r\n*2\r\n$22\r\n18446744073709551616-0\r\n",
        "*1\r\n*2\r\n:1\r\n",
        "*1\r\n*2\r\n$-1\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*3\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*-5\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n$1\r\nx\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n:1\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$-1\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n*1\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$-7\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$4611686018427387904\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$1\r\nbc\r\n",
        "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$1\r\nb\rc",
        "*2\r\n*2\r\n$3\r\n2-0\r\n*0\r\n*2\r\n$3\r\n1-0\r\n*0\r\n",
        "*2\r\n*2\r\n$3\r\n1-0\r\n*0\r\n*2\r\n$3\r\n1-0\r\n*0\r\n",
    ];
    for text in hostile {
        for schema in [MIXED, &[]] {
            let plan = plan(schema, OnMisfit::Raise);
            // The padding lets the fast way see it whole.
            for pad in ["", "$1\r\nx\r\n$1\r\nx\r\n$1\r\nx\r\n"] {
                let bytes = format!("{text}{pad}").into_bytes();
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                for pieces in [&[bytes.as_slice()][..], &single] {
                    let (fault, ..) = *decode(&plan, pieces).err().unwrap();
                    assert!(matches!(fault, Fault::Protocol(_)), "{text:?}: {fault:?}");
                }
            }
        }
    }
}

#[test]
fn an_announced_length_allocates_nothing() {
    let plan = plan(&[], OnMisfit::Raise);
    for text in [
        "*4611686018427387904\r\n".to_owned(),
        format!("*1\r\n*2\r\n$3\r\n1-0\r\n*{}\r\n$1\r\na\r\n", i64::MAX - 1),
        format!(
            "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n${}\r\nabc",
            u32::MAX - 1
        ),
    ] {
        let (progress, table) = decode(&plan, &[text.as_bytes()]).ok().unwrap();
        assert_eq!((progress, table.rows), (Progress::NeedMore, 0));
    }
}

#[test]
fn a_line_without_end_is_an_error_before_it_fills_the_memory() {
    let plan = plan(&[], OnMisfit::Raise);
    let piece = [b'1'; 1000];
    let pieces: Vec<&[u8]> = std::iter::once(b"*".as_slice())
        .chain(std::iter::repeat_n(piece.as_slice(), 100))
        .collect();
    let (fault, ..) = *decode(&plan, &pieces).err().unwrap();
    assert!(matches!(fault, Fault::Protocol(_)));
}

#[test]
fn an_error_reply_is_the_servers_own_words() {
    let bytes = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    let (fault, ..) = *decode(&plan(&[], OnMisfit::Raise), &[bytes]).err().unwrap();
    let words = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(fault, Fault::Server(words.into()));
}

#[test]
fn what_follows_a_reply_is_left_alone() {
    let plan = plan(MIXED, OnMisfit::Raise);
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(&plan, 0);
    let bytes = [mixed(), b"*1\r\n".to_vec()].concat();
    let mut input = bytes.as_slice();
    decoder.begin_reply(Shape::Entries, IdRange::ALL, usize::MAX);
    let done = decoder.decode(&mut input, &mut chunk);
    assert_eq!(done, Ok(Progress::Done { entries: 5 }));
    assert_eq!(input, b"*1\r\n");
    decoder.begin_reply(Shape::Entries, IdRange::ALL, usize::MAX);
    let mut empty: &[u8] = b"*0\r\n";
    let done = decoder.decode(&mut empty, &mut chunk);
    assert_eq!(done, Ok(Progress::Done { entries: 0 }));
    assert_eq!(chunk.rows(), 5);
}

/// A reply of `XREAD` or `XREADGROUP` to one stream.
fn one_stream(entries: &str) -> Vec<u8> {
    format!("*1\r\n*2\r\n$1\r\ns\r\n{entries}").into_bytes()
}

/// Decodes one reply byte by byte.
fn decode_slowly(
    decoder: &mut Decoder,
    chunk: &mut ChunkBuilder,
    bytes: &[u8],
) -> Result<Progress, Fault> {
    let mut progress = Progress::NeedMore;
    for byte in bytes.chunks(1) {
        let mut input = byte;
        progress = decoder.decode(&mut input, chunk)?;
    }
    Ok(progress)
}

#[test]
fn replies_of_one_stream_have_its_key_around_the_entries() {
    let plan = plan(&[("n", FieldType::Int64)], OnMisfit::Raise);
    let bytes = one_stream(
        "*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nn\r\n$1\r\n1\r\n*2\r\n$3\r\n2-0\r\n*0\r\n",
    );
    for pieces in [vec![bytes.as_slice()], bytes.chunks(1).collect()] {
        let mut decoder = Decoder::new(plan.clone());
        let mut chunk = ChunkBuilder::with_room(&plan, 0);
        decoder.begin_reply(Shape::OneStream, IdRange::ALL, 2);
        let mut progress = Progress::NeedMore;
        for mut input in pieces {
            progress = decoder.decode(&mut input, &mut chunk).unwrap();
        }
        assert_eq!(progress, Progress::Done { entries: 2 });
        assert_eq!(chunk.rows(), 2);
        assert_eq!(decoder.bytes(), bytes.len() as u64);
    }
    for nothing in ["*-1\r\n", "*0\r\n", "_\r\n"] {
        let mut decoder = Decoder::new(plan.clone());
        let mut chunk = ChunkBuilder::with_room(&plan, 0);
        decoder.begin_reply(Shape::OneStream, IdRange::ALL, 2);
        let progress = decode_slowly(&mut decoder, &mut chunk, nothing.as_bytes());
        assert_eq!(progress, Ok(Progress::Done { entries: 0 }), "{nothing:?}");
    }
}

#[test]
fn a_reply_that_was_given_up_leaves_nothing_to_the_next() {
    let plan = plan(&[("n", FieldType::Int64)], OnMisfit::Raise);
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(&plan, 0);
    decoder.begin_reply(Shape::OneStream, IdRange::ALL, 9);
    let bytes = one_stream("*3\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nn\r\n$1\r\nx\r\n");
    assert!(decode_slowly(&mut decoder, &mut chunk, &bytes).is_err());
    decoder.abandon(&mut chunk);
    decoder.begin_reply(Shape::OneStream, IdRange::ALL, 9);
    let progress = decode_slowly(&mut decoder, &mut chunk, b"*-1\r\n");
    assert_eq!(progress, Ok(Progress::Done { entries: 0 }));
}

#[test]
fn pending_entries_that_were_deleted_have_no_row() {
    let plan = plan(&[("n", FieldType::Int64)], OnMisfit::Raise);
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(&plan, 0);
    decoder.begin_reply(Shape::OneStream, IdRange::ALL, 3);
    let bytes = one_stream(
        "*3\r\n*2\r\n$3\r\n1-0\r\n*-1\r\n*2\r\n$3\r\n2-0\r\n*2\r\n$1\r\nn\r\n$1\r\n2\r\n*2\r\n$3\r\n3-0\r\n*-1\r\n",
    );
    let progress = decode_slowly(&mut decoder, &mut chunk, &bytes);
    assert_eq!(progress, Ok(Progress::Done { entries: 3 }));
    assert_eq!(chunk.rows(), 1);
    assert_eq!(decoder.deleted(), [EntryId::new(1, 0), EntryId::new(3, 0)]);
    assert_eq!(decoder.ids().map(IdRange::end), Some(EntryId::new(3, 0)));

    decoder.begin_reply(Shape::Entries, IdRange::ALL, 3);
    let progress = decode_slowly(&mut decoder, &mut chunk, b"*2\r\n*-1\r\n$-1\r\n");
    assert_eq!(progress, Ok(Progress::Done { entries: 2 }));
    assert_eq!((chunk.rows(), decoder.nulls()), (1, 2));
    assert!(decoder.deleted().is_empty());
}

#[test]
fn what_comes_after_the_end_has_no_row_and_need_not_fit() {
    let plan = plan(&[("n", FieldType::Int64)], OnMisfit::Raise);
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(&plan, 0);
    decoder.stop_after(EntryId::new(1, 5));
    decoder.begin_reply(Shape::Entries, IdRange::ALL, 9);
    let bytes = reply(&[
        ("1-5", &["n", "1"]),
        ("1-6", &["n", "x"]),
        ("2-0", &["n", "3"]),
    ]);
    let progress = decode_slowly(&mut decoder, &mut chunk, &bytes);
    assert_eq!(progress, Ok(Progress::Done { entries: 3 }));
    assert_eq!(chunk.rows(), 1);
    assert_eq!(decoder.ids().map(IdRange::end), Some(EntryId::new(2, 0)));
}

#[test]
fn more_entries_than_were_asked_for_are_no_reply() {
    let plan = plan(&[], OnMisfit::Raise);
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(&plan, 0);
    decoder.begin_reply(Shape::Entries, IdRange::ALL, 2);
    let mut input: &[u8] = b"*3\r\n";
    let result = decoder.decode(&mut input, &mut chunk);
    assert!(matches!(result, Err(Fault::Protocol(_))));
}

#[test]
fn the_front_of_a_chunk_is_taken_off_without_a_trace_in_the_rest() {
    let plan = Arc::new(Plan::clone(&plan(&[], OnMisfit::Raise)).keeping_entry_ids());
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(&plan, 0);
    decoder.begin_reply(Shape::Entries, IdRange::ALL, 9);
    let bytes = reply(&[
        ("1-0", &["a", "1"]),
        ("2-0", &["b", "2", "a", "2"]),
        ("3-0", &["c", "3", "b", "3"]),
    ]);
    let mut input = bytes.as_slice();
    decoder.decode(&mut input, &mut chunk).unwrap();
    let mut rest = chunk.finish();
    let columns = |chunk: &Chunk| {
        let table = Table::new(&plan, decoder.names(), vec![chunk.clone()]);
        let names = table.columns.into_iter().map(|column| column.name);
        names.skip(3).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(columns(&rest), "a b c");
    let front = rest.split_front(1);
    assert_eq!((columns(&front).as_str(), front.rows()), ("a", 1));
    assert_eq!(front.entry_ids(), [EntryId::new(1, 0)]);
    assert_eq!(columns(&rest), "a b c");
    let middle = rest.split_front(1);
    assert_eq!(columns(&middle), "a b");
    assert_eq!((columns(&rest).as_str(), rest.rows()), ("b c", 1));
    assert_eq!(rest.entry_ids(), [EntryId::new(3, 0)]);
    assert_eq!(rest.split_front(9).rows(), 1);
    assert_eq!(rest.rows(), 0);
}

// -- several streams -----------------------------------------------------------

fn keyed_plan() -> Arc<Plan> {
    let ids = IdColumns {
        key: Some("_key".into()),
        id: Some("_id".into()),
        ..IdColumns::default()
    };
    let plan = Plan::new(ids, Fields::Discover, OnMisfit::Raise).unwrap();
    Arc::new(plan.keeping_entry_ids())
}

/// Those that are asked for: after 0-0, 1-0 and 2-0, the last of them up to 5-0.
fn asked() -> Vec<Asked> {
    let streams = [("a", 0, u64::MAX), ("b", 1, u64::MAX), ("c", 2, 5)];
    let asked = streams.map(|(key, after, end)| Asked {
        key: key.into(),
        range: IdRange::new(EntryId::new(after, 1), EntryId::MAX).unwrap(),
        end: EntryId::new(end, u64::MAX),
    });
    asked.into()
}

/// The reply of several streams that a server would send.
fn reply_of_streams(streams: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", streams.len()).into_bytes();
    for (key, entries) in streams {
        bytes.extend(format!("*2\r\n${}\r\n{key}\r\n", key.len()).as_bytes());
        bytes.extend(entries);
    }
    bytes
}

fn three_streams() -> Vec<u8> {
    let first = reply(&[("1-0", &["n", "1"]), ("2-0", &["n", "2", "other", "x"])]);
    let last = reply(&[("3-0", &["n", "5"]), ("6-0", &["n", "beyond the end"])]);
    // The second has nothing.
    reply_of_streams(&[("a", first), ("c", last)])
}

fn came(at: usize, entries: usize, last: u64) -> Came {
    Came {
        at,
        entries,
        last: Some(EntryId::new(last, 0)),
        deleted: Vec::new(),
    }
}

#[test]
fn a_reply_of_several_streams_may_be_cut_anywhere() {
    let plan = keyed_plan();
    let bytes = three_streams();
    let pieces = (0..=bytes.len()).map(|cut| {
        let (head, tail) = bytes.split_at(cut);
        vec![head, tail]
    });
    for pieces in pieces.chain([bytes.chunks(1).collect()]) {
        let mut decoder = Decoder::new(plan.clone());
        let mut chunk = ChunkBuilder::with_room(&plan, 0);
        decoder.begin_streams(asked(), 2);
        let mut progress = Progress::NeedMore;
        for mut piece in pieces {
            if !piece.is_empty() {
                progress = decoder.decode(&mut piece, &mut chunk).unwrap();
            }
        }
        assert_eq!(progress, Progress::Done { entries: 4 });
        assert_eq!(decoder.came(), [came(0, 2, 2), came(2, 2, 6)]);
        let chunk = chunk.finish();
        let runs: Vec<_> = chunk.streams().map(|(key, rows)| (&**key, rows)).collect();
        assert_eq!(runs, [("a", 2), ("c", 1)]);
        let table = Table::new(&plan, decoder.names(), vec![chunk]);
        assert_eq!(
            strings(&table, "_key"),
            ["a", "a", "c"].map(|key| Some(key.to_owned()))
        );
        assert_eq!(
            strings(&table, "n"),
            ["1", "2", "5"].map(|n| Some(n.to_owned()))
        );
    }
}

#[test]
fn a_truncated_reply_of_several_streams_says_how_far_each_came() {
    let plan = keyed_plan();
    let bytes = three_streams();
    let mut rows_before = 0;
    for end in 0..bytes.len() {
        let mut decoder = Decoder::new(plan.clone());
        let mut chunk = ChunkBuilder::with_room(&plan, 0);
        decoder.begin_streams(asked(), 2);
        let progress = decoder.decode(&mut &bytes[..end], &mut chunk);
        assert_eq!(progress, Ok(Progress::NeedMore), "{end}");
        decoder.abandon(&mut chunk);
        assert!(chunk.rows() >= rows_before);
        rows_before = chunk.rows();
        let last_of = |at: usize, came: &[Came]| {
            let of_stream = came.iter().find(|came| came.at == at);
            of_stream.and_then(|came| came.last).map(|id| id.ms)
        };
        let came = decoder.came().to_vec();
        let expected = match rows_before {
            0 => None,
            rows => Some(rows.min(2) as u64),
        };
        assert_eq!(last_of(0, &came), expected, "{end}");
        assert_eq!(last_of(2, &came), (rows_before == 3).then_some(3), "{end}");
        // The same decoder goes on with another reply.
        decoder.begin_streams(asked(), 2);
        let next = reply_of_streams(&[("b", reply(&[("7-0", &[])]))]);
        let decoded = decoder.decode(&mut next.as_slice(), &mut chunk);
        assert_eq!(decoded, Ok(Progress::Done { entries: 1 }));
        let chunk = chunk.finish();
        let last = chunk.streams().last().map(|(key, rows)| (&**key, rows));
        assert_eq!(last, Some(("b", 1)), "{end}");
    }
    assert_eq!(rows_before, 3);
}

#[test]
fn streams_that_have_nothing_or_deleted_entries_only() {
    let plan = keyed_plan();
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(&plan, 0);
    for nothing in [&b"*-1\r\n"[..], b"*0\r\n"] {
        decoder.begin_streams(asked(), 2);
        let decoded = decoder.decode(&mut &nothing[..], &mut chunk);
        assert_eq!(decoded, Ok(Progress::Done { entries: 0 }));
        assert_eq!(decoder.came(), []);
    }
    // As XREADGROUP shows pending entries that were deleted.
    let deleted = b"*1\r\n*2\r\n$3\r\n4-0\r\n*-1\r\n".to_vec();
    let bytes = reply_of_streams(&[("a", reply(&[])), ("b", deleted)]);
    decoder.begin_streams(asked(), 2);
    let decoded = decoder.decode(&mut bytes.as_slice(), &mut chunk);
    assert_eq!(decoded, Ok(Progress::Done { entries: 1 }));
    let [first, second] = decoder.came() else {
        panic!("both came")
    };
    assert_eq!((first.entries, first.last), (0, None));
    assert_eq!(second.deleted, [EntryId::new(4, 0)]);
    assert_eq!(chunk.rows(), 0);
}

#[test]
fn a_reply_of_streams_that_were_not_asked_for_is_refused() {
    let plan = keyed_plan();
    let entry = || reply(&[("3-0", &["n", "1"])]);
    for streams in [
        vec![("x", entry())],
        vec![("", entry())],
        // Out of order, twice, or more than there are.
        vec![("b", entry()), ("a", entry())],
        vec![("a", entry()), ("a", entry())],
        vec![
            ("a", entry()),
            ("b", entry()),
            ("c", entry()),
            ("d", entry()),
        ],
        // Before what was asked for; more entries than were asked for.
        vec![("c", reply(&[("1-0", &[])]))],
        vec![("a", reply(&[("1-0", &[]), ("2-0", &[]), ("3-0", &[])]))],
    ] {
        let mut decoder = Decoder::new(plan.clone());
        let mut chunk = ChunkBuilder::with_room(&plan, 0);
        decoder.begin_streams(asked(), 2);
        let bytes = reply_of_streams(&streams);
        let fault = decoder.decode(&mut bytes.as_slice(), &mut chunk);
        assert!(matches!(fault, Err(Fault::Protocol(_))), "{fault:?}");
    }
}

#[test]
fn a_value_that_does_not_fit_says_of_which_stream_it_is() {
    let ids = IdColumns::default();
    let schema = vec![Field {
        name: "n".into(),
        dtype: FieldType::Int64,
    }];
    let plan = Plan::new(ids, Fields::Schema(schema), OnMisfit::Raise).unwrap();
    let plan = Arc::new(plan);
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(&plan, 0);
    decoder.begin_streams(asked(), 2);
    let fault = decoder.decode(&mut three_streams().as_slice(), &mut chunk);
    assert!(fault.is_ok(), "what is beyond the end does not matter");
    let misfit = reply(&[("3-0", &["n", "1"]), ("4-0", &["n", "x"])]);
    let bytes = reply_of_streams(&[("a", reply(&[("1-0", &[])])), ("b", misfit)]);
    decoder.begin_streams(asked(), 2);
    let fault = decoder.decode(&mut bytes.as_slice(), &mut chunk);
    assert!(matches!(fault, Err(Fault::Value { id, .. }) if id == EntryId::new(4, 0)));
    assert_eq!(decoder.stream(), "b");
    assert_eq!(decoder.came(), [came(0, 1, 1), came(1, 2, 3)]);
}
