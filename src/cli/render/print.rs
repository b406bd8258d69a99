//! Prints what [`super::plan`] found.

use super::{
    OutputFormat,
    plan::{RenderReport, RenderedEntry, RenderedObject, RenderedPod, RenderedTrustDomain},
};

/// `report` as text that ends in a new line.
///
/// # Errors
/// When it cannot be written in that form.
pub fn to_text(report: &RenderReport, format: OutputFormat) -> Result<String, String> {
    match format {
        OutputFormat::Json => serde_json::to_string_pretty(report)
            .map(|text| text + "\n")
            .map_err(|error| format!("cannot write JSON: {error}")),
        OutputFormat::Table => Ok(to_table(report)),
        OutputFormat::Yaml => serde_saphyr::to_string(report)
            .map(|text| format!("{}\n", text.trim_end()))
            .map_err(|error| format!("cannot write YAML: {error}")),
    }
}

fn to_table(report: &RenderReport) -> String {
    let mut lines: Vec<String> = report
        .trust_domains
        .iter()
        .flat_map(trust_domain_lines)
        .collect();
    for (title, items) in [("Notes:", &report.notes), ("Errors:", &report.errors)] {
        if !items.is_empty() {
            lines.push(title.into());
            lines.extend(items.iter().map(|item| format!("  {item}")));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn trust_domain_lines(domain: &RenderedTrustDomain) -> Vec<String> {
    let mut lines = vec![format!("Trust domain {}", domain.trust_domain)];
    if let Some(error) = &domain.error {
        lines.extend([format!("  {error}"), String::new()]);
        return lines;
    }
    let mut rows = vec![["POD", "SOURCE", "OUTCOME", "SPIFFE ID", "DETAILS"].map(String::from)];
    rows.extend(domain.pods.iter().flat_map(pod_rows));
    rows.extend(domain.static_entries.iter().map(static_entry_row));
    lines.extend(align(&rows));
    lines.push(String::new());
    let mut rows =
        vec![["KIND", "NAME", "ENTRIES", "MASKED", "FAILURES", "ERROR"].map(String::from)];
    rows.extend(domain.objects.iter().map(object_row));
    lines.extend(align(&rows));
    lines.push(String::new());
    lines
}

fn static_entry_row(entry: &RenderedEntry) -> [String; 5] {
    let details = format!(
        "selectors {} {}",
        entry.selectors.join(", "),
        details(entry)
    );
    [
        "-".into(),
        "ClusterStaticEntry".into(),
        "Issued".into(),
        entry.spiffe_id.clone(),
        details,
    ]
}

fn object_row(object: &RenderedObject) -> [String; 6] {
    let unknown = match object.unknown_federated.as_slice() {
        [] => String::new(),
        names => format!("no bundle is known of {}", names.join(", ")),
    };
    [
        object.kind.into(),
        object.name.clone(),
        object.entries.to_string(),
        object.masked.to_string(),
        object.failures.to_string(),
        object.error.clone().unwrap_or(unknown),
    ]
}

fn pod_rows(pod: &RenderedPod) -> Vec<[String; 5]> {
    let name = format!("{}/{}", pod.namespace, pod.name);
    if pod.matches.is_empty() {
        let reason = pod
            .obstacle
            .as_deref()
            .unwrap_or("no ClusterSPIFFEID selects it");
        return vec![[name, "-".into(), "None".into(), "-".into(), reason.into()]];
    }
    pod.matches
        .iter()
        .map(|found| {
            let entry = found.entry.as_ref();
            [
                name.clone(),
                found.source.clone(),
                format!("{:?}", found.outcome),
                entry.map_or_else(|| "-".into(), |entry| entry.spiffe_id.clone()),
                match (&pod.obstacle, &found.message) {
                    (Some(obstacle), _) => obstacle.clone(),
                    (None, Some(message)) => message.clone(),
                    (None, None) => entry.map(details).unwrap_or_default(),
                },
            ]
        })
        .collect()
}

/// What is special about an entry.
fn details(entry: &RenderedEntry) -> String {
    let mut details = Vec::new();
    if !entry.dns_names.is_empty() {
        details.push(format!("DNS {}", entry.dns_names.join(",")));
    }
    if let Some(hint) = &entry.hint {
        details.push(format!("hint {hint}"));
    }
    for (is_set, name) in [(entry.admin, "admin"), (entry.downstream, "downstream")] {
        if is_set {
            details.push(name.into());
        }
    }
    details.join(" ")
}

/// Lines with columns as wide as what is in them; the last one is not padded.
fn align<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..COLUMNS).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}
