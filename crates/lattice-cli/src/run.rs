//! `lattice run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use lattice_graph::{
    Executor, InterruptFlag, NodeFailure, Prompt, RunResult, RunStatus, ValidationFailure, validate,
};
use lattice_nodes::services::{Folders, Root, services};
use serde_json::{Value as Json, json};

use crate::RunArgs;
use crate::host::Host;
use crate::overrides::set_seed;
use crate::report::{Reporter, Style};
use crate::workflow;

pub(crate) fn run(mut host: Host, args: &RunArgs) -> Result<ExitCode> {
    host.config.metadata &= !args.no_metadata;
    host.config.preview = args.preview_method.unwrap_or(host.config.preview);
    let mut folders = host.folders.clone();
    if let Some(out) = &args.out {
        folders = folders.with_output(out);
    }
    if let Some(beside) = input_beside(&args.workflow, &host, &folders) {
        folders = folders.with_input(beside);
    }
    let registry = Arc::new(lattice_nodes::registry());
    let extensions = services(folders.clone(), host.settings());

    let mut workflow = workflow::read(&args.workflow, &registry, &extensions)?;
    for change in &args.set {
        change.apply(&mut workflow.prompt)?;
    }
    if let Some(seed) = args.seed {
        set_seed(&mut workflow.prompt, seed)?;
    }
    let prompt = Json::Object(workflow.prompt);
    let reporter = Reporter::new(Style::choose(args.json, args.quiet), &prompt);

    let targets = (!args.target.is_empty()).then_some(args.target.as_slice());
    let parsed = Prompt::parse(prompt.clone());
    let accepted = match parsed.and_then(|prompt| validate(prompt, &registry, &extensions, targets)) {
        Ok(accepted) => accepted,
        Err(failure) => {
            refuse(&failure, args.json);
            return Ok(ExitCode::FAILURE);
        }
    };
    for (id, entry) in &accepted.node_errors {
        eprintln!("warning: node {id} ({}) is left out:", entry.class_type);
        for e in &entry.errors {
            eprintln!("  {}: {}", e.message, e.details);
        }
    }

    let mut executor = Executor::new(registry, extensions, host.cache());
    let sink = |event| reporter.event(&event);
    let result = executor.run(&accepted, &workflow.extra_data, &sink, &InterruptFlag::default());
    let files = files(&result, &folders);
    if args.json {
        println!("{}", json!({ "event": "files", "files": files }));
    } else {
        for file in &files {
            println!("{}", file.display());
        }
    }
    Ok(match &result.status {
        RunStatus::Success => ExitCode::SUCCESS,
        RunStatus::Interrupted => ExitCode::from(130),
        RunStatus::Error(failure) => {
            explain(failure);
            ExitCode::FAILURE
        }
    })
}

/// A workflow travels with its pictures: without an input folder of the user's, `input` beside the workflow is it.
fn input_beside(workflow: &Path, host: &Host, folders: &Folders) -> Option<PathBuf> {
    if host.input_named || folders.root(Root::Input).is_dir() {
        return None;
    }
    Some(workflow.parent()?.join("input")).filter(|folder| folder.is_dir())
}

/// The files that output nodes report, in the order of the nodes.
fn files(result: &RunResult, folders: &Folders) -> Vec<PathBuf> {
    let lists = result.outputs.values().flat_map(|ui| ui.output.values());
    let entries = lists.filter_map(Json::as_array).flatten();
    let path = |entry: &Json| {
        let root = Root::from_name(entry["type"].as_str()?)?;
        let below = Path::new(entry["subfolder"].as_str()?).join(entry["filename"].as_str()?);
        Some(folders.root(root).join(below))
    };
    entries.filter_map(path).collect()
}

/// Says why a prompt cannot run.
fn refuse(failure: &ValidationFailure, as_json: bool) {
    if as_json {
        println!("{}", json!({ "event": "refused", "reply": failure.to_json() }));
        return;
    }
    eprintln!("error: {}", failure.error.message);
    if failure.node_errors.is_empty() && !failure.error.details.is_empty() {
        eprintln!("  {}", failure.error.details);
    }
    for (id, entry) in failure.node_errors.iter() {
        eprintln!("  node {id} ({}):", entry.class_type);
        for e in &entry.errors {
            eprintln!("    {}: {}", e.message, e.details);
        }
    }
}

/// Says which node failed and why.
fn explain(failure: &NodeFailure) {
    eprintln!(
        "error: node {} ({}): {}",
        failure.node_id,
        failure.node_type,
        failure.exception_message.trim_end()
    );
    for cause in &failure.traceback {
        eprintln!("  caused by: {cause}");
    }
}
