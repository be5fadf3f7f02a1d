//! The Dockerfile, read by BuildKit's parser and linter, and its build stage carried out without the compiler.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{configuration, deploy, docker, root, texts};
use crate::support::gateway::{run, words};
use crate::support::parts::{Part, have};

/// Where Debian's releases stand in the names of the two images.
const RELEASES: [(&str, &str); 2] = [("-bookworm", "-debian12:"), ("-trixie", "-debian13:")];

fn dockerfile() -> Value {
    docker("dockerfile", &deploy("Dockerfile"))
}

/// The instructions of a stage with this name, in order.
fn instructions<'a>(stage: &'a Value, name: &str) -> Vec<&'a Value> {
    let all = stage["instructions"].as_array().unwrap();
    all.iter().filter(|instruction| instruction["name"] == name).map(|instruction| &instruction["value"]).collect()
}

#[test]
fn the_dockerfile_has_no_warning_and_pins_both_images() {
    if !have("the_dockerfile_has_no_warning_and_pins_both_images", &[Part::Deploy]) {
        return;
    }
    let recipe = dockerfile();
    assert_eq!(texts(&recipe["warnings"]), [""; 0]);
    let stages = recipe["stages"].as_array().unwrap();
    let bases: Vec<&str> = stages.iter().map(|stage| stage["base"].as_str().unwrap()).collect();
    let [rust, base] = bases[..] else { panic!("a stage that builds and one that runs: {bases:?}") };
    assert!(RELEASES.iter().any(|(one, other)| rust.ends_with(one) && base.contains(other)), "{rust} and {base} are of one release");
    // At least the oldest compiler that the crate allows, to the third number.
    let version = |text: &str| text.split('.').map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>();
    let tag = rust.strip_prefix("rust:").and_then(|tag| tag.split('-').next()).unwrap();
    assert!(version(tag).len() == 3 && version(tag) >= version(env!("CARGO_PKG_RUST_VERSION")), "{tag}");
}

#[test]
fn the_image_runs_the_gateway_as_nobody_in_particular() {
    if !have("the_image_runs_the_gateway_as_nobody_in_particular", &[Part::Deploy]) {
        return;
    }
    let (recipe, config) = (dockerfile(), configuration());
    let stage = recipe["stages"].as_array().unwrap().last().unwrap();
    let user = instructions(stage, "USER").last().unwrap()["User"].as_str().unwrap();
    let (uid, gid) = user.split_once(':').unwrap();
    assert!(uid.parse::<u32>().unwrap() > 0 && gid.parse::<u32>().unwrap() > 0, "by number, and not root: {user}");

    let entry = instructions(stage, "ENTRYPOINT")[0];
    assert_eq!((texts(&entry["CmdLine"]), &entry["PrependShell"]), (vec!["/usr/local/bin/sluice"], &Value::Bool(false)));
    let command = instructions(stage, "CMD")[0];
    let serve = texts(&command["CmdLine"]);
    assert_eq!((serve[0], serve.len(), &command["PrependShell"]), ("serve", 2, &Value::Bool(false)));
    let health = &instructions(stage, "HEALTHCHECK")[0]["Health"];
    assert_eq!(texts(&health["Test"]), ["CMD", "/usr/local/bin/sluice", "healthcheck", serve[1]]);

    let copied: Vec<(&str, &str, &str)> = instructions(stage, "COPY")
        .into_iter()
        .map(|copy| (copy["From"].as_str().unwrap(), copy["DestPath"].as_str().unwrap(), copy["Chown"].as_str().unwrap()))
        .collect();
    assert!(copied.contains(&("build", "/usr/local/bin/sluice", "")), "root's, so that the service cannot change it: {copied:?}");
    let folder = config.journal.path.parent().unwrap().to_str().unwrap().to_owned();
    assert!(copied.contains(&("build", &folder, user)), "{copied:?}");
    assert_eq!(texts(&instructions(stage, "VOLUME")[0]["Volumes"]), [folder]);
    let ports = [config.server.listen.port().to_string(), config.admin.listen.port().to_string()];
    assert_eq!(texts(&instructions(stage, "EXPOSE")[0]["Ports"]), ports);
    assert!(instructions(stage, "RUN").is_empty(), "there is no shell");
}

#[test]
fn all_that_is_copied_is_sent_to_the_builder_and_nothing_else() {
    if !have("all_that_is_copied_is_sent_to_the_builder_and_nothing_else", &[Part::Deploy]) {
        return;
    }
    let (recipe, context) = (dockerfile(), docker("context", root()));
    let sent = texts(&context);
    let mut copied = Vec::new();
    for stage in recipe["stages"].as_array().unwrap() {
        for copy in instructions(stage, "COPY").into_iter().filter(|copy| copy["From"] == "") {
            copied.extend(texts(&copy["SourcePaths"]));
        }
    }
    let within = |file: &str, source: &str| file == source || file.starts_with(&format!("{source}/"));
    for source in &copied {
        assert!(sent.iter().any(|file| within(file, source)), "{source} is hidden by .dockerignore, or is not there");
    }
    for file in &sent {
        assert!(copied.iter().any(|source| within(file, source)), "{file} is sent in vain");
    }
}

/// Carries out the build stage below `folder`, with a `cargo` that takes what this test was built from, and that asks the real one
/// whether it would accept the crate as it stands in that layer. The value is where the stage's `/image` is.
pub(super) fn build_stage(folder: &Path) -> std::path::PathBuf {
    let (tools, image) = (folder.join("tools"), folder.join("image"));
    std::fs::create_dir_all(&tools).unwrap();
    let cargo = tools.join("cargo");
    let script = format!(
        "#!/bin/sh\nset -e\n[ \"$*\" = 'build --release --locked --bin sluice' ] || {{ echo \"cargo $*\" >&2; exit 1; }}\n\
         '{real}' metadata --format-version 1 --offline --locked --no-deps >/dev/null\n\
         '{real}' tree --offline --locked --package sluice-gateway --edges normal,build >/dev/null\n\
         '{real}' metadata --format-version 1 --offline --locked --no-deps | grep -q '\"name\":\"sluice\",\"src_path\":\"'\"$PWD\"'/src/main.rs\"'\n\
         mkdir -p target/release && cp '{binary}' target/release/sluice\n",
        real = env!("CARGO"),
        binary = env!("CARGO_BIN_EXE_sluice"),
    );
    std::fs::write(&cargo, script).unwrap();
    std::fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    let recipe = dockerfile();
    let mut at = folder.to_path_buf();
    for instruction in recipe["stages"][0]["instructions"].as_array().unwrap() {
        let value = &instruction["value"];
        match instruction["name"].as_str().unwrap() {
            "WORKDIR" => {
                at = folder.join(value["Path"].as_str().unwrap().trim_start_matches('/'));
                std::fs::create_dir_all(&at).unwrap();
            }
            "COPY" => copy(&texts(&value["SourcePaths"]), &at.join(value["DestPath"].as_str().unwrap())),
            "RUN" => {
                let line = texts(&value["CmdLine"]).join(" ").replace("/image", image.to_str().unwrap());
                let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
                let mut command = Command::new("sh");
                command.args(["-c", &line]).current_dir(&at).env("PATH", path).env_remove("CARGO_TARGET_DIR");
                let output = run(command);
                assert!(output.status.success(), "{line}\n{}", words(&output));
            }
            other => panic!("{other} is not known to this test"),
        }
    }
    image
}

/// COPY: files into a folder, or what is in a folder.
fn copy(sources: &[&str], target: &Path) {
    std::fs::create_dir_all(target).unwrap();
    for source in sources {
        let from = root().join(source);
        let from = if from.is_dir() { from.join(".") } else { from };
        let mut command = Command::new("cp");
        command.arg("-R").arg(from).arg(target);
        let output = run(command);
        assert!(output.status.success(), "{}", words(&output));
    }
}

#[test]
fn the_build_stage_makes_what_the_last_one_copies() {
    if !have("the_build_stage_makes_what_the_last_one_copies", &[Part::Deploy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = build_stage(folder.path());
    let recipe = dockerfile();
    let stage = recipe["stages"].as_array().unwrap().last().unwrap();
    for copy in instructions(stage, "COPY").into_iter().filter(|copy| copy["From"] == "build") {
        for source in texts(&copy["SourcePaths"]) {
            assert!(image.join(source.strip_prefix("/image/").unwrap()).exists(), "{source}");
        }
    }
    // The code of the second layer has replaced the empty crate of the first.
    let code = std::fs::read_to_string(folder.path().join("build/src/main.rs")).unwrap();
    assert_eq!(code, std::fs::read_to_string(root().join("src/main.rs")).unwrap());
}
