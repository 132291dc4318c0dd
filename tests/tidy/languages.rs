//! The table of languages in the READMEs. It has a row for each language of `plugin new`, in the format of
//! `plugins/conformance/run --table`, and is the same in both files.

/// Name in the table, and argument of `plugin new --lang`.
const LANGUAGES: [(&str, &str); 6] =
    [("Rust", "rust"), ("C", "c"), ("Go", "go"), ("TypeScript", "ts"), ("JavaScript", "js"), ("Python", "python")];

/// The rows follow this line.
const HEAD: &str = "|---|---:|---:|---:|---:|";

/// The faults of the table in this README.
pub fn faults(readme: &str, rows: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let names: Vec<&str> = rows.iter().filter_map(|row| cells(row).first().copied()).collect();
    let expected: Vec<&str> = LANGUAGES.iter().map(|(name, _)| *name).collect();
    if names != expected {
        faults.push(format!("{readme}: expected rows {expected:?}, got {names:?}"));
    }
    for row in rows {
        let forms: [&[&str]; 4] = [&["KiB", "MiB"], &["µs"], &["/ µs"], &["MiB"]];
        let cells = cells(row);
        let fits = cells.len() == 5 && cells[1..].iter().zip(forms).all(|(cell, units)| has_form(cell, units));
        if !fits {
            faults.push(format!("{readme}: not as plugins/conformance/run --table writes it: {row}"));
        }
    }
    faults
}

/// The rows of the table of languages.
pub fn rows(text: &str) -> Vec<&str> {
    text.lines().skip_while(|line| *line != HEAD).skip(1).take_while(|line| line.starts_with('|')).collect()
}

/// The languages in the source of `plugin new` that are missing from the table.
pub fn missing(new: &str) -> Vec<String> {
    let words =
        new.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1.strip_suffix("\","));
    let words = words.take_while(|word| !word.contains('/'));
    words.filter(|word| !LANGUAGES.iter().any(|(_, known)| known == word)).map(str::to_owned).collect()
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// True for one number and a unit, or for two numbers with a bar if the unit begins with one.
fn has_form(cell: &str, units: &[&str]) -> bool {
    let Some((numbers, unit)) = cell.rsplit_once(' ') else { return false };
    let is_number = |text: &str| text.parse::<f64>().is_ok_and(|number| number > 0.0);
    units.iter().any(|wanted| match wanted.strip_prefix("/ ") {
        Some(wanted) => {
            unit == wanted && numbers.split_once(" / ").is_some_and(|(one, two)| is_number(one) && is_number(two))
        }
        None => unit == *wanted && is_number(numbers),
    })
}
