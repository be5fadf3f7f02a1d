use super::*;

fn listening(table: &str, lines: &str) -> String {
    MINIMAL.replace("[journal]", &format!("[{table}]\n{lines}\n[journal]"))
}

#[test]
fn what_is_not_loopback_needs_a_token_and_tls_or_plaintext() {
    for table in ["server", "admin"] {
        let key = |name: &str| format!("{table}.{name}");
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let listen = format!("listen = \"{address}\"");
            let open = listening(table, &listen);
            assert_faults(&open, &[], &[(&key("token_file"), Fault::Unsafe), (&key("tls"), Fault::Unsafe)]);
            let token = format!("{listen}\ntoken_file = \"t\"");
            assert_faults(&listening(table, &token), &[], &[(&key("tls"), Fault::Unsafe)]);
            assert_faults(&listening(table, &format!("{token}\nplaintext = false")), &[], &[(&key("tls"), Fault::Unsafe)]);
            let plaintext = format!("{listen}\nplaintext = true");
            assert_faults(&listening(table, &plaintext), &[], &[(&key("token_file"), Fault::Unsafe)]);
            let tls = "tls = { certificate = \"c\", key = \"k\" }";
            parse(&listening(table, &format!("{token}\nplaintext = true")), no_variables()).unwrap();
            parse(&listening(table, &format!("{token}\n{tls}")), no_variables()).unwrap();
            let both = format!("{token}\nplaintext = true\n{tls}");
            assert_faults(&listening(table, &both), &[], &[(&key("plaintext"), Fault::Conflict)]);
        }
        for address in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "127.0.0.1:0"] {
            parse(&listening(table, &format!("listen = \"{address}\"")), no_variables()).unwrap();
        }
    }
}

#[test]
fn an_address_from_a_variable_is_no_way_around_it() {
    let pairs = [("SLUICE__ADMIN__LISTEN", "0.0.0.0:9545")];
    let errors = errors_of(MINIMAL, &pairs);
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error.fault == Fault::Unsafe && error.place == Place::Variable("SLUICE__ADMIN__LISTEN".into())));
    let safe = [pairs[0], ("SLUICE__ADMIN__TOKEN_FILE", "token"), ("SLUICE__ADMIN__PLAINTEXT", "true")];
    parse(MINIMAL, variables(&safe)).unwrap();
}
