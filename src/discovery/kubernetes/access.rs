//! Where the API of Kubernetes is, who we are there, and the client that asks it.
//!
//! A kubeconfig that the configuration names comes first, then what `KUBECONFIG` names, then the service account of the
//! pod. The account's token and its authority are read again as they rotate; everything else is read again when the API
//! cannot be reached or does not know us. What is asked is for others to say.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::Kubeconfig;
use tokio::task::spawn_blocking;
use tower::{Layer, ServiceExt, util::option_layer};

use super::error::{ApiError, causes};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A watch is silent for minutes: whether somebody is still there is for TCP to find out, in the first of these and three
/// times the second.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));

/// See the module.
pub struct Access {
    /// What the configuration names.
    kubeconfig: Option<PathBuf>,
    connected: RefCell<Option<Connected>>,
    /// The front end's own, as it was last found out.
    namespace: RefCell<Rc<str>>,
}

/// A client, and what belongs to it.
#[derive(Clone)]
pub struct Connected {
    pub client: kube::Client,
    /// The front end's own.
    pub namespace: Rc<str>,
}

impl Access {
    pub fn new(kubeconfig: Option<&Path>) -> Self {
        let (connected, namespace) = (RefCell::default(), RefCell::new(Rc::from("")));
        Self { kubeconfig: kubeconfig.map(Path::to_owned), connected, namespace }
    }

    /// The client there is, or a new one; it has not asked anything yet.
    ///
    /// # Errors
    ///
    /// [`ApiError::Configuration`].
    pub async fn connected(&self) -> Result<Connected, ApiError> {
        if let Some(connected) = &*self.connected.borrow() {
            return Ok(connected.clone());
        }
        let kubeconfig = self.kubeconfig.clone();
        // Files are read, and a kubeconfig may name a program to run.
        let made = spawn_blocking(move || make(kubeconfig.as_deref())).await;
        let (client, namespace) = made.map_err(|error| ApiError::Configuration(error.to_string()))??;
        let connected = Connected { client, namespace: namespace.into() };
        self.namespace.replace(Rc::clone(&connected.namespace));
        self.connected.replace(Some(connected.clone()));
        Ok(connected)
    }

    /// The front end's own namespace; empty before the first connection.
    pub fn namespace(&self) -> Rc<str> {
        Rc::clone(&self.namespace.borrow())
    }

    /// Has the next who asks do so over a new client.
    pub fn forget(&self) {
        self.connected.take();
    }
}

fn make(kubeconfig: Option<&Path>) -> Result<(kube::Client, String), ApiError> {
    let config = read(kubeconfig)?;
    let namespace = config.default_namespace.clone();
    let wrong = |error: kube::Error| ApiError::Configuration(causes(&error));
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let (idle, interval) = KEEPALIVE;
    connector.set_keepalive(Some(idle));
    connector.set_keepalive_interval(Some(interval));
    connector.set_keepalive_retries(Some(3));
    // kube takes the process's provider, which nothing else here goes by.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let connector = config.rustls_https_connector_with_connector(connector).map_err(wrong)?;
    let client: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let client = client.map_err(tower::BoxError::from);
    let client = config.extra_headers_layer().map_err(wrong)?.layer(client);
    let client = option_layer(config.auth_layer().map_err(wrong)?).layer(client);
    let client = config.base_uri_layer().layer(client);
    Ok((kube::Client::new(client, namespace.clone()), namespace))
}

fn read(kubeconfig: Option<&Path>) -> Result<kube::Config, ApiError> {
    let kubeconfig = match kubeconfig {
        Some(file) => Kubeconfig::read_from(file).map(Some),
        None => Kubeconfig::from_env(),
    };
    let wrong =
        |error: kube::config::KubeconfigError| ApiError::Configuration(format!("kubeconfig: {}", causes(&error)));
    let Some(kubeconfig) = kubeconfig.map_err(wrong)? else {
        return kube::Config::incluster_env().map_err(|error| {
            ApiError::Configuration(format!(
                "no kubeconfig is named, and this is no pod of Kubernetes: {}",
                causes(&error)
            ))
        });
    };
    let config = kube::Config::try_from(kubeconfig).map_err(wrong)?;
    match config.proxy_url {
        Some(_) => Err(ApiError::Configuration("kubeconfig: proxies to the API are not supported".to_owned())),
        None => Ok(config),
    }
}
