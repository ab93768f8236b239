//! The paper's tables 2, 3 and 4.

use super::published::{self, PaperRow};
use super::summary::{Cell, Score, Summary};
use crate::names::{Language, Method, Setting, Task};
use std::fmt::Write;

/// The number of a task's table, if the paper has it.
fn table(task: Task) -> Option<u32> {
    match task {
        Task::Insertion => Some(2),
        Task::Deletion => Some(3),
        Task::Edition => Some(4),
        Task::Cursor => None,
    }
}

fn title(task: Task) -> String {
    match table(task) {
        Some(number) => format!("Table {number}: {task}"),
        None => {
            "Beyond the paper: filling in a line at the cursor, just behind an insertion near it".to_owned()
        }
    }
}

pub(super) fn markdown(summary: &Summary) -> String {
    let mut page = String::new();
    let (samples, seeds) = summary.size();
    let _ = writeln!(page, "# What PIE costs in quality and gains in time\n");
    if let Some(header) = &summary.header {
        let parameters = header.parameters as f64 / 1e6;
        let _ = writeln!(
            page,
            "Model `{}` ({parameters:.1} M parameters, f32), data `{}`: {samples} samples of each setting, {seeds} \
             seed(s), contexts up to {} tokens. {} of {} samples lost lines in front to fit.\n",
            header.model, header.data, header.context, summary.cut.0, summary.cut.1
        );
    }
    let _ = writeln!(
        page,
        "Made by `{}`; drawn again, without computing, by `pie eval report FOLDER`.\n",
        summary.command()
    );
    page.push_str(
        "EM is the share of predictions whose words equal those of the line, ES the mean of fuzzywuzzy's ratio as \
         RepoBench's requirements install it, with difflib (`tables.csv` has python-Levenshtein's beside it, which is never \
         less); both in percent. `±` is the standard deviation between seeds. Time is the median over the cases that all \
         methods ran, from the edit's token splices to the logits of the first token: slot tables, turning, encoding, one rank. (Here the pass that \
         encodes an edit gives the next token's logits too; the paper's time is the cache's alone. Tokenizing is in \
         neither.) Rows of DeepSeek-Coder are the paper's, on A100 GPUs.\n\n",
    );
    if let Some(window) = summary.window {
        let _ = writeln!(
            page,
            "*PIE and repair* encodes {window} of the kept tokens again, right behind the edited places and in the edit's own pass.\n"
        );
    }
    gains(summary, &mut page);
    for task in Task::ALL {
        if *task == Task::Cursor && !summary.cells.keys().any(|(known, ..)| known == task) {
            continue;
        }
        let _ = writeln!(page, "## {}\n", title(*task));
        let heads: String = Setting::ALL
            .iter()
            .map(|setting| format!(" {0} EM | {0} ES | {0} time |", setting.label()))
            .collect();
        let _ = writeln!(page, "| language | model | method |{heads}");
        let _ = writeln!(page, "| --- | --- | --- |{}", " ---: |".repeat(9));
        for language in Language::ALL {
            ours(summary, *task, *language, &mut page);
            let of_table = |row: &PaperRow| row.task == *task && row.language == *language;
            published::rows().filter(of_table).for_each(|row| theirs(&row, &mut page));
        }
        page.push('\n');
    }
    page
}

/// Time and quality of what keeps rows against `full`, all settings together.
fn gains(summary: &Summary, page: &mut String) {
    page.push_str("| task | language | method | time saved | tokens encoded, full → method | EM, method − full | ES, method − full |\n");
    page.push_str("| --- | --- | --- | ---: | ---: | ---: | ---: |\n");
    for task in Task::ALL {
        for language in Language::ALL {
            for method in [Method::Pie, Method::Repair] {
                gain(summary, *task, *language, method, page);
            }
        }
    }
    page.push('\n');
}

fn gain(summary: &Summary, task: Task, language: Language, method: Method, page: &mut String) {
    let pair = |setting: &Setting| {
        let of = |method| summary.cells.get(&(task, language, method, *setting));
        Some((of(Method::Full)?, of(method)?))
    };
    let pairs: Vec<(&Cell, &Cell)> = Setting::ALL.iter().filter_map(pair).collect();
    if pairs.is_empty() {
        return;
    }
    let mean = |of: fn(&Cell) -> f64| {
        pairs.iter().map(|(full, kept)| of(kept) - of(full)).sum::<f64>() / pairs.len() as f64
    };
    let _ = writeln!(
        page,
        "| {task} | {} | {} | {} | {:+.2} | {:+.2} |",
        language.label(),
        method.label(),
        saved(&pairs),
        mean(|cell| cell.exact_match.mean),
        mean(|cell| cell.edit_similarity.mean),
    );
}

fn saved(pairs: &[(&Cell, &Cell)]) -> String {
    let timed: Vec<_> = pairs.iter().filter(|(full, pie)| full.timed > 0 && pie.timed > 0).collect();
    if timed.is_empty() {
        return "not timed | ".to_owned();
    }
    let mean = |of: fn(&Cell, &Cell) -> f64| {
        timed.iter().map(|(full, pie)| of(full, pie)).sum::<f64>() / timed.len() as f64
    };
    let share = mean(|full, pie| 1.0 - pie.median_ms / full.median_ms);
    let (full, pie) = (mean(|full, _| full.encoded), mean(|_, pie| pie.encoded));
    format!("{:.1} % | {full:.0} → {pie:.0}", 100.0 * share)
}

fn ours(summary: &Summary, task: Task, language: Language, page: &mut String) {
    for method in Method::ALL {
        let cells: Vec<_> = Setting::ALL
            .iter()
            .map(|setting| summary.cells.get(&(task, language, *method, *setting)))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(page, "| {} | **{}** | {} |", language.label(), summary.model(), method.label());
        for cell in cells {
            match cell {
                Some(cell) => {
                    let (em, es) = (score(cell.exact_match), score(cell.edit_similarity));
                    let time =
                        if cell.timed > 0 { format!("{:.1} ms", cell.median_ms) } else { String::new() };
                    let _ = write!(page, " {em} | {es} | {time} |");
                }
                None => page.push_str(" | | |"),
            }
        }
        page.push('\n');
    }
}

fn score(score: Score) -> String {
    match score.spread {
        Some(spread) => format!("{:.2} ± {spread:.2}", score.mean),
        None => format!("{:.2}", score.mean),
    }
}

fn theirs(row: &PaperRow, page: &mut String) {
    let _ = write!(page, "| {} | {} | {} |", row.language.label(), row.model, row.method.label());
    for setting in Setting::ALL {
        let [em, es, ms] = row.cell(*setting);
        let number = |number: Option<f64>| number.map(|number| format!("{number:.2}")).unwrap_or_default();
        let time = ms.map(|ms| format!("{ms:.0} ms")).unwrap_or_default();
        let _ = write!(page, " {} | {} | {time} |", number(em), number(es));
    }
    page.push('\n');
}

pub(super) fn csv(summary: &Summary) -> String {
    let mut page = String::from(
        "table,task,language,model,source,method,setting,samples,seeds,timed_cases,exact_match,exact_match_spread,edit_similarity,\
         edit_similarity_spread,edit_similarity_levenshtein,median_ms,mean_ms,encoded,rotated,tokens\n",
    );
    let number = |task: Task| table(task).map(|number| number.to_string()).unwrap_or_default();
    let spread = |score: &Score| score.spread.map(|spread| format!("{spread:.4}")).unwrap_or_default();
    for ((task, language, method, setting), cell) in &summary.cells {
        let _ = writeln!(
            page,
            "{},{task},{language},{},measured,{method},{setting},{},{},{},{:.4},{},{:.4},{},{:.4},{},{:.1}",
            number(*task),
            summary.model(),
            cell.samples,
            cell.seeds,
            cell.timed,
            cell.exact_match.mean,
            spread(&cell.exact_match),
            cell.edit_similarity.mean,
            spread(&cell.edit_similarity),
            cell.levenshtein.mean,
            work(cell),
            cell.tokens,
        );
    }
    for row in published::rows() {
        for setting in Setting::ALL {
            let cell = row.cell(*setting).map(|number| number.map(|n| n.to_string()).unwrap_or_default());
            let [em, es, ms] = cell;
            let PaperRow { task, language, model, method, .. } = &row;
            let number = number(*task);
            let _ = writeln!(
                page,
                "{number},{task},{language},{model},paper,{method},{setting},,,,{em},,{es},,,,{ms},,,"
            );
        }
    }
    page
}

fn work(cell: &Cell) -> String {
    if cell.timed == 0 {
        return ",,,".to_owned();
    }
    format!("{:.3},{:.3},{:.1},{:.1}", cell.median_ms, cell.mean_ms, cell.encoded, cell.rotated)
}
