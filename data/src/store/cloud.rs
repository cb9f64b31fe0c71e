//! Clients of cloud stores: who the caller is, how long a call may take, and what is missing where one cannot be made.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

/// How long a connection may take to come about; `AWS_CONNECT_TIMEOUT`, `GOOGLE_CONNECT_TIMEOUT` and
/// `AZURE_CONNECT_TIMEOUT` set another time, as in `10s`.
const CONNECT_TIMEOUT: &str = "5s";
/// How long one request may take with its body, the largest part on a slow line included; `AWS_TIMEOUT`,
/// `GOOGLE_TIMEOUT` and `AZURE_TIMEOUT` set another time.
const REQUEST_TIMEOUT: &str = "60s";
/// The client begins no further try of its own after this time. With [`REQUEST_TIMEOUT`] it bounds every call.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// Further tries of the client itself; [`super::Retry`] comes on top. Asking a machine's metadata service for an identity
/// ends with the last of them, within five seconds where there is no such service.
const CLIENT_RETRIES: usize = 3;

/// The variables that name an endpoint, and the one that lets it be unencrypted.
const ENDPOINTS: [(&str, &str); 6] = [
    ("aws_endpoint", "aws_allow_http"),
    ("aws_endpoint_url", "aws_allow_http"),
    ("aws_endpoint_url_s3", "aws_allow_http"),
    ("azure_endpoint", "azure_allow_http"),
    ("azure_storage_endpoint", "azure_allow_http"),
    ("google_base_url", "google_allow_http"),
];

/// Makes the client of a store, and the path below which its objects lie.
pub(super) fn connect(url: &Url, variables: Vec<(String, String)>) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let (scheme, prefix) = ObjectStoreScheme::parse(url).map_err(|e| e.to_string())?;
    unencrypted(&scheme, &variables)?;
    let defaults = [("timeout", REQUEST_TIMEOUT), ("connect_timeout", CONNECT_TIMEOUT)];
    let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options: Vec<(String, String)> = defaults.into_iter().chain(variables).collect();
    macro_rules! client {
        ($builder:ty) => {{
            let builder =
                options.into_iter().fold(<$builder>::new().with_url(url.as_str()), |builder, (name, value)| {
                    match name.parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder, // it is of another cloud, or not of the store
                    }
                });
            let client = builder.with_retry(patience()).build();
            Arc::new(client.map_err(|e| format!("{e}; {}", identity(url.scheme())))?) as Arc<dyn ObjectStore>
        }};
    }
    let objects = match scheme {
        ObjectStoreScheme::AmazonS3 => client!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => client!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => client!(MicrosoftAzureBuilder),
        other => return Err(format!("{other:?} is not a kind of store that jobs can use")),
    };
    Ok((objects, prefix))
}

fn patience() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: CLIENT_RETRIES, retry_timeout: CLIENT_PATIENCE }
}

/// Which variables say who the caller is, for messages.
pub(super) fn identity(scheme: &str) -> &'static str {
    match scheme {
        "gs" => {
            "set GOOGLE_SERVICE_ACCOUNT to the path of a key file, or GOOGLE_APPLICATION_CREDENTIALS, or run \
             `gcloud auth application-default login`"
        }
        "az" | "adl" | "azure" | "abfs" | "abfss" => {
            "set AZURE_STORAGE_ACCOUNT_NAME, and one of AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, or \
             AZURE_CLIENT_ID and AZURE_TENANT_ID with AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE"
        }
        _ => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL where \
             they are needed); profiles are not read, `aws configure export-credentials --format env` prints one as variables"
        }
    }
}

/// Refuses an endpoint without TLS that nobody has allowed; the client would only say that its request is wrong.
fn unencrypted(scheme: &ObjectStoreScheme, variables: &[(String, String)]) -> Result<(), String> {
    let cloud = match scheme {
        ObjectStoreScheme::AmazonS3 => "aws_",
        ObjectStoreScheme::GoogleCloudStorage => "google_",
        _ => "azure_",
    };
    let value = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    for (name, allow) in ENDPOINTS.iter().filter(|(name, _)| name.starts_with(cloud)) {
        let allowed =
            value(allow).is_some_and(|v| ["true", "1", "yes", "on"].contains(&v.to_ascii_lowercase().as_str()));
        if value(name).is_some_and(|endpoint| endpoint.starts_with("http://")) && !allowed {
            let (name, allow) = (name.to_ascii_uppercase(), allow.to_ascii_uppercase());
            return Err(format!("{name} is an address without TLS; set {allow}=true to use it all the same"));
        }
    }
    Ok(())
}
