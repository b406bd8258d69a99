//! As whom calls are made (`as`, `as-uid`, `as-groups`, `as-user-extra`).

use std::collections::BTreeMap;

use super::{FieldProblem, KubeconfigError, field::Field};

/// Somebody to act as: a user with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Impersonation {
    /// The user `user`, in `groups`; without any, in those that the API server gives it. None where
    /// a name is empty or has a character that is no visible ASCII or space.
    #[must_use]
    pub fn of(user: &str, groups: &[String]) -> Option<Self> {
        let names = std::iter::once(user).chain(groups.iter().map(String::as_str));
        names
            .into_iter()
            .all(|name| !name.is_empty() && is_header_text(name))
            .then(|| Self {
                user: user.into(),
                uid: None,
                groups: groups.into(),
                extra: BTreeMap::new(),
            })
    }

    /// Name of the user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Names of groups.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// UID of the user.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// What else is said of the user.
    #[must_use]
    pub fn extra(&self) -> &BTreeMap<String, Vec<String>> {
        &self.extra
    }
}

pub(super) fn read(user: &Field<'_>) -> Result<Option<Impersonation>, KubeconfigError> {
    let name = header_text(&user.field("as")?)?;
    let uid = user.field("as-uid")?;
    let groups = user.field("as-groups")?;
    let extra = user.field("as-user-extra")?;
    let impersonation = Impersonation {
        user: name.unwrap_or_default().to_owned(),
        uid: header_text(&uid)?.map(str::to_owned),
        groups: header_texts(&groups)?,
        extra: extra_values(&extra)?,
    };
    if name.is_some() {
        return Ok(Some(impersonation));
    }
    let without_user = |field: &Field<'_>| field.refuse(FieldProblem::ImpersonationWithoutUser);
    if impersonation.uid.is_some() {
        return Err(without_user(&uid));
    }
    if !impersonation.groups.is_empty() {
        return Err(without_user(&groups));
    }
    if !impersonation.extra.is_empty() {
        return Err(without_user(&extra));
    }
    Ok(None)
}

fn extra_values(extra: &Field<'_>) -> Result<BTreeMap<String, Vec<String>>, KubeconfigError> {
    let entries = extra.entries()?.into_iter();
    entries
        .map(|(key, values)| {
            if key.is_empty() || !is_header_text(key) {
                return Err(values.refuse(FieldProblem::NotHeaderText));
            }
            Ok((key.to_owned(), header_texts(&values)?))
        })
        .collect()
}

fn header_texts(list: &Field<'_>) -> Result<Vec<String>, KubeconfigError> {
    let items = list.items()?.into_iter();
    items
        .map(|item| {
            let text = header_text(&item)?;
            let text = text.ok_or_else(|| item.refuse(FieldProblem::Missing))?;
            Ok(text.to_owned())
        })
        .collect()
}

/// Text that goes into an HTTP header.
fn header_text<'a>(field: &Field<'a>) -> Result<Option<&'a str>, KubeconfigError> {
    match field.text()? {
        Some(text) if !is_header_text(text) => Err(field.refuse(FieldProblem::NotHeaderText)),
        text => Ok(text),
    }
}

fn is_header_text(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
