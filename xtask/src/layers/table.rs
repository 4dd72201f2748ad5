//! The table of layers, read from Markdown.

use std::collections::BTreeMap;

const HEADING: &str = "## Layers";
/// The column that names the modules, each in backticks.
const MODULES: &str = "modules";

pub(super) struct Row {
    /// From the top.
    pub(super) number: usize,
    pub(super) name: String,
    /// In the Markdown file, from 1 on.
    pub(super) line: usize,
}

pub(super) struct Table {
    /// The line of its head.
    pub(super) line: usize,
    rows: Vec<Row>,
    /// The index of each module's row.
    modules: BTreeMap<String, usize>,
}

impl Table {
    /// Fails with a line and a sentence.
    pub(super) fn parse(markdown: &str) -> Result<Self, (usize, String)> {
        let lines = markdown.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let section = lines.skip_while(|(_, line)| *line != HEADING).skip(1);
        let section = section.take_while(|(_, line)| !line.starts_with("## "));
        let mut lines = section.skip_while(|(_, line)| !line.starts_with('|'));
        let missing = || (1, format!("there is no table `| layer | {MODULES} |` under `{HEADING}`"));
        let (head_line, head) = lines.next().ok_or_else(missing)?;
        let column = cells(head).position(|cell| cell == MODULES).ok_or_else(missing)?;
        let mut table = Self { line: head_line, rows: Vec::new(), modules: BTreeMap::new() };
        // The line after the head separates it from the rows.
        for (line, text) in lines.skip(1).take_while(|(_, line)| line.starts_with('|')) {
            let number = table.rows.len();
            for module in cells(text).nth(column).unwrap_or_default().split('`').skip(1).step_by(2) {
                if table.modules.insert(module.to_owned(), number).is_some() {
                    return Err((line, format!("the module `{module}` stands in two rows")));
                }
            }
            let name = cells(text).next().unwrap_or_default().to_owned();
            table.rows.push(Row { number, name, line });
        }
        Ok(table)
    }

    pub(super) fn row(&self, module: &str) -> Option<&Row> {
        self.modules.get(module).map(|number| &self.rows[*number])
    }

    /// Returns each module with its row.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.modules.iter().map(|(module, number)| (module.as_str(), &self.rows[*number]))
    }
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.trim_matches('|').split('|').map(str::trim)
}
