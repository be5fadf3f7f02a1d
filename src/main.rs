//! The command line. Exit codes: 0 done, 1 it did not work, 2 the command line or the configuration is wrong.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use alloy_primitives::Address;
use clap::{Args, Parser, Subcommand};
use sluice_gateway::server::admin::accounts::Order;
use sluice_gateway::telemetry::logs;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use self::commands::journal::Prune;
use self::commands::keys::{ImportArguments, PasswordSource};

/// An answer is many small pieces, made on one thread and freed on another: glibc's allocator spends a third of a busy gateway's time on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A streaming signer gateway for Ethereum: keys in AWS KMS, one WebSocket for sends and receipts.
#[derive(Parser)]
#[command(name = "sluice", version, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the configuration until SIGTERM or SIGINT, then drain
    Serve(File),
    /// Serve a development node with the well-known development keys (chain ids 31337 and 1337 only)
    Dev(Dev),
    /// Say every error of the configuration; prove that nodes, chain ids and keys answer
    Check {
        #[command(flatten)]
        file: File,
        /// Read the configuration only; ask nobody
        #[arg(long)]
        offline: bool,
    },
    /// Ask the gateway that runs with this configuration, on this machine, whether it lives
    Healthcheck(File),
    /// Keys of the configuration
    #[command(subcommand)]
    Keys(Keys),
    /// Accounts: how they are; stop one, let it go on, open it again
    #[command(subcommand)]
    Account(AccountCommand),
    /// The durable store
    #[command(subcommand)]
    Journal(JournalCommand),
}

#[derive(Args)]
struct File {
    /// The configuration (TOML)
    #[arg(value_name = "FILE")]
    path: PathBuf,
}

#[derive(Args)]
struct Dev {
    /// WebSocket URL of the development node
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8546")]
    node: Url,
    /// Its chain id
    #[arg(long, default_value_t = 31337)]
    chain_id: u64,
    /// How many of the development addresses to serve
    #[arg(long, default_value_t = 10)]
    accounts: u32,
    /// JSON-RPC over HTTP and WebSocket
    #[arg(long, default_value = "127.0.0.1:8545")]
    listen: std::net::SocketAddr,
    /// /metrics, /status, /livez, /readyz, /readyz/NAME, /accounts
    #[arg(long, default_value = "127.0.0.1:9545")]
    admin: std::net::SocketAddr,
    /// Keep the journal in this file; without it, it is gone when the command ends
    #[arg(long, value_name = "PATH")]
    journal: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Keys {
    /// The keys of every service: state, names, balance and nonces in each environment
    List {
        #[command(flatten)]
        file: File,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Everything that is known of one key
    Show {
        #[command(flatten)]
        file: File,
        /// Its address
        address: Address,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the running gateway find the keys of every service again, now
    Refresh {
        #[command(flatten)]
        file: File,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Create a key (ECC_SECG_P256K1, SIGN_VERIFY) in AWS KMS
    Create {
        #[command(flatten)]
        file: File,
        /// Name of the configuration to create it in; may be left out if there is one
        #[arg(long, value_name = "NAME")]
        configuration: Option<String>,
        /// A tag of the new key; may be repeated
        #[arg(long = "tag", value_name = "NAME=VALUE")]
        tags: Vec<String>,
        /// An alias of the new key (`alias/` is put before it if missing)
        #[arg(long, value_name = "NAME")]
        alias: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key in AWS KMS of an encrypted V3 keystore file: the address stays
    ///
    /// The private key is wrapped here under a key of AWS's and is never written down. Nothing is said to have worked before AWS's
    /// public key is that of the keystore. A failure says what there is then, and how to go on.
    Import(Box<ImportCommand>),
    /// Add a Region to a multi-Region key in AWS KMS: the same address with another quota
    ///
    /// Waits until the replica can sign, and compares the public keys. Said again, it goes on with a replica that is there.
    Replicate {
        #[command(flatten)]
        file: File,
        /// The primary key: its id, ARN or alias
        key: String,
        /// The Region to add, such as eu-west-1
        region: String,
        /// Name of the configuration that reaches the primary key; may be left out if there is one
        #[arg(long, value_name = "NAME")]
        configuration: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct ImportCommand {
    #[command(flatten)]
    file: File,
    /// The encrypted V3 keystore file
    keystore: PathBuf,
    /// Name of the configuration to make the key in; may be left out if there is one
    #[arg(long, value_name = "NAME")]
    configuration: Option<String>,
    /// The environment variable that has the keystore's password; without this and --password-file the terminal is asked
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    password_env: Option<String>,
    /// The file that has the keystore's password
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,
    /// A tag of the new key; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    tags: Vec<String>,
    /// What AWS shows of the new key [default: "ADDRESS, imported by sluice"]
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The new key can be replicated to other Regions; cannot be changed later
    #[arg(long)]
    multi_region: bool,
    /// An alias of the key (`alias/` is put before it if missing)
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Make no key: go on with this one (id, ARN or alias), which was made for import
    #[arg(long, value_name = "ID", conflicts_with_all = ["tags", "description", "multi_region"])]
    key_id: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl ImportCommand {
    fn parts(self) -> (File, ImportArguments) {
        let password = match (self.password_env, self.password_file) {
            (Some(name), _) => PasswordSource::Variable(name),
            (None, Some(path)) => PasswordSource::File(path),
            (None, None) => PasswordSource::Terminal,
        };
        let arguments = ImportArguments {
            keystore: self.keystore,
            configuration: self.configuration,
            password,
            tags: self.tags,
            description: self.description,
            multi_region: self.multi_region,
            alias: self.alias,
            key_id: self.key_id,
            json: self.json,
        };
        (self.file, arguments)
    }
}

#[derive(Subcommand)]
enum AccountCommand {
    /// Every account that is on record or in use, or one of them
    List {
        #[command(flatten)]
        file: File,
        /// Only this one
        address: Option<Address>,
        /// Only those of this environment
        #[arg(long, value_name = "NAME")]
        environment: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse new sends; what is on record is sent and tracked to its end
    Pause {
        #[command(flatten)]
        which: Which,
        /// Told to clients whose sends are refused
        #[arg(long, value_name = "TEXT", default_value = "paused by an operator")]
        reason: String,
    },
    /// Let the account go on, whoever stopped it
    Resume(Which),
    /// Open the account again from the journal and the chain; needs a running gateway
    Resync(Which),
}

#[derive(Args)]
struct Which {
    #[command(flatten)]
    file: File,
    /// The account's address
    address: Address,
    /// Name of the environment; may be left out if there is one
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum JournalCommand {
    /// What is in it: chains, accounts and attempts; may run beside a gateway
    Inspect {
        #[command(flatten)]
        file: File,
        /// The slots and attempts of this address instead, newest first, 500 at most
        #[arg(long, value_name = "ADDRESS")]
        account: Option<Address>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Accounts, transactions, idempotency keys, slots, attempts, authorisations and events as JSON, a line each; may run beside a gateway
    Export {
        #[command(flatten)]
        file: File,
        /// The signed bytes too: whoever has them can send those that wait
        #[arg(long)]
        with_bytes: bool,
    },
    /// Write a checked copy to a new file; may run beside a gateway
    Backup {
        #[command(flatten)]
        file: File,
        /// Where to; must not be there yet
        target: PathBuf,
    },
    /// Put a backup in the journal's place, with every account in reconcile; keeps the old files
    Restore {
        #[command(flatten)]
        file: File,
        /// What `backup` wrote
        backup: PathBuf,
    },
    /// Remove transactions that are final, with their attempts, events and receipts
    Prune {
        #[command(flatten)]
        file: File,
        /// Only those whose last event is older, such as 90d
        #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
        older_than: Option<Duration>,
        /// Leave the newest ones of each account, whatever their age
        #[arg(long, value_name = "N")]
        keep: Option<u32>,
        /// Idempotency keys that are older, too, if their transaction is not on record; 30d at least
        #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
        keys_older_than: Option<Duration>,
        /// Give the space back to the file system: writes the whole file anew
        #[arg(long)]
        vacuum: bool,
    },
    /// Begin an empty journal where one was lost
    Init(File),
    /// Forget everything of an environment's chain (for a development chain that was started anew)
    ForgetChain {
        #[command(flatten)]
        file: File,
        /// Name of the environment
        environment: String,
    },
}

/// SIGXFSZ: a file would grow beyond the limit of the process (`ulimit -f`). With a handler that write fails, as on a full disk; without one the
/// signal ends the process.
const FILE_SIZE: i32 = 25;

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    // A command that answers on standard output tells the rest only when something is wrong.
    let quiet = !matches!(command, Command::Serve(_) | Command::Dev(_));
    let directives = std::env::var("RUST_LOG").ok().or_else(|| quiet.then(|| "error".to_owned()));
    if let Err(error) = logs::init(directives.as_deref()) {
        eprintln!("sluice: {error}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sluice: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        let _installed = signal(SignalKind::from_raw(FILE_SIZE)).map_err(|error| commands::Failure::Failed(format!("signals: {error}")))?;
        match command {
            Command::Serve(file) => commands::serve::serve(&file.path).await,
            Command::Dev(dev) => commands::serve::dev(dev).await,
            Command::Check { file, offline } => commands::check::check(&file.path, offline).await,
            Command::Healthcheck(file) => commands::healthcheck::healthcheck(&file.path).await,
            Command::Keys(Keys::List { file, json }) => commands::keys::list(&file.path, json).await,
            Command::Keys(Keys::Show { file, address, json }) => commands::keys::show(&file.path, address, json).await,
            Command::Keys(Keys::Refresh { file, json }) => commands::keys::refresh(&file.path, json).await,
            Command::Keys(Keys::Create { file, configuration, tags, alias, json }) => {
                commands::keys::create(&file.path, configuration.as_deref(), &tags, alias.as_deref(), json).await
            }
            Command::Keys(Keys::Import(command)) => {
                let (file, arguments) = command.parts();
                commands::keys::import(&file.path, &arguments).await
            }
            Command::Keys(Keys::Replicate { file, key, region, configuration, json }) => {
                commands::keys::replicate(&file.path, &key, &region, configuration.as_deref(), json).await
            }
            Command::Account(command) => account(command).await,
            Command::Journal(JournalCommand::Inspect { file, account, json }) => {
                commands::journal::inspect(&file.path, account, json).await
            }
            Command::Journal(JournalCommand::Export { file, with_bytes }) => commands::journal::export(&file.path, with_bytes),
            Command::Journal(JournalCommand::Backup { file, target }) => commands::journal::backup(&file.path, &target),
            Command::Journal(JournalCommand::Restore { file, backup }) => commands::journal::restore(&file.path, &backup),
            Command::Journal(JournalCommand::Prune { file, older_than, keep, keys_older_than, vacuum }) => {
                commands::journal::prune(&file.path, &Prune { older_than, keep, keys_older_than, vacuum })
            }
            Command::Journal(JournalCommand::Init(file)) => commands::journal::init(&file.path).await,
            Command::Journal(JournalCommand::ForgetChain { file, environment }) => {
                commands::journal::forget_chain(&file.path, &environment).await
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sluice: {failure}");
            failure.exit_code()
        }
    }
}

async fn account(command: AccountCommand) -> Result<(), commands::Failure> {
    match command {
        AccountCommand::List { file, address, environment, json } => {
            commands::account::list(&file.path, address, environment.as_deref(), json).await
        }
        AccountCommand::Pause { which, reason } => order(which, Order::Pause { reason }).await,
        AccountCommand::Resume(which) => order(which, Order::Resume).await,
        AccountCommand::Resync(which) => order(which, Order::Resync).await,
    }
}

async fn order(which: Which, order: Order) -> Result<(), commands::Failure> {
    commands::account::order(&which.file.path, which.address, which.environment.as_deref(), order, which.json).await
}
