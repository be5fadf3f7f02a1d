//! Where calls go. Nothing is sent: each is stopped when it is ready to be.

use std::sync::Mutex;

use aws_sdk_kms::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kms::error::BoxError;

use super::super::tests::configuration;
use super::*;

/// Notes where a call would go, and ends it.
#[derive(Debug, Clone, Default)]
struct Stopped(std::sync::Arc<Mutex<Option<String>>>);

impl Intercept for Stopped {
    fn name(&self) -> &'static str {
        "Stopped"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.0.lock().unwrap() = Some(context.request().uri().to_owned());
        Err("stopped".into())
    }
}

/// The scheme and host that calls of KMS go to.
async fn endpoint(config: config::AwsKms) -> String {
    let access = Access::open("kms", &config::AwsKms { account_id: Some("111122223333".to_owned()), ..config }).await.unwrap();
    let stopped = Stopped::default();
    let kms = access.kms.to_builder().interceptor(stopped.clone()).build();
    assert!(aws_sdk_kms::Client::from_conf(kms).list_keys().send().await.is_err());
    let uri: http::Uri = stopped.0.lock().unwrap().take().unwrap().parse().unwrap();
    format!("{}://{}", uri.scheme_str().unwrap(), uri.authority().unwrap())
}

/// Endpoints as AWS lists them (https://docs.aws.amazon.com/general/latest/gr/kms.html).
#[tokio::test]
async fn calls_go_where_the_configuration_says() {
    let aws = || config::AwsKms { region: "eu-west-1".to_owned(), endpoint: None, ..configuration("http://127.0.0.1:9") };
    assert_eq!(endpoint(aws()).await, "https://kms.eu-west-1.amazonaws.com");
    assert_eq!(endpoint(config::AwsKms { use_dual_stack: true, ..aws() }).await, "https://kms.eu-west-1.api.aws");
    let fips = config::AwsKms { use_fips: true, ..aws() };
    assert_eq!(endpoint(fips.clone()).await, "https://kms-fips.eu-west-1.amazonaws.com");
    assert_eq!(endpoint(config::AwsKms { use_dual_stack: true, ..fips }).await, "https://kms-fips.eu-west-1.api.aws");
    let vpc = "https://vpce-0a1b2c3d-example.kms.eu-west-1.vpce.amazonaws.com";
    assert_eq!(endpoint(config::AwsKms { endpoint: Some(vpc.parse().unwrap()), ..aws() }).await, vpc);
}
