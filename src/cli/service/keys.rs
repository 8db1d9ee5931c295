//! `scorefront service keys realtime`: the two keys that calls may have, and a new one in the place of either.

use std::process::ExitCode;

use clap::ValueEnum;

use super::target::Target;
use crate::admin::model::{KeyType, Keys, RegenerateKeysRequest};
use crate::cli::admin::{Admin, Ask};
use crate::cli::output::{self, Format};

pub const EXAMPLES: &str = "\
Examples:
  scorefront service keys realtime -n iris
  A new primary key; callers go on with the secondary one meanwhile:
    scorefront service keys realtime -n iris --regen --key Primary";

/// Shows the keys of a real-time service, or makes one of them anew
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Makes a new key; the old one is refused from then on
    #[arg(short, long, requires = "key")]
    regen: bool,
    /// Which one is made anew
    #[arg(short, long, value_enum, ignore_case = true, requires = "regen")]
    key: Option<Which>,
    #[command(flatten)]
    admin: Admin,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    #[value(name = "Primary")]
    Primary,
    #[value(name = "Secondary")]
    Secondary,
}

impl From<Which> for KeyType {
    fn from(which: Which) -> Self {
        match which {
            Which::Primary => Self::Primary,
            Which::Secondary => Self::Secondary,
        }
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
    // Says it, if there is none.
    let service = arguments.target.get(&client)?;
    let keys: Keys = match arguments.key {
        None => client.get(arguments.target.path("/keys"))?,
        Some(which) => {
            let wanted = RegenerateKeysRequest { key_type: which.into(), key_value: None };
            client.accepted(Ask::post(arguments.target.path("/regenerateKeys")).with(&wanted)?)?.json()?
        }
    };
    match arguments.output {
        Format::Json => output::json(&keys)?,
        Format::Text => output::out(&text(&keys, &service.name, &arguments.admin.words())),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(keys: &Keys, name: &str, admin: &str) -> String {
    let line = |which: &str, key: &Option<String>| {
        let key = key.clone().unwrap_or_else(|| {
            format!(
                "(only its hash is kept; a new one: scorefront service keys realtime -n {name} --regen --key {which}\
                 {admin})"
            )
        });
        format!("{which}Key: {key}\n")
    };
    line("Primary", &keys.primary_key) + &line("Secondary", &keys.secondary_key)
}
