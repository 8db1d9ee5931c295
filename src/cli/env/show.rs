//! `scorefront env show`: the cluster as its front end sees it, with the address that its CNAMEs have to lead to.

use std::net::IpAddr;
use std::process::ExitCode;

use super::Expected;
use crate::admin::model::{AddressSource, ClusterType, Environment, SslStatus};
use crate::cli::admin::Admin;
use crate::cli::output::{self, Format, row};

const EXAMPLES: &str = "\
Examples:
  scorefront env show --env my-cluster
  scorefront env show -g my-rg -n my-cluster --admin http://127.0.0.1:8900 -o text";

/// Shows a running environment; publicIpAddress is what its CNAME has to lead to
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    admin: Admin,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "json")]
    output: Format,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
    let environment: Environment = client.get("/v1/env")?;
    arguments.expected.check(&environment, &client)?;
    tell(&environment, arguments.output)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes all there is to say of an environment.
pub(super) fn tell(environment: &Environment, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(environment),
        Format::Text => {
            output::out(&text(environment));
            Ok(())
        }
    }
}

fn text(environment: &Environment) -> String {
    let mut text = String::new();
    let ssl = &environment.global_service_configuration.ssl;
    row(&mut text, "name", &environment.name);
    if let Some(group) = &environment.resource_group {
        row(&mut text, "group", group);
    }
    if let Some(description) = &environment.description {
        row(&mut text, "description", description);
    }
    row(&mut text, "type", cluster_type(environment.cluster_type));
    row(&mut text, "state", &format!("{:?}", environment.provisioning_state));
    for error in &environment.provisioning_errors {
        row(&mut text, "", &error.message);
    }
    row(&mut text, "address", &format!("{} ({})", environment.public_ip_address, source(environment)));
    row(&mut text, "TLS", status(ssl.status));
    row(&mut text, "CNAMEs", &if ssl.cnames.is_empty() { "none".to_owned() } else { ssl.cnames.join(", ") });
    if let Some(cname) = ssl.cname.as_ref().filter(|_| ssl.status == SslStatus::Enabled) {
        row(&mut text, "DNS record", &record(cname, &environment.public_ip_address));
    }
    text
}

/// The record that leads `cname` to the front end.
fn record(cname: &str, address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V4(_)) => format!("{cname}. 300 IN A {address}"),
        Ok(IpAddr::V6(_)) => format!("{cname}. 300 IN AAAA {address}"),
        // The name of a load balancer.
        Err(_) => format!("{cname}. 300 IN CNAME {}.", address.trim_end_matches('.')),
    }
}

pub(super) fn cluster_type(cluster_type: ClusterType) -> &'static str {
    match cluster_type {
        ClusterType::Acs => "ACS",
        ClusterType::Local => "Local",
    }
}

pub(super) fn status(status: SslStatus) -> &'static str {
    match status {
        SslStatus::Enabled => "Enabled",
        SslStatus::Disabled => "Disabled",
    }
}

/// How the address is known, since some ways can err.
fn source(environment: &Environment) -> &'static str {
    match environment.public_ip_address_source {
        AddressSource::Configuration => "frontend.public_ip_address",
        AddressSource::LoadBalancer => "kubernetes.front_end_service",
        AddressSource::Listener => "where it listens",
        AddressSource::Outbound => "this machine's; behind a load balancer set frontend.public_ip_address",
        AddressSource::Loopback => "this machine alone; set frontend.public_ip_address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_the_kind_that_leads_there() {
        let of = |address| record("scoring.example.com", address);
        assert_eq!(of("203.0.113.7"), "scoring.example.com. 300 IN A 203.0.113.7");
        assert_eq!(of("2001:db8::7"), "scoring.example.com. 300 IN AAAA 2001:db8::7");
        for name in ["a1.elb.example.com", "a1.elb.example.com."] {
            assert_eq!(of(name), "scoring.example.com. 300 IN CNAME a1.elb.example.com.");
        }
    }
}
