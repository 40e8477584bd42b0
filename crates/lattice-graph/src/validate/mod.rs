//! Validation of a prompt before it is queued.

mod error;
mod inputs;

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

pub use self::error::{ErrorBody, InputError, NoInfo, NodeErrorEntry, NodeErrors, ValidationFailure};
use self::error::{ErrorsOf, Exception, exception};
use self::inputs::judge;
use crate::{Extensions, Node, Prompt, Registry, python};

/// A prompt that may be queued.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The prompt with its literals converted: an object of nodes, all of known classes.
    pub prompt: Json,
    /// Output nodes to execute.
    pub outputs: Vec<String>,
    /// Errors of those output nodes that are left out.
    pub node_errors: NodeErrors,
}

/// Validates a prompt: the output nodes (only those among `targets`, if given) and everything they need.
///
/// # Errors
/// The reply to the client, if no output node can be executed.
pub fn validate(
    prompt: Prompt,
    registry: &Registry,
    ext: &Extensions,
    targets: Option<&[String]>,
) -> Result<Accepted, ValidationFailure> {
    let classes = known_classes(&prompt, registry)?;
    let targets: Option<std::collections::HashSet<&str>> =
        targets.map(|targets| targets.iter().map(String::as_str).collect());
    let wanted = |id: &str| targets.as_ref().is_none_or(|targets| targets.contains(id));
    let outputs: Vec<usize> = prompt
        .nodes
        .keys()
        .enumerate()
        .filter(|(index, id)| classes[*index].spec().output_node && wanted(id))
        .map(|(index, _)| index)
        .collect();
    if outputs.is_empty() {
        return Err(ErrorBody::no_outputs().into());
    }
    let mut walk =
        Walk { verdicts: (0..prompt.len()).map(|_| None).collect(), prompt, classes: &classes, ext };
    for &output in &outputs {
        walk.validate(output);
    }
    walk.finish(&outputs)
}

/// The class of each node.
fn known_classes<'r>(
    prompt: &Prompt,
    registry: &'r Registry,
) -> Result<Vec<&'r dyn Node>, ValidationFailure> {
    let class = |(id, node): (&String, &Json)| {
        let at = || format!("Node ID '#{id}'");
        let class = node.get("class_type").ok_or_else(|| {
            ErrorBody::invalid("Cannot execute because a node is missing the class_type property.", at())
        })?;
        class.as_str().and_then(|class| registry.get(class)).map(|node| &**node).ok_or_else(|| {
            let message = format!("Cannot execute because node {} does not exist.", python::text(class));
            ErrorBody::invalid(message, at()).into()
        })
    };
    prompt.nodes.iter().map(class).collect()
}

/// What is known of a node.
struct Verdict {
    errors: Vec<InputError>,
    /// Source indices, by the input that links to them.
    sources: Vec<usize>,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Its sources are being validated.
    Open,
    Valid,
    Invalid,
}

/// A depth-first walk from the output nodes, with a stack of its own: prompts may be deeper than the thread's.
struct Walk<'a> {
    prompt: Prompt,
    classes: &'a [&'a dyn Node],
    ext: &'a Extensions,
    verdicts: Vec<Option<Verdict>>,
}

/// How the walk came to a node: the consumer and its input.
type Via = Option<(usize, String)>;

enum Step {
    Enter(usize, Via),
    Leave(usize),
}

impl Walk<'_> {
    fn validate(&mut self, output: usize) {
        let mut stack = vec![Step::Enter(output, None)];
        while let Some(step) = stack.pop() {
            match step {
                Step::Enter(node, via) if self.verdicts[node].is_none() => {
                    let sources = self.enter(node, via);
                    stack.push(Step::Leave(node));
                    stack.extend(
                        sources
                            .into_iter()
                            .rev()
                            .map(|(input, source)| Step::Enter(source, Some((node, input)))),
                    );
                }
                Step::Enter(..) => {}
                Step::Leave(node) => self.leave(node),
            }
        }
    }

    /// Judges a node alone and returns the sources that remain to be looked at.
    fn enter(&mut self, node: usize, via: Via) -> Vec<(String, usize)> {
        let (errors, sources) = match self.judge_alone(node) {
            Ok(found) => found,
            Err(raised) => (vec![self.raised(&raised, via)], Vec::new()),
        };
        let verdict = Verdict {
            errors,
            sources: sources.iter().map(|&(_, source)| source).collect(),
            state: State::Open,
        };
        self.verdicts[node] = Some(verdict);
        sources
    }

    fn judge_alone(&mut self, node: usize) -> Result<(Vec<InputError>, Vec<(String, usize)>), Exception> {
        let classes = self.classes;
        let nodes = &self.prompt.nodes;
        let inputs = nodes.get_index(node).and_then(|(_, json)| json.get("inputs"));
        let inputs = inputs.and_then(Json::as_object).ok_or_else(|| Exception::key(&"inputs".into()))?;
        let class_of = |id: &str| nodes.get_index_of(id).map(|index| classes[index].spec());
        let judgement = judge(classes[node], inputs, self.ext, class_of)?;
        let sources = judgement
            .sources
            .into_iter()
            .filter_map(|(input, id)| Some((input, nodes.get_index_of(&id)?)))
            .collect();
        if let Some(inputs) = self.inputs_mut(node) {
            inputs.extend(judgement.converted);
        }
        Ok((judgement.errors, sources))
    }

    fn inputs_mut(&mut self, node: usize) -> Option<&mut Map<String, Json>> {
        self.prompt.nodes.get_index_mut(node)?.1.get_mut("inputs")?.as_object_mut()
    }

    /// The error of a node that could not be judged, which tells the input that led there.
    fn raised(&self, raised: &Exception, via: Via) -> InputError {
        let inner = via.and_then(|(consumer, input)| {
            let spec = self.classes[consumer].spec().input(&input)?;
            let link = &self.prompt.nodes[consumer]["inputs"][&input];
            Some(ErrorsOf { spec, ext: self.ext }.inner_exception(raised, link))
        });
        inner.unwrap_or_else(|| exception(raised))
    }

    /// All sources are settled, or still open if they are part of a cycle, which no order can execute.
    fn leave(&mut self, node: usize) {
        let Some(verdict) = &self.verdicts[node] else { return };
        let valid = verdict.errors.is_empty() && verdict.sources.iter().all(|&source| self.is_valid(source));
        if let Some(verdict) = &mut self.verdicts[node] {
            verdict.state = if valid { State::Valid } else { State::Invalid };
        }
    }

    fn is_valid(&self, node: usize) -> bool {
        self.verdicts[node].as_ref().is_some_and(|verdict| verdict.state == State::Valid)
    }

    fn finish(self, outputs: &[usize]) -> Result<Accepted, ValidationFailure> {
        let (valid, failed): (Vec<usize>, Vec<usize>) =
            outputs.iter().partition(|&&output| self.is_valid(output));
        let node_errors = self.node_errors(&failed);
        if valid.is_empty() {
            let own = failed.iter().filter_map(|&output| self.verdicts[output].as_ref());
            let lines: Vec<String> =
                own.flat_map(|v| &v.errors).map(|e| format!("{}: {}", e.message, e.details)).collect();
            return Err(ValidationFailure {
                error: ErrorBody::outputs_failed(lines.join("\n")),
                node_errors: Box::new(node_errors),
            });
        }
        let outputs = valid.iter().map(|&output| self.prompt.nodes.keys()[output].clone()).collect();
        Ok(Accepted { prompt: self.prompt.into_json(), outputs, node_errors })
    }

    /// Nodes with errors of their own, each with the failed output nodes that need it.
    fn node_errors(&self, failed: &[usize]) -> NodeErrors {
        let id = |node: usize| self.prompt.nodes.keys()[node].clone();
        let mut entries: NodeErrors = IndexMap::new();
        let mut seen = vec![usize::MAX; self.verdicts.len()];
        for &output in failed {
            // A valid node has nothing invalid behind it.
            let mut stack = vec![output];
            while let Some(node) = stack.pop() {
                let Some(verdict) = &self.verdicts[node] else { continue };
                if seen[node] == output || verdict.state == State::Valid {
                    continue;
                }
                seen[node] = output;
                stack.extend(&verdict.sources);
                if !verdict.errors.is_empty() {
                    let entry = entries.entry(id(node)).or_insert_with(|| NodeErrorEntry {
                        errors: verdict.errors.clone(),
                        dependent_outputs: Vec::new(),
                        class_type: self.classes[node].spec().name.clone(),
                    });
                    entry.dependent_outputs.push(id(output));
                }
            }
        }
        entries
    }
}
