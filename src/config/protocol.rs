//! Which paths of a replica mean what.
//!
//! A model server's protocol is known here by its paths alone: bodies pass through unread.

use toml::de::DeValue;

use super::diagnostic::{Problem, quoted};
use super::value;

/// The paths of a deployment's replicas. Each begins with `/` and can stand in a request line as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Takes the place of `/api/v1/service/<name>/score`.
    pub score: String,
    /// Answers a success while the model is ready.
    pub health: String,
    /// The description of the model's input and output.
    pub swagger: String,
}

/// A model server whose paths are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    AzureMl,
    KserveV1,
    KserveV2,
    MlFlow,
    SageMaker,
    TfServing,
    TorchServe,
}

impl Protocol {
    /// Every protocol and its word in the configuration.
    pub const WORDS: [(&str, Self); 7] = [
        ("azureml", Self::AzureMl),
        ("kserve-v1", Self::KserveV1),
        ("kserve-v2", Self::KserveV2),
        ("mlflow", Self::MlFlow),
        ("sagemaker", Self::SageMaker),
        ("tfserving", Self::TfServing),
        ("torchserve", Self::TorchServe),
    ];

    /// The paths under which a server of this protocol serves `model`.
    pub fn paths(self, model: &str) -> Paths {
        let (score, health) = match self {
            Self::AzureMl => ("/score".to_owned(), "/".to_owned()),
            Self::MlFlow | Self::SageMaker => ("/invocations".to_owned(), "/ping".to_owned()),
            Self::KserveV1 => (format!("/v1/models/{model}:predict"), format!("/v1/models/{model}")),
            // Its status of a model is a success while that loads, and after it failed to; metadata are of loaded ones.
            Self::TfServing => (format!("/v1/models/{model}:predict"), format!("/v1/models/{model}/metadata")),
            Self::KserveV2 => (format!("/v2/models/{model}/infer"), format!("/v2/models/{model}/ready")),
            Self::TorchServe => (format!("/predictions/{model}"), "/ping".to_owned()),
        };
        // Only azureml containers promise it; of the others, those that have none answer 404 themselves.
        Paths { score, health, swagger: "/swagger.json".to_owned() }
    }

    /// Whether the model's name is part of the paths.
    pub fn names_the_model(self) -> bool {
        match self {
            Self::AzureMl | Self::MlFlow | Self::SageMaker => false,
            Self::KserveV1 | Self::KserveV2 | Self::TfServing | Self::TorchServe => true,
        }
    }
}

/// A path of a replica that can stand in a request line as it is.
pub fn path(value: &DeValue<'_>) -> Result<String, Problem> {
    let path = value::text(value, "a path such as \"/score\"")?;
    let problem =
        |why: String| Problem::new(format!("expected a path such as \"/score\", found {}: {why}", quoted(path)));
    if !path.starts_with('/') {
        return Err(problem("it does not begin with \"/\"".to_owned()));
    }
    if let Some(wrong) = path.chars().find(|c| !can_stand_in_path(*c)) {
        return Err(match wrong {
            '?' | '#' => {
                problem("it holds a query or fragment".to_owned()).remedy("leave it out: a caller's query is sent on")
            }
            _ => problem(format!("{wrong:?} cannot stand in it"))
                .remedy("percent-encode it, such as \"%20\" for a blank"),
        });
    }
    let escapes_sound = path.split('%').skip(1).all(|after| {
        let digits = after.bytes().take(2).filter(u8::is_ascii_hexdigit).count();
        digits == 2
    });
    if !escapes_sound {
        return Err(problem("two hexadecimal digits must follow \"%\"".to_owned()));
    }
    let is_dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(is_dots) {
        return Err(problem("\".\" and \"..\" cannot be segments of it".to_owned()).remedy("write where it leads"));
    }
    Ok(path.to_owned())
}

/// A model's name, which becomes one segment of a path.
pub fn model(value: &DeValue<'_>) -> Result<String, Problem> {
    const EXPECTED: &str = "a model's name (A-Z, a-z, 0-9, \"-\", \"_\" and \".\")";
    let model = value::text(value, EXPECTED)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if matches!(model, "" | "." | "..") || !model.bytes().all(plain) {
        let message = format!("expected {EXPECTED}, found {}", quoted(model));
        return Err(Problem::new(message).remedy("for anything else set `path` and `health_path`"));
    }
    Ok(model.to_owned())
}

/// RFC 3986, section 3.3: `pchar` and the slash.
fn can_stand_in_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, Problem> {
        path(&DeValue::String(text.into()))
    }

    #[test]
    fn paths_are_what_a_request_line_takes() {
        for sound in ["/", "/score", "/v1/models/iris:predict", "/a%20b", "/a//b", "/...", "/score/"] {
            assert_eq!(read(sound).as_deref(), Ok(sound));
        }
        let wrong = [
            "",
            "score",
            "/a?b",
            "/a#b",
            "/a b",
            "/a\r\nb",
            "/ü",
            "/a\\b",
            "/.",
            "/../etc",
            "/a/%2E%2e/b",
            "/%",
            "/%4",
            "/%zz",
        ];
        for wrong in wrong {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_model_of_tfserving_is_not_called_ready_for_having_a_status() {
        assert_eq!(Protocol::KserveV1.paths("iris").health, "/v1/models/iris");
        assert_eq!(Protocol::TfServing.paths("iris").health, "/v1/models/iris/metadata");
    }

    #[test]
    fn every_preset_is_made_of_sound_paths() {
        for (word, protocol) in Protocol::WORDS {
            let paths = protocol.paths("iris");
            for path in [&paths.score, &paths.health, &paths.swagger] {
                assert!(read(path).is_ok(), "{word}: {path}");
            }
            assert_eq!(paths.score.contains("iris"), protocol.names_the_model(), "{word}");
        }
    }
}
