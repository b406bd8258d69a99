//! Which pod gets which identity.
#[derive(Clone,Debug)]
pub struct Settings;
#[derive(Clone,Debug,PartialEq,Eq,thiserror::Error)]
#[error("x")]
pub struct SettingsError;
impl Settings { pub fn parse(_s:&crate::api::TrustDomainSpec)->Result<Self,SettingsError>{Ok(Self)} }
