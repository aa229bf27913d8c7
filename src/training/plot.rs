use std::fmt::Write;

use super::history::{EvaluationRecord, History, StepRecord};

const WIDTH: f64 = 860.0;
const PANEL_HEIGHT: f64 = 250.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;
/// A plot this wide shows no more points than these.
const MOST_POINTS: usize = 1500;

/// Draws a run over its steps, as an SVG document: loss, learning rate, and the
/// evaluations' score if there are any.
///
/// The loss is drawn as it was, and smoothed over about a fiftieth of the run.
pub fn plot_history(history: &History, evaluations: &[EvaluationRecord]) -> String {
    let of = |read: fn(&StepRecord) -> f64| -> Vec<(f64, f64)> {
        let records = history.records().iter();
        records
            .map(|record| (record.step as f64, read(record)))
            .collect()
    };
    let loss = of(|record| record.loss);
    let smoothed = smooth(&loss, (loss.len() / 50).max(1));
    let mut panels = vec![
        Panel {
            title: "Loss",
            low: Some(0.0),
            series: vec![
                Series {
                    colour: "#b8c7e0",
                    label: "each step",
                    points: loss,
                },
                Series {
                    colour: "#1f4e9c",
                    label: "smoothed",
                    points: smoothed,
                },
            ],
        },
        Panel {
            title: "Learning rate",
            low: Some(0.0),
            series: vec![Series {
                colour: "#b3541e",
                label: "learning rate",
                points: of(|record| record.learning_rate),
            }],
        },
    ];
    if let Some(first) = evaluations.first() {
        let score = |record: &EvaluationRecord| Some((record.step as f64, record.score()?));
        let scores = evaluations.iter().filter_map(score);
        panels.push(Panel {
            title: &first.primary_metric,
            low: None,
            series: vec![Series {
                colour: "#2e7d4f",
                label: "score",
                points: scores.filter(|(_, score)| score.is_finite()).collect(),
            }],
        });
    }

    let height = PANEL_HEIGHT * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (place, panel) in panels.iter().enumerate() {
        panel.draw(&mut svg, PANEL_HEIGHT * place as f64);
    }
    svg.push_str("</svg>\n");
    svg
}

/// One diagram over the steps.
struct Panel<'a> {
    title: &'a str,
    /// A value that the scale reaches down to.
    low: Option<f64>,
    series: Vec<Series>,
}

/// One line of a diagram.
struct Series {
    colour: &'static str,
    label: &'static str,
    points: Vec<(f64, f64)>,
}

impl Panel<'_> {
    fn draw(&self, svg: &mut String, offset: f64) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::over(points().map(|&(x, _)| x), LEFT, WIDTH - RIGHT);
        let (bottom, top) = (offset + PANEL_HEIGHT - BOTTOM, offset + TOP);
        let y = Axis::over(points().map(|&(_, y)| y).chain(self.low), bottom, top);

        line(
            svg,
            &format!(
                "<text x=\"{LEFT}\" y=\"{:.1}\" font-size=\"14\">{}</text>",
                top - 16.0,
                escaped(self.title)
            ),
        );
        for tick in y.ticks() {
            let at = y.place(tick);
            let end = WIDTH - RIGHT;
            line(
                svg,
                &format!("<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#e4e4e4\"/>"),
            );
            let (x, y) = (LEFT - 8.0, at + 4.0);
            let label = y_label(tick);
            line(
                svg,
                &format!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>"),
            );
        }
        for tick in x.ticks().into_iter().filter(|tick| tick.fract() == 0.0) {
            let (at, y) = (x.place(tick), bottom + 18.0);
            line(
                svg,
                &format!("<path d=\"M{at:.1} {bottom}v5\" stroke=\"#666\"/>"),
            );
            line(
                svg,
                &format!("<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{tick}</text>"),
            );
        }
        let (middle, below) = ((LEFT + WIDTH - RIGHT) / 2.0, bottom + 36.0);
        line(
            svg,
            &format!("<text x=\"{middle}\" y=\"{below:.1}\" text-anchor=\"middle\">step</text>"),
        );
        line(
            svg,
            &format!(
                "<path d=\"M{LEFT} {top}V{bottom}H{}\" fill=\"none\" stroke=\"#666\"/>",
                WIDTH - RIGHT
            ),
        );
        for (place, series) in self.series.iter().enumerate() {
            series.draw(svg, &x, &y);
            if self.series.len() > 1 {
                let (at, beside) = (WIDTH - RIGHT - 190.0 + 100.0 * place as f64, top - 20.0);
                let (text, below) = (at + 24.0, top - 16.0);
                line(
                    svg,
                    &format!(
                        "<path d=\"M{at} {beside}h18\" stroke=\"{}\" stroke-width=\"2\"/>",
                        series.colour
                    ),
                );
                line(
                    svg,
                    &format!("<text x=\"{text}\" y=\"{below}\">{}</text>", series.label),
                );
            }
        }
    }
}

impl Series {
    fn draw(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let every = self.points.len().div_ceil(MOST_POINTS).max(1);
        let last = self.points.len().saturating_sub(1);
        let shown = self.points.iter().enumerate();
        let shown = shown.filter(|(place, _)| place % every == 0 || *place == last);
        let points = shown.fold(String::new(), |mut points, (_, &(px, py))| {
            // Writing to a string cannot fail.
            let _ = write!(points, "{:.1},{:.1} ", x.place(px), y.place(py));
            points
        });
        line(
            svg,
            &format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"/>",
                points.trim_end(),
                self.colour
            ),
        );
    }
}

/// A range of values and where it lies on the page.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = match low < high {
            true => (low, high),
            // One value, or none: any range that holds it.
            false if low.is_finite() => (low - 0.5, low + 0.5),
            false => (0.0, 1.0),
        };
        Self {
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round values, four to nine of them.
    fn ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|&step| step >= rough)
            .unwrap_or(10.0 * power);
        // The ends themselves count, whatever the rounding of the division.
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        // The nearest short decimal, not 0.30000000000000004.
        let round = |value: f64| format!("{value:.6e}").parse().unwrap_or(value);
        (first..=last)
            .map(|tick| round(tick as f64 * step))
            .collect()
    }
}

fn y_label(value: f64) -> String {
    match value != 0.0 && value.abs() < 1e-2 {
        true => format!("{value:e}"),
        false => format!("{value}"),
    }
}

/// The mean of each value and the `reach` values on either side of it.
fn smooth(points: &[(f64, f64)], reach: usize) -> Vec<(f64, f64)> {
    let mut sums = vec![0.0];
    for &(_, y) in points {
        sums.push(sums[sums.len() - 1] + y);
    }
    let mean = |(place, &(x, _)): (usize, &(f64, f64))| {
        let (from, to) = (
            place.saturating_sub(reach),
            (place + reach + 1).min(points.len()),
        );
        (x, (sums[to] - sums[from]) / (to - from) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn line(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::history::tests::{evaluation, history};

    #[test]
    fn draws_both_curves_with_their_labels() {
        let svg = plot_history(&history(40), &[]);
        assert_eq!(svg.matches("<polyline").count(), 3);
        for text in [
            ">Loss<",
            ">Learning rate<",
            ">step<",
            ">smoothed<",
            ">10<",
            ">2e-4<",
        ] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }

    #[test]
    fn draws_the_score_where_there_is_one() {
        let evaluations =
            [(0, 0.5), (20, f64::NAN), (40, 0.7)].map(|(step, value)| evaluation(step, value));
        let svg = plot_history(&history(40), &evaluations);
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(
            svg.contains(">cosine_ndcg@10 &lt; 1<") && svg.contains(">0.7<"),
            "{svg}"
        );
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn draws_a_run_of_no_or_one_step() {
        for steps in [0, 1] {
            let svg = plot_history(&history(steps), &[]);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        }
    }

    #[test]
    fn a_long_run_makes_no_long_document() {
        let svg = plot_history(&history(100_000), &[]);
        assert!(svg.len() < 100_000, "{}", svg.len());
        assert!(svg.contains(">100000<"));
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::over([0.0, 0.93].into_iter(), 0.0, 1.0);
        assert_eq!(axis.ticks(), [0.0, 0.2, 0.4, 0.6, 0.8]);
        let axis = Axis::over([3.0, 3e-5].into_iter(), 0.0, 1.0);
        assert_eq!(axis.ticks(), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn smoothing_is_a_mean_around_each_point() {
        let points = [(1.0, 0.0), (2.0, 3.0), (3.0, 6.0), (4.0, 3.0)];
        let smoothed: Vec<f64> = smooth(&points, 1).into_iter().map(|(_, y)| y).collect();
        assert_eq!(smoothed, [1.5, 3.0, 4.0, 4.5]);
    }
}
