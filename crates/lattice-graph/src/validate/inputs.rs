//! Tests of one node's inputs.

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use super::error::{ErrorsOf, Exception, InputError, custom_failed};
use crate::{Extensions, INPUT_TYPES, InputKind, InputSpec, Inputs, Node, NodeSpec, Value, prompt, python};

/// What the inputs of one node, looked at alone, come to.
#[derive(Default)]
pub(super) struct Judgement {
    /// Errors of the node's own.
    pub errors: Vec<InputError>,
    /// Literals as converted, by input.
    pub converted: Vec<(String, Json)>,
    /// Links that fit, whose sources decide the rest: input name and source id.
    pub sources: Vec<(String, String)>,
}

/// Judges a node by its own declaration and those of its sources (`class_of`: spec of a node by id).
pub(super) fn judge<'r>(
    node: &dyn Node,
    inputs: &Map<String, Json>,
    ext: &Extensions,
    class_of: impl Fn(&str) -> Option<&'r NodeSpec>,
) -> Result<Judgement, Exception> {
    let spec = node.spec();
    let own_validator = node.validated_inputs();
    let checks_types = own_validator.contains(&INPUT_TYPES);
    let mut judgement = Judgement::default();
    let mut source_types = Map::new();
    for input in &spec.inputs {
        let report = ErrorsOf { spec: input, ext };
        match inputs.get(&input.name) {
            None if input.optional => {}
            None => judgement.errors.push(report.missing()),
            Some(value @ Json::Array(list)) => {
                let [id, slot] = list.as_slice() else {
                    judgement.errors.push(report.bad_link(value));
                    continue;
                };
                let received = source_kind(id, slot, &class_of)?;
                source_types.insert(input.name.clone(), received.name(ext));
                if checks_types || fits(received, &input.kind, ext) {
                    judgement.sources.push((input.name.clone(), python::text(id)));
                } else {
                    judgement.errors.push(report.type_mismatch(&received.name(ext), value));
                }
            }
            Some(value) => {
                let own = own_validator.contains(&input.name.as_str());
                match literal(&report, value, own) {
                    Ok(literal) if literal != *value => {
                        judgement.converted.push((input.name.clone(), literal));
                    }
                    Ok(_) => {}
                    Err(error) => judgement.errors.push(error),
                }
            }
        }
    }
    // A validator is asked only about inputs that have passed so far.
    if !own_validator.is_empty() && judgement.errors.is_empty() {
        own_validation(node, inputs, ext, source_types, &mut judgement);
    }
    Ok(judgement)
}

/// Declared type of the slot a link names.
fn source_kind<'r>(
    id: &Json,
    slot: &Json,
    class_of: &impl Fn(&str) -> Option<&'r NodeSpec>,
) -> Result<&'r InputKind, Exception> {
    let source = id.as_str().and_then(class_of).ok_or_else(|| Exception::key(id))?;
    let is_integer = slot.is_i64() || slot.is_u64();
    if !is_integer {
        let text = "tuple indices must be integers or slices, not something else".to_owned();
        return Err(Exception { kind: "TypeError", text });
    }
    let output = slot.as_u64().and_then(|slot| source.outputs.get(usize::try_from(slot).ok()?));
    output
        .map(|o| &o.kind)
        .ok_or_else(|| Exception { kind: "IndexError", text: "tuple index out of range".into() })
}

/// Whether an output of one type may feed an input of another. There is no conversion between numbers.
fn fits(received: &InputKind, wanted: &InputKind, ext: &Extensions) -> bool {
    match (received.name(ext), wanted.name(ext)) {
        (Json::String(received), Json::String(wanted)) => {
            let any = received == "*" || wanted == "*";
            let members = |t: &str| t.split(',').map(|t| t.trim().to_owned()).collect::<Vec<_>>();
            any || received == wanted || members(&wanted).iter().any(|t| members(&received).contains(t))
        }
        (received, wanted) => received == wanted,
    }
}

/// The literal as the node will see it. `own`: the class has its own test for it.
#[allow(clippy::result_large_err)] // the error is put into the reply as it is
fn literal(report: &ErrorsOf<'_>, value: &Json, own: bool) -> Result<Json, InputError> {
    let value = value.get("__value__").unwrap_or(value);
    let spec = report.spec;
    let value =
        convert(&spec.kind, value).map_err(|(kind, reason)| report.not_convertible(kind, value, &reason))?;
    if own {
        return Ok(value);
    }
    if let Some(bound) = outside(spec, &value, "min", std::cmp::Ordering::Less) {
        return Err(report.out_of_range(&value, bound, true));
    }
    if let Some(bound) = outside(spec, &value, "max", std::cmp::Ordering::Greater) {
        return Err(report.out_of_range(&value, bound, false));
    }
    if let InputKind::Choices(choices) = &spec.kind {
        let choices = choices.list(report.ext);
        if !choices.iter().any(|choice| python::equal(choice, &value)) {
            return Err(report.not_in_list(&value, &choices));
        }
    }
    Ok(value)
}

fn outside<'a>(spec: &'a InputSpec, value: &Json, bound: &str, side: std::cmp::Ordering) -> Option<&'a Json> {
    spec.option(bound).filter(|bound| python::compare(value, bound) == Some(side))
}

fn convert(kind: &InputKind, value: &Json) -> Result<Json, (&'static str, String)> {
    match kind {
        InputKind::Type(t) if t == "INT" => python::int(value).map_err(|reason| ("INT", reason)),
        InputKind::Type(t) if t == "FLOAT" => python::float(value).map_err(|reason| ("FLOAT", reason)),
        InputKind::Type(t) if t == "STRING" => Ok(python::text(value).into()),
        InputKind::Type(t) if t == "BOOLEAN" => Ok(python::truth(value).into()),
        _ => Ok(value.clone()),
    }
}

/// Asks the class's validator about the inputs it names, links as null.
fn own_validation(
    node: &dyn Node,
    inputs: &Map<String, Json>,
    ext: &Extensions,
    source_types: Map<String, Json>,
    judgement: &mut Judgement,
) {
    let converted: IndexMap<&str, &Json> =
        judgement.converted.iter().map(|(name, v)| (name.as_str(), v)).collect();
    let named: Vec<&str> =
        node.validated_inputs().iter().copied().filter(|name| inputs.contains_key(*name)).collect();
    let mut values: Inputs = named
        .iter()
        .map(|&name| {
            let value = match (converted.get(name), inputs.get(name)) {
                (Some(&converted), _) => Value::Json(converted.clone()),
                (None, Some(value)) if prompt::link(value).is_none() => Value::Json(value.clone()),
                _ => Value::NULL,
            };
            (name.to_owned(), value)
        })
        .collect();
    if node.validated_inputs().contains(&INPUT_TYPES) {
        values.insert(INPUT_TYPES.to_owned(), Value::Json(source_types.into()));
    }
    if let Err(reason) = node.validate(ext, &values) {
        judgement.errors.extend(named.iter().map(|name| custom_failed(name, &reason)));
        if named.is_empty() {
            judgement.errors.push(custom_failed(INPUT_TYPES, &reason));
        }
    }
}
