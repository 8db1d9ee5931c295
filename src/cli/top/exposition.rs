//! The text of `/metrics`, line by line: a name, labels and a number (Prometheus' text format and `OpenMetrics`). What a metric
//! means is not known here.

/// One line with a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    pub name: &'a str,
    labels: Vec<(&'a str, String)>,
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label; empty where there is none, which is the same to Prometheus.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// Every line with a number; what is none is passed over.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    if let Some(written) = rest.strip_prefix('{') {
        rest = written;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label, value));
            rest = after;
        }
        rest = rest.strip_prefix('}')?;
    }
    // A time, or an example of what was counted, may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// What stands before the closing quote, without its escapes, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_and_the_rest_is_passed_over() {
        let text =
            "# HELP a b\n# TYPE a counter\na_total 3\nb{x=\"1\",y=\"\"} 0.5 1700000000\n\nc{x=\"1\n{}\nd{} +Inf\ne x\n";
        let read: Vec<_> = samples(text).map(|sample| (sample.name, sample.value)).collect();
        assert_eq!(read, [("a_total", 3.0), ("b", 0.5), ("d", f64::INFINITY)]);
        let b = samples(text).nth(1).expect("b");
        assert_eq!((b.label("x"), b.label("y"), b.label("z")), ("1", "", ""));
    }

    proptest! {
        #[test]
        fn any_label_is_read_as_it_was_written(value in "\\PC{0,20}|[\\\\\"\n,={} ]{0,10}", number in -1e9_f64..1e9) {
            let written = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let line = format!("name{{a=\"{written}\",b=\"{written}\"}} {number}");
            let read = sample(&line).expect("a sample");
            prop_assert_eq!((read.label("a"), read.label("b"), read.value), (&*value, &*value, number));
        }

        #[test]
        fn nothing_that_is_read_ends_the_process(text in "[a{}=\"\\\\, 0\n#é]{0,40}") {
            samples(&text).for_each(drop);
        }
    }
}
