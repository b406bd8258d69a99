//! The same load on a stock spire-server and on ours, in turn, each alone on the host: X.509-SVIDs
//! and JWT-SVIDs per second, attestations, what agents' syncs cost, memory, and how long a pod waits
//! until an agent holds its SVID.
//!
//! `make bench-spire`; 1,000 agents (`AGENTS`), 2 rounds (`ROUNDS`), 5 seconds for each rate
//! (`SECONDS`). Everything that this starts ends with it.

#![expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement, not the program"
)]

#[path = "../../tests/it/support/mod.rs"]
mod support;

mod client;
mod load;
mod pods;
mod servers;

use std::collections::BTreeMap;

use load::{Figures, Load};
use servers::Kind;

fn main() {
    // `cargo test --all-targets` runs benches too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let load = Load {
        agents: number("AGENTS", 1_000),
        seconds: number("SECONDS", 5) as u64,
    };
    let rounds = number("ROUNDS", 2);
    let kinds: &[Kind] = match std::env::var_os("ONLY") {
        Some(only) if only == "stock" => &[Kind::Stock],
        Some(only) if only == "ours" => &[Kind::Ours],
        _ => &[Kind::Stock, Kind::Ours],
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut all: BTreeMap<Kind, Vec<Figures>> = BTreeMap::new();
    for round in 1..=rounds {
        for &kind in kinds {
            println!("--- round {round}: {kind:?}");
            let figures = runtime.block_on(async {
                let mut figures = load.on(kind).await;
                pods::measure(kind, &mut figures).await;
                figures
            });
            all.entry(kind).or_default().push(figures);
        }
    }
    print(&all);
}

fn number(variable: &str, default: usize) -> usize {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.map_or(default, |value| {
        let number = value.to_str().and_then(|text| text.parse().ok());
        number.unwrap_or_else(|| panic!("{variable} is no number: {}", value.display()))
    })
}

/// The median of each figure, and ours over the stock one.
fn print(all: &BTreeMap<Kind, Vec<Figures>>) {
    println!(
        "\n{:<58} {:>12} {:>12} {:>8}",
        "median", "stock", "ours", "ratio"
    );
    let names = all
        .values()
        .flatten()
        .next()
        .into_iter()
        .flat_map(Figures::names);
    for name in names {
        let median = |kind| {
            let figures = all.get(&kind)?.iter();
            let mut values: Vec<_> = figures.filter_map(|figures| figures.get(name)).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let (stock, ours) = (median(Kind::Stock), median(Kind::Ours));
        let shown = |value: Option<f64>| value.map_or_else(String::new, |it| format!("{it:.2}"));
        let ratio = stock.zip(ours).map(|(stock, ours)| ours / stock);
        println!(
            "{name:<58} {:>12} {:>12} {:>8}",
            shown(stock),
            shown(ours),
            shown(ratio)
        );
    }
}
