//! The members of a JSON object in their order, each value byte for byte.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// See the module.
#[derive(Debug)]
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Pairs<'a> {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::with_capacity(24);
                while let Some(member) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Pairs(std::marker::PhantomData))
    }
}

impl Members<'_> {
    /// The object of those that are kept, each as `value` has it.
    pub(super) fn written<'v>(&'v self, value: impl Fn(&str, &'v RawValue) -> Option<&'v str>) -> Result<Box<RawValue>, serde_json::Error> {
        let mut text = String::from("{");
        for (name, old) in &self.0 {
            let Some(value) = value(name, old) else { continue };
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(name)?);
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        RawValue::from_string(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_bytes_stay() {
        let text = r#"{ "b" : 1.50e+2 , "a\"": [ 0.10 , -0 ], "c":null }"#;
        let members: Members<'_> = serde_json::from_str(text).unwrap();
        let all = members.written(|_, value| Some(value.get())).unwrap();
        assert_eq!(all.get(), r#"{"b":1.50e+2,"a\"":[ 0.10 , -0 ],"c":null}"#);
        let some = members.written(|name, value| (name != "b").then(|| if name == "c" { "true" } else { value.get() })).unwrap();
        assert_eq!(some.get(), r#"{"a\"":[ 0.10 , -0 ],"c":true}"#);
        assert!(serde_json::from_str::<Members<'_>>("[1]").is_err());
    }
}
