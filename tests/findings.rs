//! Every finding code stands in the users' table, once and in order.

/// The variants of `FindingCode` as users see them, from the source itself.
fn codes() -> Vec<String> {
    let source = include_str!("../src/model/finding.rs");
    let (_, body) = source.split_once("pub enum FindingCode {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let names = body.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let kebab = |name: &str| {
        let split = |(index, c): (usize, char)| {
            let hyphen = if index > 0 && c.is_ascii_uppercase() { "-" } else { "" };
            format!("{hyphen}{}", c.to_ascii_lowercase())
        };
        name.trim_end_matches(',').char_indices().map(split).collect::<String>()
    };
    let mut codes: Vec<String> = names.map(kebab).collect();
    codes.sort();
    codes
}

#[test]
fn the_table_of_findings_lists_every_code_once_and_sorted() {
    let table = include_str!("../docs/findings.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let listed: Vec<&str> = rows.map(|(code, _)| code).collect();
    assert_eq!(listed, codes());
    assert!(codes().contains(&stor::model::FindingCode::NonceNotSeen.to_string()));
}
