//! `SLUICE__…` variables: each is put into the tree where the file would have its value.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::errors::Fault;
use super::reader::{Context, KeyPath, Spot, advice, fold, name_of};
use super::tree::{Item, Origin, Value};

/// What the name of an override begins with. `SLUICE_` alone is Kubernetes' business: it makes such variables for a service `sluice`.
const PREFIX: &str = "SLUICE__";

/// Arrays whose tables go by name; no override adds a table to them by naming it, since a slip of the pen would.
const NAMED: [&str; 3] = ["environment", "configuration", "service"];

struct Override<'a> {
    variable: Arc<str>,
    segments: Vec<String>,
    value: &'a str,
}

impl Override<'_> {
    /// Whole values come before their parts, and new names after everything that goes by the old ones.
    fn rank(&self) -> (bool, usize) {
        let renames = matches!(self.segments.as_slice(), [array, _, key] if NAMED.contains(&array.as_str()) && key == "name");
        (renames, self.segments.len())
    }
}

/// Puts every override into the tree; what fits nowhere is an error.
pub(super) fn apply(context: &Context<'_>, root: &mut Item) {
    let mut overrides: Vec<Override<'_>> = Vec::new();
    let mut seen: BTreeMap<Vec<String>, Arc<str>> = BTreeMap::new();
    for (name, value) in context.variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let variable: Arc<str> = Arc::from(name.as_str());
        let segments: Vec<String> = rest.split("__").map(fold).collect();
        let spot = Spot { path: KeyPath::default(), origin: Origin::Variable(Arc::clone(&variable)) };
        if segments.iter().any(String::is_empty) {
            context.fail(&spot, Fault::Unknown, "names no key: keys and names are separated by exactly two underscores");
        } else if let Some(other) = seen.insert(segments.clone(), Arc::clone(&variable)) {
            context.fail(&spot, Fault::Duplicate, format!("sets the same key as {other}"));
        } else {
            overrides.push(Override { variable, segments, value });
        }
    }
    overrides.sort_by_key(Override::rank);
    for one in overrides {
        let origin = Origin::Variable(one.variable);
        put(context, root, &Spot { path: KeyPath::default(), origin }, &one.segments, one.value);
    }
}

fn put(context: &Context<'_>, item: &mut Item, spot: &Spot, segments: &[String], value: &str) {
    let Some((segment, rest)) = segments.split_first() else {
        *item = Item::new(Value::Raw(value.to_owned()), spot.origin.clone());
        return;
    };
    if matches!(item.value, Value::Raw(_)) {
        let whole = std::mem::replace(&mut item.value, Value::Boolean(false));
        item.value = whole.settled(&item.origin);
    }
    match &mut item.value {
        Value::Table(entries) => {
            let key = entries.keys().find(|key| fold(key) == *segment).unwrap_or(segment).clone();
            let next = Spot { path: spot.path.key(&key), origin: spot.origin.clone() };
            let absent_array = spot.path.is_root() && NAMED.contains(&key.as_str()) && !rest.is_empty() && !entries.contains_key(&key);
            if absent_array {
                return context.fail(&next, Fault::Reference, format!("there is no [[{key}]] in the file to override"));
            }
            let entry = entries.entry(key).or_insert_with(|| Item::new(Value::Table(BTreeMap::new()), spot.origin.clone()));
            put(context, entry, &next, rest, value);
        }
        Value::List(items) => {
            let named = items.iter().position(|item| name_of(item).is_some_and(|name| fold(name) == *segment));
            let index = named.or_else(|| segment.parse().ok().filter(|index| *index < items.len()));
            match index.and_then(|index| items.get_mut(index).map(|item| (index, item))) {
                Some((index, item)) => {
                    let path = match name_of(item) {
                        Some(name) => spot.path.name(name),
                        None => spot.path.index(index),
                    };
                    put(context, item, &Spot { path, origin: spot.origin.clone() }, rest, value);
                }
                None => {
                    let advice = advice(segment, items.iter().filter_map(name_of));
                    let spot = Spot { path: spot.path.key(segment), origin: spot.origin.clone() };
                    context.fail(&spot, Fault::Reference, format!("there is nothing of this name or number to override{advice}"));
                }
            }
        }
        other => {
            let message = format!("is {}, so it has no key `{segment}`", other.kind());
            context.fail(spot, Fault::Unknown, message);
        }
    }
}
