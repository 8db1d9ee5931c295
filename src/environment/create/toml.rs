//! The text of a new environment's `scorefront.toml`. It opens no file.

use std::fmt::Write as _;

use toml_edit::Value;

use super::{NewEnvironment, NewPair, TOKEN_FILE};
use crate::config::AdminListen;
use crate::environment::write::PairFiles;

/// What the front end reads, with the keys an operator changes first.
pub fn write(new: &NewEnvironment) -> String {
    let mut text = "include = [\"services/*.toml\"]\n".to_owned();
    environment(&mut text, new);
    frontend(&mut text, new);
    let status = if new.pair.is_some() { "Enabled" } else { "Disabled" };
    table(&mut text, "[tls]", &[("status", Some(string(status)))]);
    let listen = match &new.admin_listen {
        AdminListen::Tcp(address) => address.to_string(),
        unix @ AdminListen::Unix(_) => unix.to_string(),
    };
    let token_file = new.admin_token.as_ref().map(|_| string(TOKEN_FILE));
    table(&mut text, "[admin]", &[("listen", Some(string(&listen))), ("token_file", token_file)]);
    if new.is_local {
        table(&mut text, "[defaults]", &[("auth", Some("false".to_owned()))]);
    }
    if let Some(pair) = &new.pair {
        cname(&mut text, pair);
    }
    text
}

fn environment(text: &mut String, new: &NewEnvironment) {
    let cluster_type = if new.is_local { "Local" } else { "ACS" };
    let created_on = humantime::format_rfc3339_seconds(new.created_on).to_string();
    let keys = [
        ("name", Some(string(&new.name))),
        ("resource_group", new.resource_group.as_deref().map(string)),
        ("cluster_type", Some(string(cluster_type))),
        ("created_on", Some(created_on)),
        ("description", new.description.as_deref().map(string)),
    ];
    table(text, "[environment]", &keys);
}

fn frontend(text: &mut String, new: &NewEnvironment) {
    let port = |port: Option<u16>| port.map(|port| port.to_string());
    let keys = [
        ("https", Some(string(&new.https.to_string()))),
        ("http", Some(string(&new.http.to_string()))),
        ("public_ip_address", new.public_ip_address.map(|address| string(&address.to_string()))),
        ("public_https_port", port(new.public_https_port)),
        ("public_http_port", port(new.public_http_port)),
    ];
    table(text, "[frontend]", &keys);
}

fn cname(text: &mut String, pair: &NewPair) {
    let files = PairFiles::of("".as_ref(), &pair.cname);
    let keys = [
        ("name", Some(string(pair.cname.as_str()))),
        ("cert_pem", Some(string(&files.cert_pem.to_string_lossy()))),
        ("key_pem", Some(string(&files.key_pem.to_string_lossy()))),
    ];
    table(text, "[[cname]]", &keys);
}

/// Adds a table with those of its keys that have a value.
fn table(text: &mut String, head: &str, keys: &[(&str, Option<String>)]) {
    let _ = writeln!(text, "\n{head}");
    for (key, value) in keys {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
}

/// A string as TOML has it, whatever it holds.
fn string(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::SystemTime;

    use super::*;

    fn new(is_local: bool) -> NewEnvironment {
        NewEnvironment {
            name: "my-cluster".to_owned(),
            resource_group: Some("my-rg".to_owned()),
            description: Some("a \"quoted\"\nline = [".to_owned()),
            is_local,
            created_on: SystemTime::UNIX_EPOCH,
            https: (Ipv4Addr::UNSPECIFIED, 8443).into(),
            http: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            public_ip_address: Some(Ipv4Addr::new(203, 0, 113, 7).into()),
            public_https_port: Some(443),
            public_http_port: None,
            admin_listen: AdminListen::Unix("/run/admin.sock".into()),
            admin_token: None,
            pair: (!is_local).then(|| NewPair {
                cname: "*.models.example.com".parse().expect("a name"),
                chain: Vec::new(),
                key: Vec::new().into(),
            }),
        }
    }

    #[test]
    fn it_says_what_it_was_told() {
        let text = write(&new(false));
        let read: toml::Table = text.parse().expect("TOML");
        assert_eq!(read["environment"]["description"].as_str(), Some("a \"quoted\"\nline = ["));
        assert!(text.contains("\ncreated_on = 1970-01-01T00:00:00Z\n"), "{text}");
        assert_eq!(read["environment"]["cluster_type"].as_str(), Some("ACS"));
        assert_eq!(read["frontend"]["public_https_port"].as_integer(), Some(443));
        assert_eq!(read["tls"]["status"].as_str(), Some("Enabled"));
        assert_eq!(read["admin"]["listen"].as_str(), Some("unix:/run/admin.sock"));
        assert_eq!(read["cname"][0]["key_pem"].as_str(), Some("certs/_.models.example.com/key.pem"));
        assert!(!read.contains_key("defaults"));
    }

    #[test]
    fn a_local_one_asks_for_no_keys() {
        let read: toml::Table = write(&new(true)).parse().expect("TOML");
        assert_eq!(read["environment"]["cluster_type"].as_str(), Some("Local"));
        assert_eq!(read["tls"]["status"].as_str(), Some("Disabled"));
        assert_eq!(read["defaults"]["auth"].as_bool(), Some(false));
        assert!(!read.contains_key("cname"));
    }
}
