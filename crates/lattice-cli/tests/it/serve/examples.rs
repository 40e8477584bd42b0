//! Every rule and example of the interface, as data: see `testdata/api/examples.yaml`.

use super::script::Scenario;
use crate::common::project;

#[test]
fn the_interface_is_as_clients_know_it() {
    let file = std::fs::read_to_string(project("testdata/api/examples.yaml")).unwrap();
    let scenarios: Vec<Scenario> = serde_yaml_ng::from_str(&file).unwrap();
    // All of them run, so that one look shows all that is wrong.
    let run = |scenario: &Scenario| {
        let scenario = scenario.clone();
        std::thread::spawn(move || scenario.run()).join().is_err()
    };
    let failed: Vec<&str> =
        scenarios.iter().filter(|scenario| run(scenario)).map(|scenario| scenario.name.as_str()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
