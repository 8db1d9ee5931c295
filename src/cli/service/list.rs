//! `scorefront service list realtime`.

use std::process::ExitCode;

use anyhow::bail;

use super::show::{self, Shown};
use crate::admin::model::{Service, ServicePage};
use crate::cli::admin::{Admin, Client};
use crate::cli::output::{self, Format};

/// As many as are given at a time.
const FIRST_PAGE: &str = "/v1/services?count=1000";

/// More pages than any front end has services for.
const MOST_PAGES: usize = 1000;

pub const EXAMPLES: &str = "\
Examples:
  scorefront service list realtime
  scorefront service list realtime -v -o json";

/// Lists the real-time services
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Shows everything that is known of them
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    admin: Admin,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let services = all(&arguments.admin.client()?)?;
    match (arguments.output, arguments.verbose) {
        (Format::Json, true) => output::json(&services)?,
        (Format::Json, false) => output::json(&services.iter().map(Shown::of).collect::<Vec<_>>())?,
        (Format::Text, true) => output::out(&long(&services)),
        (Format::Text, false) => output::out(&short(&services)),
    }
    Ok(ExitCode::SUCCESS)
}

fn all(client: &Client) -> anyhow::Result<Vec<Service>> {
    let mut services = Vec::new();
    let mut next = Some(FIRST_PAGE.to_owned());
    for _ in 0..MOST_PAGES {
        let Some(path) = next else { return Ok(services) };
        let page: ServicePage = client.get(path)?;
        services.extend(page.value);
        next = page.next_link.map(|link| relative(&link));
    }
    bail!("{} has no last page of services", client.address());
}

/// A link of a page of services, as a path of its own (RFC 3986, section 5.2, as far as it is needed).
fn relative(link: &str) -> String {
    match link.chars().next() {
        Some('/') => link.to_owned(),
        Some('?') => format!("/v1/services{link}"),
        _ => format!("/v1/{link}"),
    }
}

fn short(services: &[Service]) -> String {
    let line = |service: &Service| {
        [service.name.clone(), show::state(service.state).to_owned(), replicas(service), service.scoring_uri.clone()]
    };
    output::table(["NAME", "STATE", "READY", "SCORING URI"], &services.iter().map(line).collect::<Vec<_>>())
}

fn long(services: &[Service]) -> String {
    let line = |service: &Service| {
        [
            service.name.clone(),
            show::state(service.state).to_owned(),
            replicas(service),
            service.created_at.clone(),
            service.updated_at.clone(),
            service.id.clone(),
            service.scoring_uri.clone(),
        ]
    };
    let names = ["NAME", "STATE", "READY", "CREATED", "UPDATED", "ID", "SCORING URI"];
    output::table(names, &services.iter().map(line).collect::<Vec<_>>())
}

fn replicas(service: &Service) -> String {
    format!("{}/{}", service.ready_replicas, service.total_replicas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_where_the_link_says() {
        assert_eq!(relative("/v1/services?$skipToken=a"), "/v1/services?$skipToken=a");
        assert_eq!(relative("?$skipToken=a"), "/v1/services?$skipToken=a");
        assert_eq!(relative("services?$skipToken=a"), "/v1/services?$skipToken=a");
    }
}
