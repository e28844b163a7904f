//! Which keys there are: asked of the types that are read, so that there is no second list of them.
//!
//! A probe stands in for a file. It walks down one path of the schema, notes what the type at its end asks for, and
//! fails: nothing is ever made of it.

use std::cell::RefCell;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, forward_to_deserialize_any};

/// What may stand at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// A table with these keys.
    Table(Vec<(&'static str, Schema)>),
    /// Several of these, a `[[section]]` each or a list.
    Several(Box<Schema>),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Anything else: a number, a text, a duration.
    Value,
}

/// The schema of a type.
pub(super) fn of<'de, T: Deserialize<'de>>() -> Schema {
    below::<T>(&mut Vec::new())
}

fn below<'de, T: Deserialize<'de>>(path: &mut Vec<&'static str>) -> Schema {
    let seen = RefCell::new(Seen::default());
    // It always fails: what was seen counts.
    let _ = T::deserialize(Probe { path, seen: &seen });
    let Seen { asked, several } = seen.into_inner();
    let found = match asked {
        Asked::Fields(fields) => {
            let field = |field: &&'static str| {
                path.push(field);
                let found = (*field, below::<T>(path));
                path.pop();
                found
            };
            Schema::Table(fields.iter().map(field).collect())
        }
        Asked::Words(words) => Schema::Word(words),
        Asked::Other => Schema::Value,
    };
    if several { Schema::Several(Box::new(found)) } else { found }
}

#[derive(Debug, Default)]
struct Seen {
    asked: Asked,
    /// At the end of the path there is a list.
    several: bool,
}

#[derive(Debug, Default)]
enum Asked {
    Fields(&'static [&'static str]),
    Words(&'static [&'static str]),
    #[default]
    Other,
}

#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [&'static str],
    seen: &'a RefCell<Seen>,
}

/// The end of every probe.
fn over<T>() -> Result<T, value::Error> {
    Err(value::Error::custom("a probe"))
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        over()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        self.seen.borrow_mut().several = self.path.is_empty();
        visitor.visit_seq(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        if self.path.is_empty() {
            self.seen.borrow_mut().asked = Asked::Fields(fields);
            return over();
        }
        visitor.visit_map(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, value::Error> {
        self.seen.borrow_mut().asked = Asked::Words(variants);
        over()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> SeqAccess<'de> for Probe<'_> {
    type Error = value::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, value::Error> {
        seed.deserialize(*self).map(Some)
    }
}

/// The one key that lies on the path.
impl<'de> MapAccess<'de> for Probe<'_> {
    type Error = value::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, value::Error> {
        let Some(key) = self.path.first() else { return over() };
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, value::Error> {
        let path = self.path.get(1..).unwrap_or_default();
        seed.deserialize(Probe { path, seen: self.seen })
    }
}
