//! What `status` prints, and how it ends.

use keyward_proto::peer::Trouble;

use super::{Asked, Names, StatusReport, from_nodes, table, verdict};

/// What is printed, and how the program ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    pub text: String,
    pub exit_code: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Table,
    Json,
}

/// What the operator is shown.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    /// The addresses of sentinels that were asked, and what was said of those that did not answer.
    pub(crate) sentinels: &'a [String],
    pub(crate) failures: Vec<String>,
    pub(crate) names: Names,
    pub(crate) form: Form,
}

impl Shown<'_> {
    /// A sentinel's report, as it came.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn report(self, body: String) -> Result<Printed, String> {
        let report = serde_json::from_str(&body).map_err(|e| format!("the answer is not understood: {e}"))?;
        Ok(self.print(&report, body))
    }

    /// No sentinel has answered, but perhaps nodes have.
    ///
    /// # Errors
    /// Nobody has: a line for each that was asked.
    pub(crate) fn nodes(mut self, asked: &[Asked]) -> Result<Printed, String> {
        if !asked.iter().any(|a| a.answer.is_ok()) {
            self.failures.extend(asked.iter().filter_map(|a| {
                let trouble = a.answer.as_ref().err()?;
                let name = a.name.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
                Some(format!("can't reach the node {name}at {}: {}", a.bus_address, of_node(trouble)))
            }));
            return Err(self.failures.join("\n"));
        }
        let report = from_nodes(self.sentinels, asked);
        let body = serde_json::to_string(&report).map_err(|e| e.to_string())?;
        Ok(self.print(&report, body))
    }

    fn print(self, report: &StatusReport, body: String) -> Printed {
        let exit_code = verdict(&report.find_problems(&self.names)) as u8;
        let text = match self.form {
            Form::Json => body,
            Form::Table => {
                let said: String = self.failures.iter().map(|line| format!("{line}\n")).collect();
                let gap = if said.is_empty() { "" } else { "\n" };
                format!("{said}{gap}{}", table(report, &self.names))
            }
        };
        Printed { text, exit_code }
    }
}

/// The words of [`Trouble`] are those for sentinels.
fn of_node(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Wrong(_) => "that is not the bus port of a node".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::peer::Speaks;
    use keyward_proto::rpc;

    use super::*;

    const BODY: &str = r#"{"version":1,"sentinels":[],"shards":[],"spares":[],"majority":true}"#;

    fn shown(form: Form) -> Shown<'static> {
        let failures = vec!["can't reach a sentinel at h:1: no answer".to_owned()];
        Shown { sentinels: &[], failures, names: Names::new(), form }
    }

    #[test]
    fn a_report_is_shown_as_it_came_or_as_a_table_behind_what_failed() {
        let json = shown(Form::Json).report(BODY.into()).unwrap();
        assert_eq!(json, Printed { text: BODY.into(), exit_code: 4 });
        let table = shown(Form::Table).report(BODY.into()).unwrap();
        assert!(table.text.starts_with("can't reach a sentinel at h:1: no answer\n\nSENTINEL"), "{table:?}");
        assert!(
            shown(Form::Json).report("x".into()).unwrap_err().starts_with("the answer is not understood")
        );
    }

    #[test]
    fn nodes_are_shown_if_one_answers() {
        let asked = |answer| Asked { name: Some("n1".into()), bus_address: "h:2".into(), answer };
        let error = shown(Form::Table).nodes(&[asked(Err(Trouble::Wrong(Speaks::Http)))]).unwrap_err();
        let (first, second) = error.split_once('\n').unwrap();
        assert_eq!(first, "can't reach a sentinel at h:1: no answer");
        assert_eq!(second, "can't reach the node n1 at h:2: that is not the bus port of a node");
        let node = || asked(Ok(rpc::NodeStatus { node_id: "ab".repeat(20), ..Default::default() }));
        let json = shown(Form::Json).nodes(&[node()]).unwrap();
        assert!(json.text.contains(r#""from_nodes":true"#) && json.exit_code == 4, "{json:?}");
        assert!(shown(Form::Table).nodes(&[node()]).unwrap().text.contains("nodes without a shard"));
    }
}
