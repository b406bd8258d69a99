//! Tokens for Amazon EKS, as `aws eks get-token` makes them: a call of STS's `GetCallerIdentity`,
//! signed beforehand, with the cluster's name in a header that is signed too. EKS sends the call and
//! learns who signed it.
//!
//! The signature is AWS Signature Version 4 in its query form, for this one request.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use secrecy::{ExposeSecret, SecretString};

use super::kubeconfig::EksCluster;

/// How long a token is good: a minute less than the 15 that EKS takes it for.
pub const EKS_TOKEN_LIFETIME: SignedDuration = SignedDuration::from_mins(14);

const PREFIX: &str = "k8s-aws-v1.";
const CLUSTER_HEADER: &str = "x-k8s-aws-id";
const SIGNED_HEADERS: &str = "host;x-k8s-aws-id";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The `X-Amz-Expires` of the call in seconds. EKS looks at the date alone.
const EXPIRES: &str = "60";
/// Domains of AWS's partitions by how the names of their regions start; `amazonaws.com` else.
const PARTITIONS: &[(&str, &str)] = &[
    ("cn-", "amazonaws.com.cn"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
];

/// Credentials of an IAM user or role.
#[derive(Clone, Debug)]
pub struct AwsCredentials {
    /// The access key's ID.
    pub access_key_id: String,
    /// The access key.
    pub secret_access_key: SecretString,
    /// What temporary credentials have besides.
    pub session_token: Option<SecretString>,
    /// When they end.
    pub expires_at: Option<Timestamp>,
}

/// A token for EKS.
#[derive(Clone, Debug)]
pub struct EksToken {
    /// The bearer token.
    pub text: SecretString,
    /// When the next one is needed.
    pub expires_at: Timestamp,
}

/// Host of STS in `region`.
#[must_use]
pub fn sts_host(region: &str) -> String {
    let partition = PARTITIONS
        .iter()
        .find(|(start, _)| region.starts_with(start));
    let domain = partition.map_or("amazonaws.com", |(_, domain)| domain);
    format!("sts.{region}.{domain}")
}

/// The token by which `credentials` are known to `cluster`, from `now` on. A role that the cluster
/// asks for was assumed already: `credentials` are those of the role.
#[must_use]
pub fn eks_token(cluster: &EksCluster, credentials: &AwsCredentials, now: Timestamp) -> EksToken {
    let url = presigned_url(cluster, credentials, now);
    let token = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(url));
    let end = now
        .saturating_add(EKS_TOKEN_LIFETIME)
        .unwrap_or(Timestamp::MAX);
    EksToken {
        text: SecretString::from(token),
        expires_at: credentials.expires_at.map_or(end, |until| until.min(end)),
    }
}

fn presigned_url(cluster: &EksCluster, credentials: &AwsCredentials, now: Timestamp) -> String {
    let host = sts_host(&cluster.region);
    let time = now.to_zoned(TimeZone::UTC);
    let day = time.strftime("%Y%m%d").to_string();
    let date = time.strftime("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{day}/{}/sts/aws4_request", cluster.region);
    let credential = format!("{}/{scope}", credentials.access_key_id);
    let query = query(&credential, &date, credentials.session_token.as_ref());
    let name = &cluster.name;
    let request = format!(
        "GET\n/\n{query}\nhost:{host}\n{CLUSTER_HEADER}:{name}\n\n{SIGNED_HEADERS}\n{}",
        sha256("")
    );
    let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", sha256(&request));
    let signature = signature(credentials, &day, &cluster.region, &to_sign);
    format!("https://{host}/?{query}&X-Amz-Signature={signature}")
}

/// The parameters in the order in which they are signed: that of their names.
fn query(credential: &str, date: &str, session_token: Option<&SecretString>) -> String {
    let session_token = session_token.map(ExposeSecret::expose_secret);
    let parameters = [
        ("Action", Some("GetCallerIdentity")),
        ("Version", Some("2011-06-15")),
        ("X-Amz-Algorithm", Some(ALGORITHM)),
        ("X-Amz-Credential", Some(credential)),
        ("X-Amz-Date", Some(date)),
        ("X-Amz-Expires", Some(EXPIRES)),
        ("X-Amz-Security-Token", session_token),
        ("X-Amz-SignedHeaders", Some(SIGNED_HEADERS)),
    ];
    let encoded: Vec<String> = parameters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", percent_encoded(value?))))
        .collect();
    encoded.join("&")
}

fn signature(credentials: &AwsCredentials, day: &str, region: &str, to_sign: &str) -> String {
    let secret = format!("AWS4{}", credentials.secret_access_key.expose_secret());
    let secret = zeroize::Zeroizing::new(secret);
    let key = [day, region, "sts", "aws4_request"]
        .into_iter()
        .fold(signing_key(secret.as_bytes()), |key, part| {
            signing_key(hmac::sign(&key, part.as_bytes()).as_ref())
        });
    hex(hmac::sign(&key, to_sign.as_bytes()).as_ref())
}

fn signing_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

fn sha256(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// All but RFC 3986's unreserved characters in percent signs.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn credentials(session_token: Option<&str>) -> AwsCredentials {
        AwsCredentials {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: SecretString::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: session_token.map(SecretString::from),
            expires_at: None,
        }
    }

    fn cluster(region: &str, name: &str) -> EksCluster {
        EksCluster {
            name: name.into(),
            region: region.into(),
            role_arn: None,
        }
    }

    fn now() -> Timestamp {
        "2026-11-24T22:15:00Z".parse().unwrap()
    }

    fn url(token: &EksToken) -> String {
        let encoded = token.text.expose_secret().strip_prefix(PREFIX).unwrap();
        String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
    }

    /// Tokens of `aws eks get-token` (AWS CLI 1.45.11) for the same credentials and time.
    #[test]
    fn signs_as_the_aws_cli_does() {
        let common = "Action=GetCallerIdentity&Version=2011-06-15\
                      &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261124%2F";
        let headers = "&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id";
        let table = [
            (
                cluster("eu-central-1", "child01"),
                None,
                format!(
                    "https://sts.eu-central-1.amazonaws.com/?{common}eu-central-1%2Fsts\
                     %2Faws4_request&X-Amz-Date=20261124T221500Z&X-Amz-Expires=60{headers}\
                     &X-Amz-Signature=28cd04f60eed41c285e326eb9578abaf5764e2f136ff153f859a8663a390dcab"
                ),
            ),
            (
                cluster("us-gov-west-1", "c_2"),
                Some("IQoJb3JpZ2luX2VjEXAMPLE+/=tok"),
                format!(
                    "https://sts.us-gov-west-1.amazonaws.com/?{common}us-gov-west-1%2Fsts\
                     %2Faws4_request&X-Amz-Date=20261124T221500Z&X-Amz-Expires=60{headers}\
                     &X-Amz-Security-Token=IQoJb3JpZ2luX2VjEXAMPLE%2B%2F%3Dtok\
                     &X-Amz-Signature=d508f7ddc4e94e855d84d5ea98b910f3d3bc2d4eb20a0a638a9b5acdc134ca61"
                ),
            ),
            (
                cluster("cn-north-1", "child01"),
                None,
                format!(
                    "https://sts.cn-north-1.amazonaws.com.cn/?{common}cn-north-1%2Fsts\
                     %2Faws4_request&X-Amz-Date=20261124T221500Z&X-Amz-Expires=60{headers}\
                     &X-Amz-Signature=b3be510ab1c80559f85fe9186c8ea1724fc3963bed4cc8b8539fe0c7373c9860"
                ),
            ),
        ];
        // Only the order of parameters differs: there it is not that of their names.
        let parts =
            |url: &str| -> BTreeSet<String> { url.split(['?', '&']).map(str::to_owned).collect() };
        for (cluster, session_token, expected) in table {
            let token = eks_token(&cluster, &credentials(session_token), now());
            assert_eq!(parts(&url(&token)), parts(&expected));
        }
    }

    #[test]
    fn every_partition_has_its_domain() {
        for (region, host) in [
            ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
            ("us-gov-east-1", "sts.us-gov-east-1.amazonaws.com"),
            ("cn-northwest-1", "sts.cn-northwest-1.amazonaws.com.cn"),
            ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
            ("us-isof-south-1", "sts.us-isof-south-1.csp.hci.ic.gov"),
            ("eu-isoe-west-1", "sts.eu-isoe-west-1.cloud.adc-e.uk"),
            ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(sts_host(region), host);
        }
    }

    #[test]
    fn ends_with_the_credentials_if_they_end_first() {
        let mut credentials = credentials(None);
        let end = |credentials: &AwsCredentials| {
            eks_token(&cluster("eu-west-1", "c"), credentials, now()).expires_at
        };
        let minutes = |minutes| now() + SignedDuration::from_mins(minutes);
        assert_eq!(end(&credentials), minutes(14));
        credentials.expires_at = Some(minutes(5));
        assert_eq!(end(&credentials), minutes(5));
        credentials.expires_at = Some(minutes(50));
        assert_eq!(end(&credentials), minutes(14));
    }

    #[test]
    fn debug_shows_no_credential() {
        let credentials = credentials(Some("t0ken"));
        let token = eks_token(&cluster("eu-west-1", "c"), &credentials, now());
        let shown = format!("{credentials:?} {token:?}");
        assert!(
            !shown.contains("wJalr") && !shown.contains("t0ken") && !shown.contains(PREFIX),
            "{shown}"
        );
    }
}
