//! What a bench found as a page: one file, drawn with SVG, that needs nothing else.

use std::fmt::Write as _;

use super::clients::TIMED;
use super::report::Report;

/// Of a plot, in units of its view box.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const MARGIN: f64 = 60.0;

/// Shares of operations that were no slower, as they stand under the plot of latencies.
const QUANTILES: [(f64, &str); 7] = [
    (0.0, "fastest"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
    (1.0, "slowest"),
];
const COLORS: [&str; 4] = ["#2a6f97", "#c1502e", "#4a8c3f", "#7a4a9e"];

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>ringcask bench</title><style>\
body{font:15px/1.5 system-ui,sans-serif;max-width:52em;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}svg{width:100%;height:auto}\
text{font:12px system-ui,sans-serif;fill:#555}table{border-collapse:collapse}\
td,th{padding:.15em .9em .15em 0;text-align:left;font-weight:normal}td{font-variant-numeric:tabular-nums}\
.axis{stroke:#bbb}</style>";

pub(super) fn page(report: &Report<'_>) -> String {
    let mut page = HEAD.to_owned();
    let found = report.json();
    page.push_str("<h1>ringcask bench</h1>");
    timeline(&mut page, &report.mixed.timeline);
    latencies(&mut page, report);
    for (name, title) in
        [("", "Store"), ("load", "Load"), ("mix", "Mix"), ("engine", "Engine"), ("open", "Open")]
    {
        let part = if name.is_empty() { &found } else { &found[name] };
        let Some(fields) = part.as_object() else { continue };
        let _ = write!(page, "<h2>{title}</h2><table>");
        for (name, value) in
            fields.iter().filter(|(_, value)| !value.is_object() && !value.is_array())
        {
            let text = match (value.as_str(), value.as_f64()) {
                (Some(text), _) => text.to_owned(),
                (None, Some(number)) if value.is_f64() => format!("{number:.2}"),
                _ => value.to_string(),
            };
            let _ =
                write!(page, "<tr><th>{}<td>{}", escaped(&name.replace('_', " ")), escaped(&text));
        }
        page.push_str("</table>");
    }
    page.push_str("</html>\n");
    page
}

/// Operations of each second.
fn timeline(page: &mut String, counts: &[u64]) {
    page.push_str("<h2>Operations of each second</h2>");
    let most = counts.iter().copied().max().unwrap_or_default();
    if counts.len() < 2 || most == 0 {
        page.push_str("<p>It ran for less than two seconds.</p>");
        return;
    }
    begin_plot(page);
    for part in 0..=4_u64 {
        let value = most * part / 4;
        gridline(page, value as f64 / most as f64, &value.to_string());
    }
    let step = (WIDTH - MARGIN) / (counts.len() - 1) as f64;
    let points = counts
        .iter()
        .enumerate()
        .map(|(second, count)| (MARGIN + second as f64 * step, *count as f64 / most as f64));
    line(page, COLORS[0], points);
    label(page, MARGIN, "1 s");
    label(page, WIDTH - MARGIN / 2.0, &format!("{} s", counts.len()));
    page.push_str("</svg>");
}

/// Latencies by share of the operations, with each tenfold equally high.
fn latencies(page: &mut String, report: &Report<'_>) {
    let all =
        TIMED.map(|timed| (timed.name(report.args.write()), report.mixed.latencies.of(timed)));
    let shown: Vec<_> = all.iter().filter(|(_, latencies)| !latencies.is_empty()).collect();
    page.push_str("<h2>Latency</h2>");
    let least = shown.iter().map(|(_, latencies)| latencies.min().max(1)).min().unwrap_or(1);
    let most = shown.iter().map(|(_, latencies)| latencies.max()).max().unwrap_or(1);
    let low = (least as f64).log10().floor();
    let high = (most as f64).log10().ceil().max(low + 1.0);
    let height = |nanos: f64| (nanos.max(1.0).log10() - low) / (high - low);
    begin_plot(page);
    let mut power = low;
    while power <= high {
        gridline(page, height(10_f64.powf(power)), &time_words(10_f64.powf(power)));
        power += 1.0;
    }
    let step = (WIDTH - MARGIN * 2.0) / (QUANTILES.len() - 1) as f64;
    for ((_, latencies), color) in shown.iter().zip(COLORS) {
        let points = QUANTILES.iter().enumerate().map(|(index, (quantile, _))| {
            let nanos = latencies.value_at_quantile(*quantile) as f64;
            (MARGIN + index as f64 * step, height(nanos))
        });
        line(page, color, points);
    }
    for (index, (_, name)) in QUANTILES.iter().enumerate() {
        label(page, MARGIN + index as f64 * step, name);
    }
    page.push_str("</svg><table><tr><th>");
    for (_, name) in QUANTILES {
        let _ = write!(page, "<th>{name}");
    }
    for ((name, latencies), color) in shown.iter().zip(COLORS) {
        let _ = write!(page, "<tr><th style=\"color:{color}\">{}", escaped(name));
        for (quantile, _) in QUANTILES {
            let _ =
                write!(page, "<td>{}", time_words(latencies.value_at_quantile(quantile) as f64));
        }
    }
    page.push_str("</table>");
}

fn begin_plot(page: &mut String) {
    let _ = write!(page, "<svg viewBox=\"0 -10 {WIDTH} {}\" role=img>", HEIGHT + 40.0);
}

/// A line across the plot at a share of its height.
fn gridline(page: &mut String, share: f64, name: &str) {
    let y = HEIGHT * (1.0 - share);
    let _ = write!(
        page,
        "<line class=axis x1={MARGIN} x2={WIDTH} y1={y:.1} y2={y:.1} />\
         <text x={} y={:.1} text-anchor=end>{name}</text>",
        MARGIN - 6.0,
        y + 4.0
    );
}

fn line(page: &mut String, color: &str, points: impl Iterator<Item = (f64, f64)>) {
    let _ = write!(page, "<polyline fill=none stroke-width=2 stroke=\"{color}\" points=\"");
    for (x, share) in points {
        let _ = write!(page, "{x:.1},{:.1} ", HEIGHT * (1.0 - share));
    }
    page.push_str("\" />");
}

/// Under the plot.
fn label(page: &mut String, x: f64, name: &str) {
    let _ = write!(page, "<text x={x:.1} y={} text-anchor=middle>{name}</text>", HEIGHT + 18.0);
}

fn time_words(nanos: f64) -> String {
    match nanos {
        nanos if nanos < 1e3 => format!("{nanos:.0} ns"),
        nanos if nanos < 1e6 => format!("{:.3} µs", nanos / 1e3).replace(".000", ""),
        nanos if nanos < 1e9 => format!("{:.3} ms", nanos / 1e6).replace(".000", ""),
        nanos => format!("{:.3} s", nanos / 1e9).replace(".000", ""),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
