//! `aws eks get-token` as `aws eks update-kubeconfig` and eksctl write it into kubeconfigs: which
//! cluster, in which region, by which role.
//!
//! What would change the outcome and is not understood is refused. Region, name and role end up in
//! a host name, a header and a request, so they are checked for what they may contain.

use super::{
    EksCluster, KubeconfigError,
    error::{AwsGetTokenProblem, shown},
    exec::environment,
    field::Field,
};

/// Longest region, name and ARN that are taken, in bytes.
const MAX_REGION_LENGTH: usize = 40;
const MAX_NAME_LENGTH: usize = 100;
const MAX_ARN_LENGTH: usize = 2048;

/// What an option says.
#[derive(Clone, Copy)]
enum Setting {
    Cluster,
    Region,
    Role,
    Ignored,
}

#[derive(Default)]
struct Call {
    cluster: Option<String>,
    region: Option<String>,
    role: Option<String>,
}

pub(super) fn read(exec: &Field<'_>) -> Result<EksCluster, KubeconfigError> {
    let mut call = Call::default();
    read_variables(exec, &mut call)?;
    let args = exec.field("args")?;
    read_arguments(&args, &mut call)?;
    let missing = |problem: AwsGetTokenProblem| args.refuse(problem);
    Ok(EksCluster {
        name: call
            .cluster
            .ok_or_else(|| missing(AwsGetTokenProblem::NoCluster))?,
        region: call
            .region
            .ok_or_else(|| missing(AwsGetTokenProblem::NoRegion))?,
        role_arn: call.role,
    })
}

/// Variables stand behind options, as with the AWS CLI.
fn read_variables(exec: &Field<'_>, call: &mut Call) -> Result<(), KubeconfigError> {
    for variable in environment(exec)? {
        let refuse = |problem: AwsGetTokenProblem| variable.field.refuse(problem);
        match variable.name {
            "AWS_PROFILE" | "AWS_DEFAULT_PROFILE" => {
                return Err(refuse(AwsGetTokenProblem::Profile));
            }
            // A regional endpoint of STS is used whatever this says: both give the same token.
            "AWS_STS_REGIONAL_ENDPOINTS" => {}
            "AWS_REGION" | "AWS_DEFAULT_REGION" => {
                call.set(Setting::Region, "AWS_REGION", Some(variable.value))
                    .map_err(refuse)?;
            }
            name => {
                let name = shown(name);
                return Err(refuse(AwsGetTokenProblem::Unknown { name }));
            }
        }
    }
    Ok(())
}

fn read_arguments(args: &Field<'_>, call: &mut Call) -> Result<(), KubeconfigError> {
    let mut words = Vec::new();
    let mut items = args.items()?.into_iter();
    while let Some(item) = items.next() {
        let argument = item.text()?.unwrap_or_default();
        if !argument.starts_with('-') {
            words.push(argument);
            continue;
        }
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        let (setting, name) = option(name).map_err(|problem| item.refuse(problem))?;
        let following = match inline {
            Some(_) => None,
            None => items.next(),
        };
        let value = match &following {
            Some(next) => next.text()?,
            None => inline,
        };
        let place = following.as_ref().unwrap_or(&item);
        call.set(setting, name, value)
            .map_err(|problem| place.refuse(problem))?;
    }
    if words == ["eks", "get-token"] {
        Ok(())
    } else {
        Err(args.refuse(AwsGetTokenProblem::OtherCommand))
    }
}

fn option(name: &str) -> Result<(Setting, &'static str), AwsGetTokenProblem> {
    match name {
        "--cluster-name" => Ok((Setting::Cluster, "--cluster-name")),
        "--cluster-id" => Ok((Setting::Cluster, "--cluster-id")),
        "--region" => Ok((Setting::Region, "--region")),
        "--role-arn" | "--role" => Ok((Setting::Role, "--role-arn")),
        "--output" => Ok((Setting::Ignored, "--output")),
        "--profile" => Err(AwsGetTokenProblem::Profile),
        other => Err(AwsGetTokenProblem::Unknown { name: shown(other) }),
    }
}

impl Call {
    fn set(
        &mut self,
        setting: Setting,
        name: &'static str,
        value: Option<&str>,
    ) -> Result<(), AwsGetTokenProblem> {
        let (slot, is_good): (_, fn(&str) -> bool) = match setting {
            Setting::Cluster => (&mut self.cluster, is_cluster_name),
            Setting::Region => (&mut self.region, is_region),
            Setting::Role => (&mut self.role, is_role_arn),
            Setting::Ignored => return Ok(()),
        };
        let value = value.filter(|value| is_good(value));
        *slot = Some(value.ok_or(AwsGetTokenProblem::Value { name })?.into());
        Ok(())
    }
}

fn is_cluster_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_NAME_LENGTH).contains(&name.len()) && name.bytes().all(is_good)
}

fn is_region(region: &str) -> bool {
    let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=MAX_REGION_LENGTH).contains(&region.len())
        && region.bytes().all(is_good)
        && !region.starts_with('-')
        && !region.ends_with('-')
}

/// `arn:<partition>:iam::<account>:role/<path and name>`.
fn is_role_arn(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, role] = parts.as_slice() else {
        return false;
    };
    arn.len() <= MAX_ARN_LENGTH
        && partition.starts_with("aws")
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && role.strip_prefix("role/").is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
        })
}
