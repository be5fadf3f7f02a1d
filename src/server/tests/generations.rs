//! What a configuration makes of the listeners, for tests.

use super::*;

/// A configuration with these listeners.
pub(super) fn whole(server: config::Server, admin: Option<config::Admin>) -> config::Config {
    let text = "[journal]\npath = \"a\"\n[[environment]]\nname = \"a\"\nchain_id = 1\nnodes = [{ url = \"ws://a\" }]\n[[configuration]]\n\
                name = \"a\"\nprovider = \"aws_kms\"\nregion = \"a\"\n[[service]]\nname = \"a\"\nenvironment = \"a\"\nconfigurations = [\"a\"]\n";
    let config = config::parse(text, []).unwrap();
    config::Config { server, admin: admin.unwrap_or_else(|| config.admin.clone()), ..config }
}

/// Nothing to see.
pub(super) struct Blind;

impl Overview for Blind {
    fn status<'a>(&'a self, _: &'a Generation) -> BoxFuture<'a, Value> {
        async { Value::Null }.boxed()
    }

    fn readiness(&self) -> BoxFuture<'_, Readiness> {
        async { Readiness { ready: false, reasons: Vec::new() } }.boxed()
    }

    fn service_readiness<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Readiness>> {
        async { None }.boxed()
    }

    fn accounts(&self) -> BoxFuture<'_, Result<Value, OrderError>> {
        async { Ok(Value::Null) }.boxed()
    }

    fn refresh_keys(&self) -> BoxFuture<'_, Value> {
        async { Value::Null }.boxed()
    }

    fn order(&self, _: Wanted) -> BoxFuture<'_, Result<Value, OrderError>> {
        async { Ok(Value::Null) }.boxed()
    }
}

/// What this configuration makes of these services.
pub(super) async fn generation(
    config: &config::Server,
    services: Vec<Served>,
    before: Option<&Generation>,
    metrics: &Arc<Metrics>,
) -> Result<Generation, ServerError> {
    let context = AdminContext { metrics: metrics.clone(), overview: Arc::new(Blind) };
    Generation::open(&whole(config.clone(), None), services, context, before, metrics).await
}

/// A service of the environment `dev` with the server's limits.
pub(super) fn served(config: &config::Server, name: &str, methods: impl Into<jsonrpsee::Methods>, world: &Arc<World>) -> Served {
    Served {
        name: name.into(),
        environment: "dev".into(),
        methods: methods.into(),
        pass_through: Arc::new(Node(world.clone())),
        limits: config.limits(),
    }
}
