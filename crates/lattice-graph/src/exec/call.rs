//! One node's calls: inputs as lists, blockers, lazy inputs, the calls themselves.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value as Json};

use crate::{Blocker, CallContext, Inputs, ListInputs, Node, NodeError, NodeOutput, NodeSpec, Value, python};

/// Inputs of a node, each a list.
#[derive(Clone, Default)]
pub(super) struct Gathered {
    pub lists: ListInputs,
    /// Links without a result so far.
    pub missing: IndexSet<String>,
}

/// What one call came to.
pub(super) enum Called {
    Done(NodeOutput),
    /// Not made, because an input is a blocker.
    Blocked,
}

/// All calls of a node.
#[derive(Default)]
pub(super) struct Calls {
    pub calls: Vec<Called>,
    /// Messages of blockers met on the way, in order.
    pub messages: Vec<String>,
}

/// Runs foreign code; a panic becomes an error.
pub(super) fn guarded<T>(f: impl FnOnce() -> Result<T, NodeError>) -> Result<T, NodeError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        Err(NodeError::new("RuntimeError", format!("The node panicked: {}", panic_text(&*panic))))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown cause")
}

impl Gathered {
    /// As errors show them: scalars as they are, all else as text.
    pub(super) fn describe(&self) -> Json {
        let item = |value: &Value| match value {
            Value::Json(json @ (Json::Array(_) | Json::Object(_))) => python::repr(json).into(),
            Value::Json(json) => json.clone(),
            other => Json::from(format!("{other:?}")),
        };
        let list = |values: &Vec<Value>| values.iter().map(item).collect::<Json>();
        self.lists.iter().map(|(name, values)| (name.clone(), list(values))).collect::<Map<_, _>>().into()
    }

    /// The inputs of each call: as many as the longest list is long, shorter ones repeating their last element.
    fn slices(&self, spec: &NodeSpec) -> Result<Vec<Inputs>, NodeError> {
        let hidden = usize::from(!spec.hidden.is_empty());
        let longest = self.lists.values().map(Vec::len).max().unwrap_or(0).max(hidden);
        if longest == 0 {
            return Ok(vec![Inputs::new()]);
        }
        let call = |index: usize| {
            let input = |(name, values): (&String, &Vec<Value>)| {
                let value = values.get(index).or_else(|| values.last());
                let value = value.ok_or_else(|| NodeError::new("IndexError", "list index out of range"))?;
                Ok((name.clone(), value.clone()))
            };
            self.lists.iter().map(input).collect()
        };
        (0..longest).map(call).collect()
    }
}

/// The first blocker among values.
fn blocker<'a>(values: impl IntoIterator<Item = &'a Value>) -> Option<Blocker> {
    values.into_iter().find_map(|value| match value {
        Value::Blocker(blocker) => Some(blocker.clone()),
        _ => None,
    })
}

/// Calls the node once per index (`context` makes the surroundings of a call), or once with the lists.
pub(super) fn call<'c>(
    node: &dyn Node,
    gathered: Gathered,
    context: impl Fn(usize) -> CallContext<'c>,
) -> Result<Calls, NodeError> {
    let mut calls = Calls::default();
    if node.spec().input_is_list {
        let blocked = blocker(gathered.lists.values().flatten());
        calls.one(blocked, || {
            let ctx = context(0);
            ctx.check_interrupt()?;
            guarded(|| node.call_list(&ctx, gathered.lists))
        })?;
        return Ok(calls);
    }
    for (index, inputs) in gathered.slices(node.spec())?.into_iter().enumerate() {
        calls.one(blocker(inputs.values()), || {
            let ctx = context(index);
            ctx.check_interrupt()?;
            guarded(|| node.call(&ctx, inputs))
        })?;
    }
    Ok(calls)
}

impl Calls {
    fn one(
        &mut self,
        blocked: Option<Blocker>,
        make: impl FnOnce() -> Result<NodeOutput, NodeError>,
    ) -> Result<(), NodeError> {
        let called = match blocked {
            Some(blocker) => {
                self.messages.extend(blocker.message);
                Called::Blocked
            }
            None => Called::Done(make()?),
        };
        self.calls.push(called);
        Ok(())
    }

    /// UI outputs of all calls: per key of the first one, the lists one after the other.
    pub(super) fn ui(&self) -> Option<Map<String, Json>> {
        let mut outputs = self.calls.iter().filter_map(|called| match called {
            Called::Done(output) => output.ui.as_ref(),
            Called::Blocked => None,
        });
        let mut merged: IndexMap<String, Json> = outputs.next()?.clone().into_iter().collect();
        for ui in outputs {
            for (key, all) in &mut merged {
                if let (Json::Array(all), Some(Json::Array(more))) = (all, ui.get(key)) {
                    all.extend(more.iter().cloned());
                }
            }
        }
        Some(merged.into_iter().collect())
    }
}

/// Names of lazy inputs that the node asks for, None if its class never asks.
pub(super) fn lazy_names<'c>(
    node: &dyn Node,
    gathered: &Gathered,
    context: impl Fn(usize) -> CallContext<'c>,
) -> Result<IndexSet<String>, NodeError> {
    let spec = node.spec();
    let mut names = IndexSet::new();
    if !spec.inputs.iter().any(crate::InputSpec::is_lazy) {
        return Ok(names);
    }
    let mut slices = gathered.slices(spec)?;
    if spec.input_is_list {
        slices.truncate(1);
    }
    for (index, inputs) in slices.iter().enumerate() {
        if blocker(inputs.values()).is_some() {
            continue;
        }
        let asked = guarded(|| node.check_lazy(&context(index), inputs).transpose())?;
        names.extend(asked.into_iter().flatten());
    }
    Ok(names)
}
