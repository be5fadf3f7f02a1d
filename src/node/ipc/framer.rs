//! geth's stream framing: JSON values one after another, with whatever white space between them. Pure: bytes in, whole values out.

/// The stream is not what it should be, or a value is larger than it may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

/// Finds the end of each value without reading what is in it.
#[derive(Debug)]
pub(super) struct Framer {
    bytes: Vec<u8>,
    /// Bytes of the value that were looked at.
    seen: usize,
    /// Objects and lists that are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
    most: usize,
}

impl Framer {
    /// No value has more than `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), seen: 0, depth: 0, in_string: false, escaped: false, most }
    }

    /// More of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole value; `None` until more has come.
    pub(super) fn next(&mut self) -> Result<Option<String>, Broken> {
        if self.depth == 0 {
            let blank = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.bytes.drain(..blank);
            match self.bytes.first() {
                None => return Ok(None),
                Some(b'{' | b'[') => {}
                Some(_) => return Err(Broken("what the node wrote is no JSON object")),
            }
        }
        while let Some(byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        let value: Vec<u8> = self.bytes.drain(..self.seen).collect();
                        self.seen = 0;
                        return String::from_utf8(value).map(Some).map_err(|_| Broken("what the node wrote is no UTF-8"));
                    }
                }
                _ => {}
            }
        }
        if self.bytes.len() > self.most { Err(Broken("a message of the node is too large")) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn all(framer: &mut Framer) -> Vec<String> {
        std::iter::from_fn(|| framer.next().unwrap()).collect()
    }

    #[test]
    fn values_may_stand_close_or_apart() {
        let mut framer = Framer::new(1000);
        framer.push(b"{\"a\":1}{\"b\":[{}]}\r\n\n [1,{}] {\"c\":");
        assert_eq!(all(&mut framer), [r#"{"a":1}"#, r#"{"b":[{}]}"#, "[1,{}]"]);
        framer.push(b"\"}{\\\"\"}");
        assert_eq!(all(&mut framer), [r#"{"c":"}{\""}"#]);
        assert_eq!(framer.next(), Ok(None));
    }

    #[test]
    fn what_is_no_json_or_too_large_is_told() {
        let mut framer = Framer::new(10);
        framer.push(b"  HTTP/1.1 400");
        assert!(framer.next().is_err());
        let mut framer = Framer::new(10);
        framer.push(b"{\"a\":\"aaaaaaaaaaaa");
        assert_eq!(framer.next(), Err(Broken("a message of the node is too large")));
        let mut framer = Framer::new(10);
        framer.push(b"{\"\xff\":1}");
        assert!(framer.next().is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i32>().prop_map(|n| json!(n)), ".*".prop_map(|text| json!(text))];
        let inner = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                inner.prop_map(|value| json!({ "}\\\"{": value }))
            ]
        });
        inner.prop_map(|value| json!({ "v": value }))
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_values_come_out_whole(values in prop::collection::vec(any_value(), 0..6), cut in 1_usize..40) {
            let texts: Vec<String> = values.iter().map(Value::to_string).collect();
            let stream = texts.join("\n");
            let mut framer = Framer::new(1 << 20);
            let mut found = Vec::new();
            for piece in stream.as_bytes().chunks(cut) {
                framer.push(piece);
                found.extend(all(&mut framer));
            }
            prop_assert_eq!(found, texts);
        }
    }
}
