//! The image without a container engine: what the Dockerfile copies, on the libraries of its base, run as a container would be: another
//! root that cannot be written, an unprivileged user, and the journal on a volume.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use alloy_primitives::B256;
use serde_json::{Value, json};
use sluice_load_tests::client::Client;

use super::dockerfile::build_stage;
use super::{deploy, docker, read, texts};
use crate::support::anvil::parse;
use crate::support::gateway::{Gateway, run, words};
use crate::support::parts::{Part, folder as parts, has_tool, have, skip};
use crate::support::process::free_port;
use crate::support::prometheus::{Prometheus, dashboard};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

/// In a mount namespace of its own: the root and what a container gets beside it. ROOT is the image's file system, VOLUME the journal's,
/// CONFIGURATION and SECRETS what is mounted.
const CONTAINER: &str = r#"set -e
mount --bind "$ROOT" "$ROOT"
mount --bind "$VOLUME" "$ROOT/var/lib/sluice"
mount --bind -o ro "$CONFIGURATION" "$ROOT/etc/sluice"
mount --bind -o ro "$SECRETS" "$ROOT/run/secrets"
mount --rbind /proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -o remount,ro,bind "$ROOT"
exec setpriv --no-new-privs chroot --userspec="$USERSPEC" --groups= "$ROOT" "$@"
"#;

struct Image {
    root: PathBuf,
    recipe: Value,
}

impl Image {
    /// Puts the last stage together below `folder`.
    fn build(folder: &Path) -> Self {
        let recipe = docker("dockerfile", &deploy("Dockerfile"));
        let (built, root) = (build_stage(folder), folder.join("root"));
        let copy = |from: &Path, to: &Path| {
            let mut command = Command::new("cp");
            command.arg("-R").arg(from).arg(to);
            let output = run(command);
            assert!(output.status.success(), "{}", words(&output));
        };
        copy(&parts().join("image/root"), &root);
        for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("bin", "usr/bin"), ("sbin", "usr/sbin")] {
            symlink(target, root.join(link)).unwrap();
        }
        for folder in ["usr/bin", "usr/local/bin", "proc", "dev", "run/secrets", "etc/sluice", "var/lib/sluice"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        // The base image has the authorities in the one file that everybody reads.
        let authorities = std::fs::read_dir(root.join("usr/share/ca-certificates/mozilla")).unwrap();
        let bundle: Vec<String> = authorities.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        std::fs::create_dir_all(root.join("etc/ssl/certs")).unwrap();
        std::fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), bundle.concat()).unwrap();
        let image = Self { root, recipe };
        for instruction in image.of("COPY").into_iter().filter(|copy| copy["From"] == "build") {
            let target = image.root.join(instruction["DestPath"].as_str().unwrap().trim_start_matches('/'));
            for source in texts(&instruction["SourcePaths"]) {
                let source = built.join(source.strip_prefix("/image/").unwrap());
                if source.is_file() {
                    copy(&source, &target);
                }
            }
        }
        image
    }

    fn of(&self, name: &str) -> Vec<&Value> {
        let all = self.recipe["stages"].as_array().unwrap().last().unwrap()["instructions"].as_array().unwrap();
        all.iter().filter(|instruction| instruction["name"] == name).map(|instruction| &instruction["value"]).collect()
    }

    fn user(&self) -> &str {
        self.of("USER").last().unwrap()["User"].as_str().unwrap()
    }

    /// The image's entry point with these arguments, or its own.
    fn command(&self, folder: &Path, arguments: Option<&[&str]>) -> Command {
        let entry = texts(&self.of("ENTRYPOINT")[0]["CmdLine"]);
        let own = texts(&self.of("CMD")[0]["CmdLine"]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", CONTAINER, "container"]);
        command.args(entry).args(arguments.unwrap_or(&own));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        for (name, path) in [("VOLUME", "volume"), ("CONFIGURATION", "configuration"), ("SECRETS", "secrets")] {
            command.env(name, folder.join(path));
        }
        command.env("ROOT", &self.root).env("USERSPEC", self.user());
        command
    }
}

/// Whether this machine can do what a container engine does here; says why not.
fn can_contain(test: &str) -> bool {
    if !["unshare", "setpriv", "chroot"].iter().all(|tool| has_tool(test, tool)) {
        return false;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", "[ \"$(id -u)\" = 0 ] && mount --bind /tmp /tmp"]);
    let may = run(command).status.success();
    if !may {
        skip(test, "mounting needs root");
    }
    may
}

/// The libraries that the binary asks for are those of the base image: nothing is taken from this machine.
#[test]
fn the_binary_runs_on_the_libraries_of_the_base_image() {
    const TEST: &str = "the_binary_runs_on_the_libraries_of_the_base_image";
    if !have(TEST, &[Part::Image]) {
        return;
    }
    let libraries = parts().join("image/root/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let is_loader = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("ld-linux");
    let loader = std::fs::read_dir(&libraries).unwrap().map(|entry| entry.unwrap().path()).find(is_loader).unwrap();
    let with = |arguments: &[&str]| {
        let mut command = Command::new(&loader);
        command.arg("--library-path").arg(&libraries).args(arguments);
        let output = run(command);
        assert!(output.status.success(), "{}", words(&output));
        words(&output)
    };
    for line in with(&["--list", env!("CARGO_BIN_EXE_sluice")]).lines().filter(|line| line.contains("=>")) {
        assert!(line.contains(libraries.to_str().unwrap()), "{line}");
    }
    assert_eq!(with(&[env!("CARGO_BIN_EXE_sluice"), "--version"]).trim(), concat!("sluice ", env!("CARGO_PKG_VERSION")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_serves_with_a_root_that_cannot_be_written() {
    const TEST: &str = "the_image_serves_with_a_root_that_cannot_be_written";
    if !have(TEST, &[Part::Deploy, Part::Image]) || !can_contain(TEST) {
        return;
    }
    let Some(world) = World::start(TEST).await else { return };
    let account = world.accounts(1).await[0];
    let folder = world.folder.path().to_path_buf();
    let image = soon(
        "the image",
        tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || Image::build(&folder)
        }),
    )
    .await
    .unwrap();
    let (uid, gid) = image.user().split_once(':').map(|(uid, gid)| (uid.parse().unwrap(), gid.parse().unwrap())).unwrap();
    for part in ["volume", "configuration", "secrets"] {
        std::fs::create_dir(folder.join(part)).unwrap();
    }
    chown(folder.join("volume"), Some(uid), Some(gid)).unwrap();
    std::fs::copy(deploy("config/sluice.toml"), folder.join("configuration/sluice.toml")).unwrap();
    for (listener, token) in [("server", "a-client"), ("admin", "an-operator")] {
        std::fs::create_dir(folder.join("secrets").join(listener)).unwrap();
        std::fs::write(folder.join("secrets").join(listener).join("token"), token).unwrap();
    }
    // The way to the image's own files and those that are mounted must be open to its user.
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();

    let admin = format!("127.0.0.1:{}", free_port());
    let settings = [
        ("SLUICE__SERVER__LISTEN", "127.0.0.1:0"),
        ("SLUICE__ADMIN__LISTEN", &admin),
        ("SLUICE__ENVIRONMENT__MAINNET__CHAIN_ID", "31337"),
        ("SLUICE__ENVIRONMENT__MAINNET__NODES__0__URL", &world.node.url()),
        ("SLUICE__CONFIGURATION__KMS__ENDPOINT", &world.kms_proxy.url()),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let mut command = image.command(&folder, None);
    command.envs(settings);
    let mut gateway = Gateway::start(command, "payments", &folder.join("container.log")).await.ready().await;
    let ask = |arguments: &[&str]| {
        let mut command = image.command(&folder, Some(arguments));
        command.envs(settings);
        run(command)
    };
    let health = image.of("HEALTHCHECK")[0]["Health"]["Test"].clone();
    let health = texts(&health)[2..].to_vec();
    let output = ask(&health);
    assert!(output.status.success(), "{}", words(&output));

    assert!(Client::connect(&gateway.url("ws"), &[]).await.is_err(), "without the token nobody gets in");
    let client = soon("a WebSocket", Client::connect(&gateway.url("ws"), &[("authorization", "Bearer a-client")])).await.unwrap();
    assert_eq!(client.request("eth_accounts", json!([])).await.unwrap(), json!([account]));
    let hash: B256 = parse(&soon("an answer", client.request("eth_sendTransaction", transfer(account, 1))).await.unwrap());
    world.mined(hash).await;

    // The Prometheus of the compose file, with the token of operators.
    if have(TEST, &[Part::Prometheus]) {
        let token = folder.join("secrets/admin/token");
        let scrape = read("prometheus.yml").replace("gateway:9545", &admin).replace("/run/secrets/admin/token", token.to_str().unwrap());
        std::fs::copy(dashboard("alerts.yml"), folder.join("alerts.yml")).unwrap();
        let prometheus = Prometheus::configured(&folder, &scrape.replace("10s", "1s").replace("5s", "1s")).await;
        let up = || async { prometheus.query(r#"up{job="sluice"} == 1"#).await.ok().filter(|values| !values.is_empty()) };
        eventually("a scrape", up).await;
    }

    // Another token and another configuration take the names of those before, as `mv` and editors do it.
    for (file, content) in [
        ("secrets/server/token", "another-client".to_owned()),
        ("configuration/sluice.toml", read("config/sluice.toml").replace("[server]", "[server]\nmax_batch_items = 1")),
    ] {
        std::fs::write(folder.join("new"), content).unwrap();
        std::fs::rename(folder.join("new"), folder.join(file)).unwrap();
    }
    gateway.process.hang_up();
    gateway.process.until("the reading", |log| async move { log.contains("is in force").then_some(()) }).await;
    let read = gateway.process.log();
    let line = read.lines().find(|line| line.contains("tokens and certificates were read")).unwrap();
    assert!(line.contains(r#""server_token":"changed""#) && line.contains(r#""admin_token":"unchanged""#), "{line}");
    let connect = async |token: &str| Client::connect(&gateway.url("ws"), &[("authorization", &format!("Bearer {token}"))]).await;
    assert!(soon("a refusal", connect("a-client")).await.is_err());
    let anew = soon("a WebSocket", connect("another-client")).await.unwrap();
    let refused = anew.batch(&[("eth_chainId", json!([])), ("eth_chainId", json!([]))]).await;
    assert!(refused.is_err() || refused.unwrap().iter().any(Result::is_err), "the configuration is the new one, too");

    let journal = std::fs::metadata(folder.join("volume/sluice.db")).unwrap();
    assert_eq!((journal.uid(), journal.gid(), journal.mode() & 0o777), (uid, gid, 0o600));
    let process = gateway.process.id();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("CapEff:").as_str(), field("NoNewPrivs:").as_str()), ("0000000000000000", "1"));
    assert_eq!(std::fs::read_link(format!("/proc/{process}/root")).unwrap(), image.root);

    gateway.process.terminate();
    assert!(gateway.process.exit().await.success());
    assert_eq!(ask(&health).status.code(), Some(1), "nothing lives there now");
    let output = ask(&["journal", "inspect", "/etc/sluice/sluice.toml", "--json"]);
    assert!(output.status.success(), "{}", words(&output));
}
