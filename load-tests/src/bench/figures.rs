//! What was measured, and what it has to be.

use std::fmt;

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// In which unit.
    pub unit: &'static str,
    /// What it has to be; `None` for what is only told.
    pub bound: Option<Bound>,
}

impl Figure {
    /// Whether it is what it has to be.
    pub fn holds(&self) -> bool {
        self.bound.is_none_or(|bound| bound.holds(self.value))
    }
}

/// The result of one scenario.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Its name.
    pub title: String,
    /// What was configured, a line each.
    pub configured: Vec<String>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What is wrong, whatever the figures are: transactions that were lost or doubled, Signs that nobody can account for.
    pub wrong: Vec<String>,
}

impl Report {
    /// A report without figures yet.
    pub fn new(title: &str, configured: Vec<String>) -> Self {
        Self { title: title.into(), configured, ..Self::default() }
    }

    /// Adds what is only told.
    pub fn tell(&mut self, name: &str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit, bound: None });
    }

    /// Adds what has a bound.
    pub fn hold(&mut self, name: &str, value: f64, unit: &'static str, bound: Bound) {
        self.figures.push(Figure { name: name.into(), value, unit, bound: Some(bound) });
    }

    /// Whether every bound is kept and nothing is wrong.
    pub fn passes(&self) -> bool {
        self.wrong.is_empty() && self.figures.iter().all(Figure::holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for line in &self.configured {
            writeln!(f, "  {line}")?;
        }
        for figure in &self.figures {
            let Figure { name, value, unit, bound } = figure;
            let verdict = match bound {
                Some(Bound::AtLeast(least)) => format!("at least {least}  {}", if figure.holds() { "PASS" } else { "FAIL" }),
                Some(Bound::AtMost(most)) => format!("at most {most}  {}", if figure.holds() { "PASS" } else { "FAIL" }),
                None => String::new(),
            };
            let line = format!("{name:<44} {value:>12.2} {unit:<8} {verdict}");
            writeln!(f, "  {}", line.trim_end())?;
        }
        for words in &self.wrong {
            writeln!(f, "  WRONG: {words}")?;
        }
        write!(f, "  {}: {}", self.title, if self.passes() { "PASS" } else { "FAIL" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_passes_if_every_bound_is_kept_and_nothing_is_wrong() {
        let mut report = Report::new("a title", vec!["a line".into()]);
        report.tell("told", 7.0, "ms");
        report.hold("as much", 99.0, "%", Bound::AtLeast(99.0));
        report.hold("as little", 0.5, "%", Bound::AtMost(0.5));
        assert!(report.passes() && report.to_string().ends_with("a title: PASS"), "{report}");
        let wrong = Report { wrong: vec!["something".into()], ..report.clone() };
        assert!(!wrong.passes() && wrong.to_string().contains("WRONG: something"));
        report.hold("too little", 98.9, "%", Bound::AtLeast(99.0));
        assert!(!report.passes());
        assert_eq!(report.to_string().lines().filter(|line| line.ends_with("FAIL")).count(), 2, "the figure and the whole");
    }

    #[test]
    fn what_is_no_number_keeps_no_bound() {
        assert!(!Bound::AtLeast(0.0).holds(f64::NAN) && !Bound::AtMost(0.0).holds(f64::NAN));
    }
}
