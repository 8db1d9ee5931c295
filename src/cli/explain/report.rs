//! What is told of a call: the same for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// The width of the column with the steps' names.
const LABEL: usize = 13;

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub method: String,
    pub url: String,
    /// Whether it would reach a service's replica, as far as the configuration tells.
    pub reached: bool,
    /// What the caller gets instead.
    pub refusal: Option<Refused>,
    /// In the order of its way, to where it is refused.
    pub steps: Vec<Step>,
    pub certificate: Option<Certificate>,
    pub service: Option<Service>,
    /// Those that may answer it.
    pub deployments: Vec<Deployment>,
}

/// One station of the way.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub at: &'static str,
    pub refused: bool,
    /// What is so, and why.
    pub says: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Refused {
    pub at: &'static str,
    /// Absent where there is no HTTP yet.
    pub status: Option<u16>,
    pub code: Option<&'static str>,
    /// The exact message; where there is no HTTP, what happens to the connection.
    pub message: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Certificate {
    pub cname: String,
    /// `name`, `wildcard` or `default`: why it is that one.
    pub found_by: &'static str,
    pub names: Vec<String>,
    pub not_after: String,
    /// Whether callers have to show one of their own.
    pub asks_callers: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub name: String,
    /// Where it is defined.
    pub defined_at: String,
    pub needs_key: bool,
    /// The names of its keys.
    pub keys: Vec<String>,
    /// The name of the key that was sent, if it is one.
    pub key: Option<String>,
    /// Absent: it was refused before.
    pub timeout_ms: Option<u64>,
    pub max_body: u64,
    pub max_queue: usize,
    pub max_queue_wait_ms: u64,
    pub max_requests_per_second: Option<u32>,
    pub burst: Option<u32>,
    pub max_requests_in_flight: Option<usize>,
    /// `caller`, `sticky` or `share`: what decides between deployments.
    pub chosen_by: &'static str,
    pub mirrored_to: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Deployment {
    pub name: String,
    /// Of such calls, in percent.
    pub share: u8,
    /// Path and query at the replica.
    pub target: String,
    pub health_path: String,
    /// Absent: any number.
    pub permits_per_replica: Option<usize>,
    /// `static`, `dns` or `kubernetes`.
    pub source: &'static str,
    /// What they are looked up by; absent where they are listed.
    pub looked_up_by: Option<String>,
    pub defined_at: Option<String>,
    /// Absent: they could not be looked up.
    pub replicas: Option<Vec<String>>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Report {
    pub fn to_text(&self) -> String {
        let mut text = format!("{} {}\n\n", self.method, self.url);
        for step in &self.steps {
            let mut label = step.at;
            for line in &step.says {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{label:<LABEL$}{line}");
                label = "";
            }
        }
        text.push('\n');
        text.push_str(&self.verdict());
        text
    }

    fn verdict(&self) -> String {
        match (&self.refusal, &self.service) {
            (Some(Refused { at, status: Some(status), code: Some(code), message }), _) => {
                format!("refused at {at}: {status} {code}: {message}\n")
            }
            (Some(Refused { at, message, .. }), _) => format!("refused at {at}: {message}\n"),
            (None, Some(service)) => format!("reaches service {}\n", service.name),
            (None, None) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_named_once() {
        let step = Step { at: "host", refused: true, says: vec!["one".to_owned(), "two".to_owned()] };
        let refusal =
            Refused { at: "host", status: Some(421), code: Some("Misdirected"), message: "Elsewhere.".to_owned() };
        let report = Report {
            method: "GET".to_owned(),
            url: "https://a.example/".to_owned(),
            reached: false,
            refusal: Some(refusal),
            steps: vec![step],
            certificate: None,
            service: None,
            deployments: Vec::new(),
        };
        assert_eq!(
            report.to_text(),
            "GET https://a.example/\n\nhost         one\n             two\n\nrefused at host: 421 Misdirected: Elsewhere.\n"
        );
    }
}
