//! What is asked of a KMS, and what is seen.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{B256, keccak256};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{
    AlgorithmSpec, ExpirationModelType, KeyMetadata, KeySpec, KeyUsageType, MessageType, OriginType, SigningAlgorithmSpec, Tag,
    WrappingKeySpec,
};
use k256::SecretKey;
use k256::pkcs8::EncodePrivateKey;
use sluice_load_tests::sim_kms::wrap;
use sluice_load_tests::wallet::Wallet;

use super::side::{Side, code, is_high, public_key, sign};
use crate::support::eventually;

type Seen = BTreeMap<&'static str, String>;

const HOME: &str = "us-east-1";
const FAR: &str = "eu-west-1";

/// Everything.
pub(super) async fn observe(side: &Side) -> Seen {
    let (mut seen, client) = (Seen::new(), side.client(HOME));
    signatures(&client, &mut seen).await;
    aliases(&client, &mut seen).await;
    listings(&client, &mut seen).await;
    deletion(&client, &mut seen).await;
    replicas(side, &mut seen).await;
    imports(&client, &mut seen).await;
    seen
}

async fn create(client: &Client, origin: OriginType, is_multi_region: bool) -> KeyMetadata {
    let call = client.create_key().key_spec(KeySpec::EccSecgP256K1).key_usage(KeyUsageType::SignVerify);
    let call = call.origin(origin).multi_region(is_multi_region).tags(tag("app", "payments"));
    call.send().await.unwrap().key_metadata.unwrap()
}

fn tag(name: &str, value: &str) -> Tag {
    Tag::builder().tag_key(name).tag_value(value).build().unwrap()
}

fn arn(key: &KeyMetadata) -> &str {
    key.arn().unwrap()
}

async fn state(client: &Client, key: &str) -> String {
    let described = client.describe_key().key_id(key).send().await.unwrap();
    described.key_metadata.unwrap().key_state.unwrap().as_str().to_owned()
}

async fn signatures(client: &Client, seen: &mut Seen) {
    let key = create(client, OriginType::AwsKms, false).await;
    let (arn, digest) = (arn(&key), keccak256("a digest"));
    let text = |value: Option<&str>| value.unwrap_or("nothing").to_owned();
    let parts = [
        text(key.key_state().map(|state| state.as_str())),
        text(key.key_spec().map(|spec| spec.as_str())),
        text(key.key_usage().map(|usage| usage.as_str())),
        text(key.origin().map(|origin| origin.as_str())),
    ];
    seen.insert("create", parts.join(" "));
    seen.insert("describe", state(client, &key.key_id).await);
    let unknown = "00000000-0000-4000-a000-000000000000";
    seen.insert("describe unknown", code(client.describe_key().key_id(unknown).send().await));
    let spki = public_key(client, arn).await;
    let curve = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
    let kind = if spki.windows(7).any(|bytes| bytes == curve) { "secp256k1" } else { "something" };
    seen.insert("public key", format!("{} bytes of {kind}", spki.len()));

    let answer = sign(client, arn, digest).await.unwrap();
    let is_valid = is_high(&answer, &spki, digest).is_some() && answer.key_id() == Some(arn);
    seen.insert("sign", if is_valid { "valid, by the ARN" } else { "not valid" }.to_owned());
    let (mut halves, mut signatures) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..40 {
        let answer = sign(client, arn, digest).await.unwrap();
        halves.insert(is_high(&answer, &spki, digest));
        signatures.insert(answer.signature.unwrap().into_inner());
    }
    let both = halves == BTreeSet::from([Some(false), Some(true)]);
    seen.insert("sign many", if both { "high and low".to_owned() } else { format!("{halves:?}") });
    seen.insert("sign twice", if signatures.len() == 40 { "differ" } else { "repeat" }.to_owned());

    let call = || client.sign().key_id(arn).signing_algorithm(SigningAlgorithmSpec::EcdsaSha256);
    let raw = call().message(Blob::new("abc")).message_type(MessageType::Raw).send().await.unwrap();
    let hash: B256 = "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
    seen.insert("sign message", if is_high(&raw, &spki, hash).is_some() { "valid" } else { "not valid" }.to_owned());
    let short = call().message(Blob::new([1; 31])).message_type(MessageType::Digest);
    seen.insert("sign short digest", code(short.send().await));
    let other = call().signing_algorithm(SigningAlgorithmSpec::EcdsaSha384).message(Blob::new([1; 48])).message_type(MessageType::Digest);
    seen.insert("sign other algorithm", code(other.send().await));
    let dry = call().message(Blob::new(digest.as_slice())).message_type(MessageType::Digest).dry_run(true);
    seen.insert("sign dry run", code(dry.send().await));
    seen.insert("sign by ARN of another Region", code(sign(client, &arn.replace(HOME, FAR), digest).await));

    let verify = |digest: B256| {
        let call = client.verify().key_id(arn).signing_algorithm(SigningAlgorithmSpec::EcdsaSha256).message_type(MessageType::Digest);
        call.message(Blob::new(digest.as_slice())).signature(answer.signature.clone().unwrap()).send()
    };
    let verified = verify(digest).await.is_ok_and(|answer| answer.signature_valid);
    seen.insert("verify", if verified { "valid" } else { "not valid" }.to_owned());
    seen.insert("verify other digest", code(verify(B256::ZERO).await));

    client.disable_key().key_id(arn).send().await.unwrap();
    seen.insert("disabled", state(client, arn).await);
    seen.insert("disabled sign", code(sign(client, arn, digest).await));
    seen.insert("disabled public key", code(client.get_public_key().key_id(arn).send().await));
    client.enable_key().key_id(arn).send().await.unwrap();
    seen.insert("enabled sign", code(sign(client, arn, digest).await));
}

async fn aliases(client: &Client, seen: &mut Seen) {
    let (one, two) = (create(client, OriginType::AwsKms, false).await, create(client, OriginType::AwsKms, false).await);
    let signer = async |name: &str| match sign(client, name, B256::ZERO).await {
        Ok(answer) if answer.key_id() == Some(arn(&one)) => "by the ARN".to_owned(),
        Ok(answer) if answer.key_id() == Some(arn(&two)) => "by the other ARN".to_owned(),
        answer => code(answer),
    };
    let alias = |name: &str, key: &KeyMetadata| client.create_alias().alias_name(name).target_key_id(&key.key_id).send();
    alias("alias/hot", &one).await.unwrap();
    seen.insert("alias sign", signer("alias/hot").await);
    let alias_arn = format!("{}:alias/hot", arn(&one).split(":key/").next().unwrap());
    seen.insert("alias ARN sign", signer(&alias_arn).await);
    seen.insert("alias again", code(alias("alias/hot", &one).await));
    seen.insert("alias name", code(alias("hot", &one).await));
    let refused = alias("alias/aws/mine", &one).await;
    seen.insert("alias of AWS", if refused.is_err() { "refused" } else { "ok" }.to_owned());
    client.update_alias().alias_name("alias/hot").target_key_id(&two.key_id).send().await.unwrap();
    seen.insert("alias moved", signer("alias/hot").await);
    seen.insert("alias unknown", code(client.update_alias().alias_name("alias/no").target_key_id(&two.key_id).send().await));
    client.delete_alias().alias_name("alias/hot").send().await.unwrap();
    seen.insert("alias deleted", signer("alias/hot").await);
}

/// How a page of one item says that there are more.
fn page(items: usize, is_truncated: bool, marker: Option<&str>) -> String {
    match (items, is_truncated, marker) {
        (1, true, Some(_)) => "1 and a marker",
        (1, true, None) => "1 without a marker",
        (_, false, _) => "all",
        _ => "something else",
    }
    .to_owned()
}

async fn listings(client: &Client, seen: &mut Seen) {
    let key = create(client, OriginType::AwsKms, false).await;
    let tags = async || {
        let page = client.list_resource_tags().key_id(&key.key_id).send().await.unwrap();
        let mut tags: Vec<String> = page.tags().iter().map(|tag| format!("{}={}", tag.tag_key(), tag.tag_value())).collect();
        tags.sort();
        tags.join(" ")
    };
    client.tag_resource().key_id(&key.key_id).tags(tag("b", "1")).send().await.unwrap();
    client.tag_resource().key_id(&key.key_id).tags(tag("b", "2")).send().await.unwrap();
    seen.insert("tags", tags().await);
    let tag_page = client.list_resource_tags().key_id(&key.key_id).limit(1).send().await.unwrap();
    seen.insert("tags pages", page(tag_page.tags().len(), tag_page.truncated, tag_page.next_marker()));
    client.untag_resource().key_id(&key.key_id).tag_keys("app").send().await.unwrap();
    seen.insert("tags gone", tags().await);

    let all = client.list_keys().limit(1_000).send().await.unwrap().keys().len();
    let first = client.list_keys().limit(1).send().await.unwrap();
    seen.insert("keys pages", page(first.keys().len(), first.truncated, first.next_marker()));
    let (mut found, mut marker) = (1, first.next_marker);
    while let Some(at) = marker {
        let next = client.list_keys().limit(1).marker(at).send().await.unwrap();
        found += next.keys().len();
        marker = next.next_marker;
    }
    seen.insert("keys followed", if found == all { "all" } else { "one page" }.to_owned());
    seen.insert("keys limit", code(client.list_keys().limit(1_001).send().await));
    seen.insert("keys marker", code(client.list_keys().marker("no marker").send().await));
    for name in ["alias/one", "alias/two"] {
        client.create_alias().alias_name(name).target_key_id(&key.key_id).send().await.unwrap();
    }
    let aliases = client.list_aliases().limit(1).send().await.unwrap();
    seen.insert("aliases pages", page(aliases.aliases().len(), aliases.truncated, aliases.next_marker()));
    seen.insert("aliases limit", code(client.list_aliases().limit(101).send().await));
}

async fn deletion(client: &Client, seen: &mut Seen) {
    let key = create(client, OriginType::AwsKms, false).await;
    let arn = arn(&key);
    let schedule = |days: i32| client.schedule_key_deletion().key_id(arn).pending_window_in_days(days).send();
    seen.insert("deletion window", code(schedule(6).await));
    schedule(7).await.unwrap();
    seen.insert("deletion", state(client, arn).await);
    seen.insert("deletion sign", code(sign(client, arn, B256::ZERO).await));
    seen.insert("deletion tag", code(client.tag_resource().key_id(arn).tags(tag("b", "1")).send().await));
    let listed = client.list_keys().limit(1_000).send().await.unwrap();
    let is_listed = listed.keys().iter().any(|entry| entry.key_arn() == Some(arn));
    seen.insert("deletion listed", if is_listed { "listed" } else { "not listed" }.to_owned());
    client.cancel_key_deletion().key_id(arn).send().await.unwrap();
    seen.insert("deletion cancelled", state(client, arn).await);
    seen.insert("deletion cancelled again", code(client.cancel_key_deletion().key_id(arn).send().await));
    schedule(7).await.unwrap();
    seen.insert("deletion enable", code(client.enable_key().key_id(arn).send().await));
}

async fn replicas(side: &Side, seen: &mut Seen) {
    let (client, far) = (side.client(HOME), side.client(FAR));
    let key = create(&client, OriginType::AwsKms, true).await;
    let kind = |key: &KeyMetadata| {
        let kind = key.multi_region_configuration().and_then(|configuration| configuration.multi_region_key_type());
        kind.map_or("none", |kind| kind.as_str()).to_owned()
    };
    let id = if key.key_id.starts_with("mrk-") { "an mrk- id" } else { "another id" };
    seen.insert("multi-Region", format!("{} with {id}", kind(&key)));
    let replicate = |key: &KeyMetadata| client.replicate_key().key_id(&key.key_id).replica_region(FAR).send();
    let replica = replicate(&key).await.unwrap().replica_key_metadata.unwrap();
    seen.insert("replica", format!("{} {}", kind(&replica), replica.key_state().unwrap().as_str()));
    seen.insert("replica again", code(replicate(&key).await));
    let plain = create(&client, OriginType::AwsKms, false).await;
    seen.insert("replica of plain key", code(replicate(&plain).await));
    eventually("the replica to be enabled", || async { (state(&far, arn(&replica)).await == "Enabled").then_some(()) }).await;
    let (spki, theirs) = (public_key(&client, arn(&key)).await, public_key(&far, arn(&replica)).await);
    seen.insert("replica key", if spki == theirs { "the same" } else { "another" }.to_owned());
    let answer = sign(&far, arn(&replica), B256::ZERO).await.unwrap();
    let is_valid = is_high(&answer, &spki, B256::ZERO).is_some() && answer.key_id() == Some(arn(&replica));
    seen.insert("replica sign", if is_valid { "valid, by its own ARN" } else { "not valid" }.to_owned());
}

async fn imports(client: &Client, seen: &mut Seen) {
    let made = create(client, OriginType::AwsKms, false).await;
    let (mine, other) = (Wallet::new(99, 0), Wallet::new(99, 1));
    let pkcs8 = |wallet: &Wallet| SecretKey::from(wallet.key()).to_pkcs8_der().unwrap().as_bytes().to_vec();
    let algorithms = [
        ("import RSAES_OAEP_SHA_256", AlgorithmSpec::RsaesOaepSha256, WrappingKeySpec::Rsa2048),
        ("import RSA_AES_KEY_WRAP_SHA_256", AlgorithmSpec::RsaAesKeyWrapSha256, WrappingKeySpec::Rsa3072),
    ];
    for (name, algorithm, spec) in algorithms {
        let key = create(client, OriginType::External, false).await;
        let arn = arn(&key);
        let parameters = async |key: &str| {
            let call = client.get_parameters_for_import().key_id(key);
            call.wrapping_algorithm(algorithm.clone()).wrapping_key_spec(spec.clone()).send().await
        };
        seen.insert("import pending", state(client, arn).await);
        seen.insert("import public key before", code(client.get_public_key().key_id(arn).send().await));
        seen.insert("import of a made key", code(parameters(made.arn().unwrap()).await));
        let given = parameters(arn).await.unwrap();
        let public = given.public_key().unwrap().as_ref();
        let wrapped = |material: &[u8]| wrap(public, algorithm.as_str(), [9; 32], material).unwrap();
        let import = |token: Blob, wrapped: Vec<u8>| {
            let call = client.import_key_material().key_id(arn).import_token(token).encrypted_key_material(Blob::new(wrapped));
            call.expiration_model(ExpirationModelType::KeyMaterialDoesNotExpire)
        };
        let token = given.import_token().unwrap().clone();
        let endless = import(token.clone(), wrapped(&pkcs8(&mine))).expiration_model(ExpirationModelType::KeyMaterialExpires);
        seen.insert("import without ValidTo", code(endless.send().await));
        seen.insert("import torn", code(import(token.clone(), vec![7; 300]).send().await));
        seen.insert("import forged token", code(import(Blob::new("forged"), wrapped(&pkcs8(&mine))).send().await));
        seen.insert("import no key", code(import(token.clone(), wrapped(&[1, 2, 3])).send().await));
        import(token.clone(), wrapped(&pkcs8(&mine))).send().await.unwrap();
        let address = keccak256(&public_key(client, arn).await[24..]);
        let address = if address[12..] == *mine.address().as_slice() { "the address that it had" } else { "another address" };
        let origin = client.describe_key().key_id(arn).send().await.unwrap().key_metadata.unwrap().origin.unwrap();
        seen.insert(name, format!("{} {}, {address}", origin.as_str(), state(client, arn).await));
        seen.insert("import token again", code(import(token, wrapped(&pkcs8(&mine))).send().await));
        client.delete_imported_key_material().key_id(arn).send().await.unwrap();
        seen.insert("import deleted", state(client, arn).await);
        let again = parameters(arn).await.unwrap();
        let public = again.public_key().unwrap().as_ref();
        let wrapped = wrap(public, algorithm.as_str(), [9; 32], &pkcs8(&other)).unwrap();
        seen.insert("import other key", code(import(again.import_token().unwrap().clone(), wrapped).send().await));
    }
}
