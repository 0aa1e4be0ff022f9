//! A table whose columns are as wide as what is in them.

/// To which side a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows under heads, all with as many cells.
#[derive(Debug)]
pub(super) struct Table<const COLUMNS: usize> {
    sides: [Side; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with its heads alone.
    pub(super) fn new(heads: [(&str, Side); COLUMNS]) -> Self {
        Self { sides: heads.map(|(_, side)| side), rows: vec![heads.map(|(head, _)| head.into())] }
    }

    pub(super) fn push(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row);
    }

    /// Its lines, without spaces at their ends.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        self.rows.iter().map(move |row| {
            let cells = row.iter().zip(self.sides).zip(widths);
            let cells = cells.map(|((cell, side), width)| match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("A", Side::Left), ("N", Side::Right), ("LAST", Side::Left)]);
        table.push(["äöü".to_owned(), "7".to_owned(), String::new()]);
        table.push(["b".to_owned(), "1199".to_owned(), "end".to_owned()]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines, ["A       N  LAST", "äöü     7", "b    1199  end"]);
    }
}
