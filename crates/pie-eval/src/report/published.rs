//! The paper's own rows of tables 2 to 4. What is not legible in its published text is left empty.

use crate::names::{Language, Method, Setting, Task};

const ROWS: &str = include_str!("published.csv");

/// One row of one table.
pub(super) struct PaperRow {
    /// The table: 2 is insertion, 3 deletion, 4 edition.
    pub task: Task,
    /// The language of the samples.
    pub language: Language,
    /// The model as the paper calls it.
    pub model: &'static str,
    /// How the cache followed the edit.
    pub method: Method,
    /// For each setting: exact match, edit similarity, milliseconds.
    cells: [[Option<f64>; 3]; 3],
}

impl PaperRow {
    /// Exact match, edit similarity, milliseconds.
    pub fn cell(&self, setting: Setting) -> [Option<f64>; 3] {
        self.cells[setting as usize]
    }
}

/// All rows, as the paper orders them.
pub(super) fn rows() -> impl Iterator<Item = PaperRow> {
    // A test reads every row.
    ROWS.lines().skip(1).filter_map(row)
}

fn row(line: &'static str) -> Option<PaperRow> {
    let fields: Vec<&str> = line.split(',').collect();
    let &[task, language, model, method, ref numbers @ ..] = fields.as_slice() else { return None };
    let mut cells = [[None; 3]; 3];
    for (place, number) in numbers.iter().enumerate().take(9) {
        cells[place / 3][place % 3] = number.parse().ok();
    }
    Some(PaperRow {
        task: task.parse().ok()?,
        language: language.parse().ok()?,
        model,
        method: method.parse().ok()?,
        cells,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_rows_are_all_there() {
        let rows: Vec<_> = rows().collect();
        assert_eq!(rows.len(), ROWS.lines().count() - 1);
        assert_eq!(rows.len(), 3 * 2 * 3 * 3, "tables, languages, models, methods");
        let empty = rows.iter().flat_map(|row| row.cells.iter().flatten()).filter(|cell| cell.is_none());
        assert_eq!(
            empty.count(),
            3,
            "table 4, Python, 1.3B, Conflict: two scores and a time are not legible"
        );
        let full = rows.iter().filter(|row| row.method == Method::Full && row.model.ends_with("6.7B"));
        let python = full.filter(|row| row.language == Language::Python);
        for row in python {
            assert_eq!(row.cell(Setting::CrossFileFirst)[..2], [Some(28.95), Some(70.11)]);
        }
    }
}
