//! How well labels were transferred, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::text;
use crate::job::request::{Evaluation, LabelScore};

/// The scores for a program.
pub fn json(found: &Evaluation) -> Value {
    let label = |score: &LabelScore| {
        json!({
            "name": score.name,
            "support": score.support,
            "precision": score.precision,
            "recall": score.recall,
            "f1": score.f1,
        })
    };
    json!({
        "rows": found.rows,
        "accuracy": found.accuracy,
        "precision": found.precision,
        "recall": found.recall,
        "f1_weighted": found.f1_weighted,
        "f1_macro": found.f1_macro,
        "excluded_fraction": found.excluded_fraction,
        "labels": found.labels.iter().map(label).collect::<Vec<_>>(),
    })
}

/// The scores for a person.
pub fn page(found: &Evaluation) -> String {
    if found.rows == 0 {
        return "No cell could be compared: none has both a known label and a transferred one that is sure enough.\n"
            .to_owned();
    }
    let mut page = format!(
        "{} of the labels are right ({} compared",
        text::percent(found.accuracy),
        text::counted(found.rows, "cell")
    );
    if found.excluded_fraction > 0.0 {
        let _ = write!(page, ", {} left out as unsure", text::percent(found.excluded_fraction));
    }
    page.push_str(").\n");
    if found.accuracy == 0.0 {
        page.push_str("Not one is right: are the two columns the same annotation, with the same names?\n");
    }
    page.push('\n');
    page.push_str(&text::table(&["label", "cells", "precision", "recall", "F1"], &rows(found), &[1, 2, 3, 4]));
    page.push_str(
        "\nprecision: of the cells given this label, how many have it; recall: of the cells that have it, how many got it.\n",
    );
    page
}

fn rows(found: &Evaluation) -> Vec<Vec<String>> {
    let score = |value: f64| format!("{value:.3}");
    let mut labels: Vec<&LabelScore> = found.labels.iter().collect();
    labels.sort_by_key(|label| std::cmp::Reverse(label.support));
    let mut rows: Vec<Vec<String>> = labels
        .into_iter()
        .map(|l| vec![l.name.clone(), text::count(l.support), score(l.precision), score(l.recall), score(l.f1)])
        .collect();
    let cells = text::count(found.rows);
    let (precision, recall) = (score(found.precision), score(found.recall));
    rows.push(vec!["all, by size".to_owned(), cells.clone(), precision, recall, score(found.f1_weighted)]);
    rows.push(vec!["all, each alike".to_owned(), cells, String::new(), String::new(), score(found.f1_macro)]);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Evaluation {
        let label =
            |name: &str, support, f1| LabelScore { name: name.to_owned(), support, precision: 1.0, recall: 0.5, f1 };
        Evaluation {
            accuracy: 0.914,
            rows: 1350,
            excluded_fraction: 0.1,
            f1_macro: 0.25,
            labels: vec![label("B", 100, 0.1), label("CD4 T", 1250, 0.2)],
            ..Evaluation::default()
        }
    }

    #[test]
    fn the_table_begins_with_the_largest_label_and_ends_with_the_means() {
        let page = page(&found());
        assert!(page.starts_with("91.4 % of the labels are right (1,350 cells compared, 10.0 % left out"), "{page}");
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text} in {page}"));
        assert!(at("CD4 T") < at("B  ") && at("B  ") < at("all, by size") && at("all, by size") < at("0.250"));
    }

    #[test]
    fn labels_of_another_kind_are_suspected() {
        assert!(!page(&found()).contains("same annotation"));
        assert!(page(&Evaluation { accuracy: 0.0, ..found() }).contains("same annotation"));
    }

    #[test]
    fn nothing_compared_is_said_and_not_a_table_of_zeros() {
        assert!(page(&Evaluation::default()).starts_with("No cell could be compared"));
    }

    #[test]
    fn json_has_every_score_and_every_label() {
        let value = json(&found());
        let keys: Vec<&String> = value.as_object().expect("object").keys().collect();
        let wanted =
            ["rows", "accuracy", "precision", "recall", "f1_weighted", "f1_macro", "excluded_fraction", "labels"];
        assert_eq!(keys, wanted);
        assert_eq!(value["labels"][1]["name"], "CD4 T");
        assert_eq!(value["labels"][1]["support"], 1250);
    }
}
