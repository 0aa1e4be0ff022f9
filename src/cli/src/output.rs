//! What a command says when it has done what it was asked: short and aligned for people, exact for programs.

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::failure::Failure;
use crate::secret::presentable;

/// Between columns.
const GAP: usize = 2;
/// Stands for nothing.
pub(crate) const NONE: &str = "-";

/// The same twice: for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// For people, without the last line's end.
    pub(crate) human: String,
    /// For programs: one JSON document in one line.
    pub(crate) json: String,
    /// What went wrong beside what was asked.
    pub(crate) warning: Option<String>,
}

impl Output {
    /// What `value` is, in both ways.
    pub(crate) fn new(human: impl Into<String>, value: &impl Serialize) -> Result<Self, Failure> {
        let json = serde_json::to_string(value)
            .map_err(|_| Failure::input("output", "the answer cannot be written as JSON"))?;
        Ok(Self { human: human.into(), json, warning: None })
    }
}

/// Rows in columns that are as wide as their widest cell. Cells are made presentable here, all of them.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| presentable(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let lines = rows.iter().map(|row| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| {
            let gap = (width + GAP).saturating_sub(cell.width());
            format!("{cell}{}", " ".repeat(gap))
        });
        padded.collect::<Vec<_>>().concat().trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Names and what they stand for, one a line.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let rows: Vec<_> =
        fields.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
    aligned(&rows)
}

/// An amount in USD as people write it.
pub(crate) fn usd(decimal: &str) -> String {
    match decimal.strip_prefix('-') {
        Some(rest) => format!("-${rest}"),
        None => format!("${decimal}"),
    }
}

/// What may not be there.
pub(crate) fn or_none(value: Option<&String>) -> String {
    value.cloned().unwrap_or_else(|| NONE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_aligned_in_any_script() {
        let rows = [row(&["NAME", "N"]), row(&["东京", "1"]), row(&["a", "22"])];
        assert_eq!(aligned(&rows), "NAME  N\n东京  1\na     22");
    }

    #[test]
    fn a_name_cannot_write_elsewhere() {
        assert_eq!(aligned(&[row(&["a\x1b[A\nb"])]), "a\u{fffd}[A b");
    }

    #[test]
    fn amounts() {
        assert_eq!((usd("5.00"), usd("-1")), ("$5.00".to_owned(), "-$1".to_owned()));
    }
}
