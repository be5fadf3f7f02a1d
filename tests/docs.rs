//! The pages say what the code has: reasons, files, tests, commands, settings.
// Tests may panic, and so may what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_gateway::config;
use sluice_gateway::rpc::errors::Reason;

const PAGES: &[&str] = &[
    "README.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/clients.md",
    "docs/configuration.md",
    "docs/crash-testing.md",
    "docs/errors.md",
    "docs/fees.md",
    "docs/journal.md",
    "docs/keys.md",
    "docs/kms.md",
    "docs/metrics.md",
    "docs/nodes.md",
    "docs/operations.md",
    "docs/simulation.md",
    "docs/simulators.md",
    "docs/sluice-namespace.md",
    "deploy/README.md",
    "dashboards/README.md",
    "examples/README.md",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn words() -> Vec<String> {
    Reason::ALL.iter().map(|reason| serde_json::to_value(reason).unwrap().as_str().unwrap().to_owned()).collect()
}

/// The text below a heading of the second level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let text = &page[start + 4..];
    text.find("\n## ").map_or(text, |end| &text[..end])
}

/// The first cell of each row of a section's tables, if it is code.
fn first_cells(section: &str) -> Vec<&str> {
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(cell, _)| cell)).collect()
}

/// What stands in backticks, blocks left out.
fn code(page: &str) -> Vec<String> {
    let mut blocks = false;
    let prose = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        blocks ^= fence;
        !fence && !blocks && !line.starts_with("    ")
    });
    prose.flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Every fenced block of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|part| part.split_once("```").expect("a block ends").0.to_owned()).collect()
}

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_reason_of_the_code_is_in_the_list_of_all() {
    let source = read("src/rpc/errors.rs");
    let (_, body) = source.split_once("pub enum Reason {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let variants: Vec<&str> = body.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
    let variants: Vec<String> = variants.join("").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let all: Vec<String> = Reason::ALL.iter().map(|reason| format!("{reason:?}")).collect();
    assert_eq!(all, variants);
}

#[test]
fn the_page_of_errors_lists_exactly_the_reasons() {
    let page = read("docs/errors.md");
    assert_eq!(first_cells(section(&page, "Reasons")), words());
}

#[test]
fn every_row_of_the_page_of_errors_has_a_code_and_says_what_to_do() {
    let page = read("docs/errors.md");
    for line in section(&page, "Reasons").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{line}");
        let codes: Vec<&str> = cells[1].split(", ").collect();
        assert!(
            codes == ["none"] || codes.iter().all(|code| *code == "4" || (code.starts_with("-32") && code.parse::<i32>().is_ok())),
            "{line}"
        );
        assert!(["retry", "reject", "reconcile"].iter().any(|word| cells[3].starts_with(word)), "{line}");
    }
}

/// The methods and the options of the page are those of the code, and each example is JSON.
#[test]
fn the_page_of_the_sluice_namespace_has_every_method() {
    let page = read("docs/sluice-namespace.md");
    let mut text = String::new();
    sources(&root().join("src/rpc"), &mut text);
    let registered = text.split("\"sluice_").skip(1).filter_map(|rest| rest.split_once('"'));
    let registered: BTreeSet<String> =
        registered.map(|(name, _)| format!("sluice_{name}")).filter(|name| name != "sluice_subscription").collect();
    let (contents, _) = page.split_once("\n## ").unwrap();
    let named: BTreeSet<String> = code(contents).into_iter().filter(|word| word.starts_with("sluice_") && word.len() > 7).collect();
    assert_eq!(named, registered);
    let readme = read("README.md");
    for name in &registered {
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
    for reason in code(&page).iter().filter(|word| word.ends_with("_params") || word.starts_with("invalid_") || word.starts_with("not_")) {
        assert!(words().contains(reason), "{reason}");
    }
    for example in blocks(&page, "json") {
        serde_json::from_str::<serde_json::Value>(&example).unwrap_or_else(|error| panic!("{error}: {example}"));
    }
}

/// What the page says about steering is what the simulators take.
#[test]
fn the_page_of_simulators_has_every_method_and_fault() {
    let page = read("docs/simulators.md");
    let named: BTreeSet<String> = code(section(&page, "Steering a node")).into_iter().filter(|word| word.starts_with("sim_")).collect();
    let source = read("load-tests/src/sim_node/control.rs");
    let known = source.split("\"sim_").skip(1).filter_map(|rest| rest.split_once('"'));
    assert_eq!(named, known.map(|(name, _)| format!("sim_{name}")).collect());
    let faults = ["load-tests/src/sim_node/faults.rs", "load-tests/src/sim_kms/faults.rs", "load-tests/src/announcements.rs"];
    for (file, name) in faults.into_iter().zip(["Fault", "Fault", "HeadFault"]) {
        let source = read(file);
        let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).unwrap();
        let (body, _) = body.split_once("\n}\n").unwrap();
        for line in body.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(char::is_uppercase)) {
            let name = line.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            let name = format!("`{}{}`", name[..1].to_lowercase(), &name[1..]);
            assert!(section(&page, "Faults").contains(&name), "{file}: {name}");
        }
    }
}

/// A reason that nothing has ever been told is a promise of the page alone.
#[test]
fn every_reason_is_told_in_some_test() {
    let mut text = String::new();
    for folder in ["tests/it", "src/server/tests"] {
        sources(&root().join(folder), &mut text);
    }
    for word in words() {
        assert!(text.contains(&format!("\"{word}\"")), "{word}");
    }
}

/// Which codes go with which reason is said twice: for people and in the OpenRPC document.
#[test]
fn the_page_of_errors_and_the_openrpc_document_have_the_same_codes() {
    let page = read("docs/errors.md");
    let mut on_the_page = BTreeSet::new();
    for line in section(&page, "Reasons").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        on_the_page.extend(
            cells[1]
                .split(", ")
                .filter(|code| *code != "none")
                .map(|code| (cells[0].trim_matches('`').to_owned(), code.parse::<i64>().unwrap())),
        );
    }
    let errors: serde_json::Value = serde_json::from_str(&read("src/rpc/openrpc/errors.json")).unwrap();
    let mut in_the_document = BTreeSet::new();
    for error in errors.as_object().unwrap().values() {
        let reasons = error["data"]["properties"]["reason"]["enum"].as_array().unwrap();
        in_the_document.extend(reasons.iter().map(|reason| (reason.as_str().unwrap().to_owned(), error["code"].as_i64().unwrap())));
    }
    assert_eq!(on_the_page, in_the_document);
}

#[test]
fn links_lead_somewhere() {
    for name in PAGES {
        let page = read(name);
        let folder = root().join(name).parent().unwrap().to_path_buf();
        for target in page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(name) } else { folder.join(file) };
            assert!(path.exists(), "{name}: {target}");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&path).unwrap();
                let anchors: BTreeSet<String> = text.lines().filter(|line| line.starts_with('#')).map(anchor_of).collect();
                assert!(anchors.contains(anchor), "{name}: {target}");
            }
        }
    }
}

/// A heading's anchor, as GitHub makes it.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn files_that_are_named_exist() {
    let known = ["rs", "md", "toml", "lock", "sql", "json", "mjs", "py", "sh", "yml"];
    let mut looked_at = 0;
    for name in PAGES {
        for token in code(&read(name)) {
            let path = Path::new(&token);
            let is_path = token.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c)) && !token.starts_with('/');
            let is_file = path.extension().is_some_and(|extension| known.iter().any(|word| extension == *word));
            let is_folder = token.ends_with('/');
            // Files of the operator, and what is made by a command, are not of the repository.
            if !is_path || !(is_file || is_folder) || token.starts_with("sluice.") || token == ".parts/" {
                continue;
            }
            looked_at += 1;
            assert!(root().join(path).exists() || root().join("src").join(path).exists(), "{name}: {token}");
        }
    }
    assert!(looked_at > 80, "{looked_at}");
}

#[test]
fn tests_that_are_named_exist() {
    let mut text = String::new();
    sources(&root().join("src"), &mut text);
    let page = read("docs/architecture.md");
    let mut looked_at = 0;
    for line in section(&page, "Invariants").lines().filter(|line| line.starts_with("| I")) {
        let tests = line.trim_end_matches('|').rsplit('|').next().unwrap();
        for test in code(tests) {
            looked_at += 1;
            assert!(text.contains(&format!("fn {test}(")), "{test}");
        }
    }
    assert!(looked_at > 20, "{looked_at}");
}

/// `Type::function` of the prose.
#[test]
fn functions_that_are_named_exist() {
    let mut text = String::new();
    sources(&root().join("src"), &mut text);
    for token in code(&read("docs/architecture.md")) {
        if let Some((kind, function)) = token.split_once("::") {
            assert!(text.contains(&format!(" {kind} ")) || text.contains(&format!(" {kind}<")), "{token}");
            let named = [format!("fn {function}("), format!("const {function}:"), format!("    {function},"), format!("    {function}(")];
            assert!(named.iter().any(|name| text.contains(name)), "{token}");
        }
    }
}

#[test]
fn the_configuration_of_the_readme_is_right() {
    let page = read("README.md");
    let examples = blocks(&page, "toml");
    assert_eq!(examples.len(), 1);
    let config = config::parse(&examples[0], []).unwrap();
    assert_eq!(config.services[0].name, "payments");
    assert!(page.contains("`SLUICE__SERVER__LISTEN=127.0.0.1:8600`"));
    let overridden = config::parse(&examples[0], [("SLUICE__SERVER__LISTEN".to_owned(), "127.0.0.1:8600".to_owned())]).unwrap();
    assert_eq!(overridden.server.listen, "127.0.0.1:8600".parse().unwrap());
}

#[test]
fn the_policies_of_the_readme_are_json_and_condition_only_signs() {
    let policies = blocks(&read("README.md"), "json");
    assert_eq!(policies.len(), 2);
    for policy in &policies {
        let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
        for statement in policy["Statement"].as_array().unwrap() {
            assert_eq!(statement["Effect"], "Allow");
            let signs = statement["Action"] == "kms:Sign";
            assert_eq!(statement.get("Condition").is_some(), signs, "{statement}");
            if signs {
                let equals = &statement["Condition"]["StringEquals"];
                assert_eq!((&equals["kms:MessageType"], &equals["kms:SigningAlgorithm"]), (&"DIGEST".into(), &"ECDSA_SHA_256".into()));
            }
        }
    }
}

fn help(command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).args(command.split_whitespace()).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_line_of_the_readme_is_the_binarys() {
    let page = read("README.md");
    let mut commands = BTreeSet::new();
    for row in first_cells(section(&page, "Command line")) {
        let Some(row) = row.strip_prefix("sluice ") else { continue };
        if row == "--version" {
            continue;
        }
        let words: Vec<&str> = row.split(' ').collect();
        let is_command = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let command = words.iter().take_while(is_command).copied().collect::<Vec<_>>().join(" ");
        let text = help(&command);
        let documented: BTreeSet<&str> =
            words.iter().filter_map(|word| word.strip_prefix('[')).map(|word| word.trim_end_matches(']')).collect();
        let options = text.split_whitespace().filter(|word| word.starts_with("--") && !["--help", "--version"].contains(word));
        let real: BTreeSet<&str> = options.map(|word| word.trim_end_matches([',', '.', ')'])).collect();
        assert_eq!(documented, real, "{command}");
        for place in words.iter().filter(|word| word.chars().all(|c| c.is_ascii_uppercase())) {
            assert!(text.contains(&format!("<{place}>")), "{command}: {place}");
        }
        commands.insert(command);
    }
    for group in ["account", "keys", "journal"] {
        for line in help(group).lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty()) {
            let Some(name) = line.strip_prefix("  ").and_then(|line| line.split(' ').next()).filter(|name| !name.is_empty()) else {
                continue;
            };
            assert!(name == "help" || commands.contains(&format!("{group} {name}")), "{group} {name}");
        }
    }
    for line in help("").lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty()) {
        let Some(name) = line.strip_prefix("  ").and_then(|line| line.split(' ').next()).filter(|name| !name.is_empty()) else { continue };
        assert!(name == "help" || commands.iter().any(|command| command.split(' ').next() == Some(name)), "{name}");
    }
}

#[test]
fn the_page_of_clients_has_the_versions_that_are_tested() {
    let page = read("docs/clients.md");
    let lock = read("Cargo.lock");
    let (node, python, go) =
        (read("tests/parts/package.json"), read("tests/parts/requirements.txt"), read("tests/clients/ethclient/go.mod"));
    let pins = [
        ("ethers 6", &node, r#""ethers": "VERSION""#),
        ("viem 2", &node, r#""viem": "VERSION""#),
        ("web3.js 4", &node, r#""web3": "VERSION""#),
        ("web3.py", &python, "\nweb3==VERSION\n"),
        ("alloy", &lock, "name = \"alloy-provider\"\nversion = \"VERSION\""),
        ("go-ethereum", &go, "github.com/ethereum/go-ethereum vVERSION\n"),
        ("cast", &node, r#""@foundry-rs/cast": "VERSION""#),
    ];
    for (library, pinned, pattern) in pins {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {library} | "))).unwrap_or_else(|| panic!("no {library}"));
        let version = row.split(" | ").next().unwrap();
        assert!(pinned.contains(&pattern.replace("VERSION", version)), "{library} {version}");
    }
}
