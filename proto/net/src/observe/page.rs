//! A page of metrics as it is now, in the OpenMetrics text format: for Prometheus and whoever reads the same.
//!
//! Values are looked up when somebody asks, so that counting costs nothing else.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// How many there were of each size: `bounds` are upper ends, ascending, and `counts` has one more, of what is above.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    pub bounds: Vec<f64>,
    pub counts: Vec<u64>,
    pub sum: f64,
}

#[derive(Debug, Clone)]
enum Value {
    Counter(f64),
    Gauge(f64),
    Histogram(Histogram),
}

/// Names and values of the labels of one sample.
pub type Labels = Vec<(&'static str, String)>;

/// One label.
pub fn label(name: &'static str, value: impl ToString) -> Labels {
    vec![(name, value.to_string())]
}

#[allow(clippy::cast_precision_loss, reason = "figures are shown with 16 digits")]
pub fn float(number: u64) -> f64 {
    number as f64
}

/// 1: it is so.
pub fn flag(is_so: impl Into<u8>) -> f64 {
    f64::from(is_so.into())
}

#[derive(Debug, Clone)]
struct Family {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Labels, Value)>,
}

/// See the module's documentation. Names are without the prefix `keyward_`, and of counters without `_total`.
#[derive(Debug, Clone, Default)]
pub struct Page(Vec<Family>);

impl Page {
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, [(Labels::new(), value)]);
    }

    pub fn counter(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.counters(name, help, [(Labels::new(), value)]);
    }

    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.family(name, help, Value::Gauge, samples);
    }

    pub fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.family(name, help, Value::Counter, samples);
    }

    pub fn histograms(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, Histogram)>,
    ) {
        self.family(name, help, Value::Histogram, samples);
    }

    fn family<T>(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: fn(T) -> Value,
        samples: impl IntoIterator<Item = (Labels, T)>,
    ) {
        let samples = samples.into_iter().map(|(labels, value)| (labels, kind(value))).collect();
        self.0.push(Family { name, help, samples });
    }

    /// The whole page.
    pub fn text(self) -> String {
        let mut registry = Registry::with_prefix("keyward");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        let written = encode(&mut text, &registry);
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        text
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let Some((_, first)) = family.samples.first() else { continue };
            let kind = match first {
                Value::Counter(_) => MetricType::Counter,
                Value::Gauge(_) => MetricType::Gauge,
                Value::Histogram(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                if labels.is_empty() {
                    encode_value(&mut metric, value)?;
                } else {
                    let labels = Borrowed(labels);
                    encode_value(&mut metric.encode_family(&labels)?, value)?;
                }
            }
        }
        Ok(())
    }
}

struct Borrowed<'a>(&'a Labels);

impl EncodeLabelSet for Borrowed<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        let labels: Vec<(&str, &str)> = self.0.iter().map(|(name, value)| (*name, value.as_str())).collect();
        labels.encode(encoder)
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Counter(value) => metric.encode_counter::<NoLabelSet, f64, f64>(value, None),
        Value::Gauge(value) => metric.encode_gauge(value),
        Value::Histogram(histogram) => {
            let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
            let count = histogram.counts.iter().sum();
            metric.encode_histogram::<NoLabelSet>(histogram.sum, count, &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_in_the_text_format() {
        let mut page = Page::default();
        page.gauge("memory_bytes", "Bytes in use", 17.0);
        let of = |command: &str| vec![("command", command.to_owned())];
        page.counters("calls", "Calls of commands", [(of("get"), 3.0), (of("a\"b\\c\nd"), 4.0)]);
        page.gauges("lag", "Nobody follows", []);
        let histogram = Histogram { bounds: vec![0.5, 1.0], counts: vec![2, 0, 1], sum: 3.25 };
        page.histograms("seconds", "Time of calls", [(of("get"), histogram)]);
        let expected = "# HELP keyward_memory_bytes Bytes in use\n\
                        # TYPE keyward_memory_bytes gauge\n\
                        keyward_memory_bytes 17.0\n\
                        # HELP keyward_calls Calls of commands\n\
                        # TYPE keyward_calls counter\n\
                        keyward_calls_total{command=\"get\"} 3.0\n\
                        keyward_calls_total{command=\"a\\\"b\\\\c\\nd\"} 4.0\n\
                        # HELP keyward_seconds Time of calls\n\
                        # TYPE keyward_seconds histogram\n\
                        keyward_seconds_sum{command=\"get\"} 3.25\n\
                        keyward_seconds_count{command=\"get\"} 3\n\
                        keyward_seconds_bucket{le=\"0.5\",command=\"get\"} 2\n\
                        keyward_seconds_bucket{le=\"1.0\",command=\"get\"} 2\n\
                        keyward_seconds_bucket{le=\"+Inf\",command=\"get\"} 3\n\
                        # EOF\n";
        assert_eq!(page.text(), expected);
    }
}
