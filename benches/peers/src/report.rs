//! The table, the JSON and the page.

use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Machine;
use crate::peers::OURS;
use crate::rows::Row;
use crate::run::{Measured, Plan, class_name};

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    turns: u32,
    seconds: u64,
    records: u64,
    rows: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    row: &'static str,
    title: &'static str,
    class: &'static str,
    value_bytes: usize,
    measured: Vec<Measured>,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Target {
    of: &'static str,
    beside: &'static str,
    ratio: Option<f64>,
    aimed_at: f64,
}

impl Report {
    pub fn begin(machine: Machine, plan: &Plan<'_>) -> Report {
        let Plan { turns, seconds, records, .. } = *plan;
        println!(
            "{}, {} cores, {}, kernel {}",
            machine.cpu, machine.cores, machine.memory, machine.kernel
        );
        println!("{}; {turns} turns of {seconds} s, medians (lowest to highest)", machine.disk);
        Report { machine, turns, seconds, records, rows: Vec::new() }
    }

    pub fn add(&mut self, row: &Row, measured: Vec<Measured>) {
        let rate_of = |name: &str| {
            let rates = measured.iter().filter(|one| one.left_out.is_none());
            match name {
                "best" => rates
                    .filter(|one| !OURS.contains(&one.name))
                    .map(Measured::median)
                    .max_by(f64::total_cmp),
                _ => rates.filter(|one| one.name == name).map(Measured::median).next(),
            }
        };
        let ours = OURS.into_iter().filter(|name| measured.iter().any(|one| one.name == *name));
        let target = |of: &'static str, (beside, aimed_at): &(&'static str, f64)| Target {
            of,
            beside,
            ratio: rate_of(of).zip(rate_of(beside)).map(|(ours, theirs)| ours / theirs),
            aimed_at: *aimed_at,
        };
        let targets =
            ours.flat_map(|of| row.targets.iter().map(move |beside| target(of, beside))).collect();
        self.rows.push(Shown {
            row: row.name,
            title: row.title,
            class: class_name(row.class),
            value_bytes: row.value_len,
            measured,
            targets,
        });
    }

    pub fn print_last(&self) {
        let Some(shown) = self.rows.last() else { return };
        println!(
            "\n{}  {} ({}, {} B values)",
            shown.row, shown.title, shown.class, shown.value_bytes
        );
        for one in &shown.measured {
            match &one.left_out {
                Some(why) => println!("  {:<15} -- {why}", one.name),
                None => {
                    let (low, high) = one.spread();
                    println!(
                        "  {:<15} {:>10} /s  ({} to {})  {} callers; {}",
                        one.name,
                        short(one.median()),
                        short(low),
                        short(high),
                        one.callers,
                        one.settings
                    );
                }
            }
        }
        for target in &shown.targets {
            match target.ratio {
                Some(ratio) => println!(
                    "  {} {:.2} x {}, aimed at {}: {}",
                    target.of,
                    ratio,
                    target.beside,
                    target.aimed_at,
                    if ratio >= target.aimed_at { "met" } else { "not met" }
                ),
                None => println!("  beside {}: not measured", target.beside),
            }
        }
    }

    /// A page that needs nothing but itself.
    pub fn html(&self) -> String {
        let mut page = String::from(HEAD);
        let machine = &self.machine;
        let _ = write!(
            page,
            "<p>{}, {} cores, {}, kernel {}, {}. {}. {} turns of {} s each, in turns; bars are medians, lines go \
             from the lowest to the highest turn.</p>",
            escaped(&machine.cpu),
            machine.cores,
            escaped(&machine.memory),
            escaped(&machine.kernel),
            escaped(&machine.disk),
            machine.date,
            self.turns,
            self.seconds
        );
        for shown in &self.rows {
            let _ = write!(
                page,
                "<h2>{} &middot; {}</h2><p>{}, values of {} bytes</p>",
                shown.row,
                escaped(shown.title),
                shown.class,
                shown.value_bytes
            );
            bars(&mut page, &shown.measured);
            page.push_str("<ul>");
            for target in &shown.targets {
                if let Some(ratio) = target.ratio {
                    let is_met = ratio >= target.aimed_at;
                    let _ = write!(
                        page,
                        "<li class={}>{} {ratio:.2} &times; {}, aimed at {}</li>",
                        if is_met { "met" } else { "missed" },
                        target.of,
                        target.beside,
                        target.aimed_at
                    );
                }
            }
            page.push_str("</ul>");
        }
        page.push_str("</body></html>\n");
        page
    }
}

fn bars(page: &mut String, measured: &[Measured]) {
    let most = measured.iter().map(|one| one.spread().1).fold(1.0, f64::max);
    page.push_str("<table>");
    for one in measured {
        let name = one.name;
        if let Some(why) = &one.left_out {
            let _ = write!(page, "<tr><th>{name}<td colspan=2><i>{}</i></tr>", escaped(why));
            continue;
        }
        let (low, high) = one.spread();
        let percent = |rate: f64| rate / most * 100.0;
        let _ = write!(
            page,
            "<tr><th>{name}<td class=bar><div class='{}' style='width:{:.2}%'></div>\
             <span style='left:{:.2}%;width:{:.2}%'></span><td>{} /s<br><small>{} callers; {}</small></tr>",
            if OURS.contains(&name) { "fill ours" } else { "fill" },
            percent(one.median()),
            percent(low),
            percent(high - low),
            short(one.median()),
            one.callers,
            escaped(&one.settings)
        );
    }
    page.push_str("</table>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Three digits are more than the machine can repeat.
fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e5 => format!("{:.0} k", rate / 1e3),
        rate if rate >= 1e3 => format!("{:.1} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

const HEAD: &str = "<!doctype html><html lang=en><head><meta charset=utf-8><title>Ringcask and its peers</title>\
<style>body{font:15px/1.4 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}\
h2{margin:1.6em 0 0;font-size:1.1em}p{margin:.2em 0;color:#555}table{width:100%;border-collapse:collapse}\
th{text-align:right;width:7em;padding:3px 8px;font-weight:500}td{padding:3px 8px;vertical-align:middle}\
td.bar{width:50%;position:relative}.fill{height:1.2em;background:#9ab}.fill.ours{background:#c60}\
td.bar span{position:absolute;top:50%;height:2px;margin-left:8px;background:#222}small{color:#777}\
.met{color:#060}.missed{color:#a00}</style></head><body><h1>Ringcask and its peers</h1>";
